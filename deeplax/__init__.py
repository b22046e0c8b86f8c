"""deeplax: the DeepLab line (v1, v2, v3, v3+) in JAX and Flax."""

import sys

__version__ = "0.1.0"

# So Python calls a command, `python -m deeplax.NAME`, until it has found it.
if sys.argv[:1] == ["-m"]:
  from deeplax import errors

  errors.tell_interrupts()
