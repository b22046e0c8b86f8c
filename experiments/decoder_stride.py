"""The decoder's finest stride: 8, 4, and 2, which v3+ left open.

COMMAND: python -m experiments.run decoder_stride

v3+ (section 3.1) stops at stride 4 for want of memory. At 2 the features are
refined once more, by those of the root; without them ("features" (4,)) the
resize alone goes further.
"""

BASE = "v3plus_resnet101"
MEASURE = ("--trimap=1,2,5,10,20,30,40", "--boundary")


def sweep():
  """Yield the settings of each row."""
  for features, stride in (((8,), 8), ((4,), 4), ((4,), 2), ((4, 2), 2)):
    yield {
      "model.decoder.features": features,
      "model.decoder.output_stride": stride,
    }
