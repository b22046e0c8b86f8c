"""Every key that a run reads, with its unit, its default and its source.

A config file starts from `base()` and states only what differs. Placeholders
(`None` until set) are marked; everything else has a value that works.
"""

from collections.abc import Sequence
from typing import Any

import ml_collections
from ml_collections import config_dict

# How images of many sizes share a compiled program; see `eval.sizes`.
SIZES = ("reference", "exact", "unpadded")
# Keys that hold a path, whose ~ is the home directory.
PATHS = ("data.root", "init.checkpoint")

placeholder = config_dict.placeholder


def base() -> Any:
  """Return the defaults: DeepLabv3+ on VOC as in 1802.02611, section 4."""
  c = ml_collections.ConfigDict()
  c.seed = 0  # draws parameters, data order, augmentation and dropout

  c.data = ml_collections.ConfigDict()
  # voc2012 | cityscapes | ade20k | coco | camvid | shapes | folder
  c.data.name = "voc2012"
  c.data.root = placeholder(str)  # the data set's folder; None: searched for
  # VOC 2012 + SBD: 10,582 images. Several splits: "train+val".
  c.data.train_split = "train_aug"
  c.data.eval_split = "val"  # VOC 2012 val: 1,449 images
  c.data.crop_size = (513, 513)  # (height, width) of a training crop, pixels
  c.data.min_scale = 0.5  # random scale of the papers: 0.5 to 2.0 ...
  c.data.max_scale = 2.0
  c.data.scale_step = 0.25  # ... in steps of 0.25; 0 draws it continuously
  c.data.flip = True  # left-right, with probability 1/2
  c.data.threads = 4  # reader threads; the stream is the same for any number
  c.data.check_images = 200  # masks looked at before step 0; 0: none
  # Training images that hold one of these classes are listed twice, as v3
  # does (4.1) with bicycle, chair, diningtable, pottedplant and sofa.
  c.data.duplicate_classes = ()
  # None: RGB pictures. Otherwise the bands to read from files of many bands,
  # counted from 0, for example (3, 2, 1, 7).
  c.data.channels = placeholder(tuple)
  # Of these bands. None: measured on the training images at the first start.
  c.data.channel_mean = placeholder(tuple)
  c.data.channel_std = placeholder(tuple)
  # data.name = "shapes" only: pictures made on the spot.
  c.data.shapes_size = (97, 97)  # (height, width) of a made picture, pixels
  c.data.shapes_train = 2000  # number of made training pictures
  c.data.shapes_eval = 100  # number of made validation pictures

  c.model = ml_collections.ConfigDict()
  # Backbone, head, decoder.kind and train.loss may also name a class or
  # function in a file of your own, my_decoder.py:MyDecoder(channels=64).
  c.model.backbone = "xception_65"
  c.model.depth_multiplier = 1.0  # channel factor, MobileNet only
  # Input size / feature size: 4 | 8 | 16 | 32.
  c.model.output_stride = 16
  # False: the strides dropped for it leave no rates in the backbone, which then
  # sees less. Of ResNet and MobileNet.
  c.model.atrous = True
  # Besides 1, of the image in the network, fused by the largest score, each
  # with its own loss: v2's are (0.75, 0.5). `eval.scales` come on top.
  c.model.input_scales = ()
  c.model.multi_grid = (1, 1, 1)  # unit rates of the last block (v3, 3.2.1)
  # v3+'s changes to Xception (3.2). Of Xception only.
  c.model.xception = ml_collections.ConfigDict()
  # Behind each depthwise convolution: none | norm (the released code, whose
  # last block has norm_relu) | norm_relu (the paper's text).
  c.model.xception.after_depthwise = "norm"
  c.model.xception.middle_units = placeholder(int)  # None: 16; 8 at depth 41
  # Strided: the third convolution of a block, separable, or in place of it
  # max_pool, as before the paper.
  c.model.xception.downsample = "separable"
  # aspp (v3) | large_fov (v1) | aspp_sum (v2) | lraspp | classifier
  # | cascade (v3, 3.2) | dpc (1809.04184)
  c.model.head = "aspp"
  # None: (3,6,9) at 32, (6,12,18) at 16, (12,24,36) at 8, (24,48,72) at 4, and
  # of large_fov and aspp_sum what v1 and v2 have; (): no atrous branch
  c.model.atrous_rates = placeholder(tuple)
  c.model.image_pooling = True
  # (height, width), in pixels, of the windows that image pooling averages
  # over; None: the whole image.
  c.model.image_pooling_crop = placeholder(tuple)
  c.model.image_pooling_stride = (1, 1)  # of these windows, in features
  c.model.separable = True  # the head's 3x3 convolutions
  # Width of every branch of the head; aspp_sum: 0 is no fc6 and fc7 in it.
  c.model.channels = 256
  c.model.fc6_kernel = 3  # of large_fov and aspp_sum: 7 | 4 | 3 (v2, table 1)
  # Of large_fov: 3x3 averages between pool5 and fc6, as the released LargeFOV.
  c.model.pool5a = False
  c.model.cascade_blocks = 3  # of cascade: copies of ResNet's block4, 0 to 3
  # Of dpc: each branch's input, -1 the features or the branches before it from
  # 0, and its rates of rows and columns at output stride 16: the model zoo's.
  c.model.cell = (
    *((-1, (1, 6)), (0, (18, 15)), (1, (6, 3)), (0, (1, 1)), (0, (6, 21))),
  )
  # After the head's projection; None: the conventions' value, the papers' 0.1.
  c.model.dropout = placeholder(float)
  c.model.decoder = ml_collections.ConfigDict()
  # none | concat | sum | branches (v1's multi-scale features)
  c.model.decoder.kind = "concat"
  c.model.decoder.low_level_channels = 48  # v3+, table 1
  c.model.decoder.convs = 2  # v3+, table 2
  c.model.decoder.channels = 256  # v3+, table 2
  c.model.decoder.kernel = 3  # v3+, table 2
  c.model.decoder.separable = True
  c.model.decoder.features = (4,)  # strides of the low-level features;
  # (8, 4) refines at Conv3, then at Conv2 (v3+, table 2, last row)
  c.model.decoder.output_stride = 4  # 8, 4 or 2
  c.model.batch_norm = ml_collections.ConfigDict()
  # train | frozen: statistics stay, scale and offset train (v3) | fixed: nor do
  # these (v2)
  c.model.batch_norm.mode = "train"
  # all | device | a number of devices, as text
  c.model.batch_norm.group = "all"
  c.model.batch_norm.decay = placeholder(float)  # None: the conventions' value
  # Compute each unit of the backbone once more in the backward pass: less
  # memory, more time (how much: docs/performance.md, "Memory"). Not of VGG-16,
  # which has no units.
  c.model.remat = False
  c.model.dtype = "float32"  # compute: float32 | bfloat16; parameters: float32
  # Of float32 products: default (TF32 on NVIDIA cards, bfloat16 on TPUs,
  # float32 on CPUs) | high (TF32; TPUs: 3 bfloat16 products) |
  # highest (float32)
  c.model.precision = "default"
  # Whose network it is where they differ: tf_deeplab | torchvision | smp | timm
  # | caffe (v1 and v2) | kazuto (v2 in PyTorch)
  c.model.conventions = "tf_deeplab"
  # Set by a run whose network was given as a Python object.
  c.model.given = False

  c.optim = ml_collections.ConfigDict()
  c.optim.base_lr = 0.007  # at batch 16 (v3, 4.1)
  c.optim.schedule = "poly"  # poly | step | cosine
  c.optim.power = 0.9  # of the poly schedule
  c.optim.end_lr = 0.0  # of the poly and cosine schedules
  c.optim.step_every = 2_000  # step schedule: steps between the drops (v1, 4.1)
  c.optim.step_factor = 0.1  # step schedule: of the lr at each drop (v1, 4.1)
  c.optim.decay_steps = 0  # until end_lr; 0: what the slow start leaves
  c.optim.slow_start = "constant"  # or linear: from slow_start_lr to base_lr
  c.optim.slow_start_steps = 0  # steps before the schedule
  c.optim.slow_start_lr = 1e-4
  c.optim.name = "momentum"  # momentum | adamw
  c.optim.momentum = 0.9  # adamw: decay of the first moment
  c.optim.nesterov = False
  c.optim.second_moment = 0.999  # adamw: decay of the second moment
  c.optim.weight_decay = 4e-5  # dense kernels only; ResNet: 1e-4 (code)
  c.optim.head_multiplier = 1.0  # of the lr, for what `multiplied` names
  # head: head, decoder and logits | classifier: class scores and new branches
  # only, not fc6 and fc7, which come from ImageNet (v1, v2)
  c.optim.multiplied = "head"
  # Parts that train: backbone, head, decoder, logits; (): all of them. The
  # others' norms are fixed, as by batch_norm.mode.
  c.optim.trained = ()
  c.optim.bias_multiplier = 2.0  # of the lr, for convolution biases
  c.optim.clip_norm = 0.0  # largest norm of the whole gradient; 0: any
  # Evaluate and predict with a moving average of the parameters; 0: none.
  c.optim.ema_decay = 0.0

  c.train = ml_collections.ConfigDict()
  c.train.batch_size = 16  # images per step, over all devices
  c.train.total_steps = 30_000
  # cross_entropy, or what takes its place, in a file of your own
  c.train.loss = "cross_entropy"
  c.train.upsample_logits = True  # False: labels down to the logits (v3, T8)
  # none | median_frequency | enet, counted on the training masks, or one number
  # per class as text, "0.5,1.0,2.0"
  c.train.class_weights = "none"
  # Share of each device's (and part's) pixels, by loss, that count.
  c.train.hard_pixels = 1.0
  c.train.hard_pixel_steps = 0  # steps from all of the pixels to that share
  c.train.auxiliary_weight = 0.0  # of the loss on the last but one stage
  # Parts that a device's batch is computed in, for memory. Dropout then draws
  # by part, so another number of devices gives another run.
  c.train.accumulate = 1
  # True allows it with norms that train, each of which sees one part at a time.
  c.train.accumulate_trained_norm = False
  c.train.memory_fraction = 0.9  # of free memory that a step may claim
  # The same bits from every run and resume on a GPU; slower. CPUs and TPUs give
  # them anyway.
  c.train.deterministic = False
  # On a CPU: compile the step in half the time, without LLVM's optimizations,
  # for runs of a few steps.
  c.train.quick_compile = False
  # First of three steps that are profiled, fewer where the run ends, saves or
  # evaluates between; 0: none.
  c.train.profile = 0

  c.eval = ml_collections.ConfigDict()
  c.eval.every = 2_000  # steps between evaluations while training; 0: at end
  c.eval.max_images = 0  # of the eval split while training; 0: all of it
  c.eval.output_stride = placeholder(int)  # None: the training one
  c.eval.scales = (1.0,)
  c.eval.flip = False
  c.eval.pictures = 4  # rows of the picture sheet of each evaluation; 0: none
  # Images are padded with the mean pixel to this (height, width), larger ones
  # to the next multiple of 64, plus 1. None: always the latter.
  c.eval.pad_to = placeholder(tuple)
  # reference: as above, and the network sees the padding; exact: it does not;
  # unpadded: nothing is padded, and every size of image compiles a program.
  c.eval.sizes = "reference"
  # Side of the windows that larger images are predicted in, blended where they
  # overlap; 0: whole images.
  c.eval.window = 0
  c.eval.overlap = 0  # pixels that windows share; 0: a quarter window
  # Images that each device predicts at once; 0: one on a CPU, on accelerators
  # as many as make it faster and fit into half of the free memory.
  c.eval.batch = 0
  # The fully connected CRF of `--crf`, as a v2 ResNet-101 was evaluated on VOC
  # by kazuto1011/deeplab-pytorch (configs/voc12.yaml); for another network,
  # python -m deeplax.crf.search.
  c.eval.crf = ml_collections.ConfigDict()
  c.eval.crf.w1 = 4.0  # weight of the kernel of position and color
  c.eval.crf.sigma_alpha = 67.0  # its standard deviation in pixels ...
  c.eval.crf.sigma_beta = 3.0  # ... and in color, of 0..255
  c.eval.crf.w2 = 3.0  # weight of the kernel of position (also v1 and v2)
  c.eval.crf.sigma_gamma = 1.0  # its deviation in pixels; v1 and v2: 3
  c.eval.crf.iterations = 10  # of mean field (also v1 and v2)
  # Classes that provably stay below this in every pixel send no messages: an
  # image of few classes takes half the time. 0: all do.
  c.eval.crf.negligible = 0.0
  c.eval.sweep = ml_collections.ConfigDict()
  c.eval.sweep.output_strides = (16, 8)
  c.eval.sweep.scales = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # the papers' six
  c.eval.sweep.flip = (False, True)

  c.init = ml_collections.ConfigDict()
  c.init.checkpoint = placeholder(str)  # a workdir: start from its parameters

  c.checkpoint = ml_collections.ConfigDict()
  c.checkpoint.every = 1_000  # steps
  c.checkpoint.keep = 2  # newest ones; the best by mIoU is kept besides

  c.log = ml_collections.ConfigDict()
  c.log.every = 10  # steps between progress lines
  c.log.tensorboard = False  # also write TensorBoard files; needs extra "tf"
  return c


def debug(c: Any) -> Any:
  """Return a configuration's `:debug`: made-up data, a few steps."""
  c.data = shapes(c.data)
  c.data.shapes_size = (65, 65)
  c.data.shapes_train = 16
  c.data.shapes_eval = 4
  c.data.crop_size = (33, 33)
  c.train.batch_size = 2
  c.train.total_steps = 4
  c.train.quick_compile = True
  c.eval.every = 0
  c.eval.pad_to = (65, 65)
  # Each stride and scale compiles a program of its own.
  c.eval.sweep.output_strides = (c.eval.output_stride or c.model.output_stride,)
  c.eval.sweep.scales = (1.0,)
  c.eval.sweep.flip = (False,)
  c.checkpoint.every = 2
  c.log.every = 1
  return c


def shapes(data: Any) -> Any:
  """Return `config.data` with made-up pictures in place of a data set."""
  data.name = "shapes"
  data.root = None
  data.train_split = "train"
  data.eval_split = "val"
  return data


def pick(name: str, arg: str, known: Sequence[str]) -> None:
  """Refuse an argument, after the colon, that a configuration does not know."""
  if arg not in known:
    raise ValueError(f"{name}:{arg} not in {list(known)}")
