"""The papers' protocols, under their former name: see common.py."""

from deeplax.settings.protocols import HARD_CLASSES as HARD_CLASSES
from deeplax.settings.protocols import STAGES as STAGES
from deeplax.settings.protocols import after_coco as after_coco
from deeplax.settings.protocols import cityscapes as cityscapes
from deeplax.settings.protocols import cityscapes_test as cityscapes_test
from deeplax.settings.protocols import coco as coco
from deeplax.settings.protocols import stage2 as stage2
from deeplax.settings.protocols import v1 as v1
from deeplax.settings.protocols import v2_resnet101 as v2_resnet101
from deeplax.settings.protocols import v2_vgg16 as v2_vgg16
from deeplax.settings.protocols import v3_cascade as v3_cascade
