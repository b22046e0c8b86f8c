"""The defaults of every configuration, under their former name.

They are `deeplax.settings.defaults`, which a configuration imports from
anywhere; programs that import `configs.common` find the same functions here.
"""

from deeplax.settings.defaults import base as base
from deeplax.settings.defaults import debug as debug
from deeplax.settings.defaults import placeholder as placeholder
from deeplax.settings.defaults import shapes as shapes
