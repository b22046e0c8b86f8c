"""Atrous rates against strides that are dropped and nothing in their place.

COMMAND: python -m experiments.run atrous_or_not
         python -m experiments.report atrous_or_not --costs-only

v3's ResNet-101 without multi-grid. Both have the same parameters and
Multiply-Adds at an output stride; only with rates do features see as much of
the image as at 32. No table of the papers has this; v3 (section 3.1) argues it.
"""

BASE = "v3_resnet101"
FIELD_OF_VIEW = True


def sweep():
  """Yield the settings of each row."""
  for stride, atrous in (
    (32, True),
    (16, True),
    (16, False),
    (8, True),
    (8, False),
  ):
    yield {
      "model.output_stride": stride,
      "model.atrous": atrous,
      "model.multi_grid": (1, 1, 1),
    }
