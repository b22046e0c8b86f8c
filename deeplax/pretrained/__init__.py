"""Published weights in and out: `convert_arrays` and the tables behind it."""

from deeplax.pretrained.tables import convert_arrays

__all__ = ["convert_arrays"]
