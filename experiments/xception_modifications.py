"""v3+'s changes to Xception, each taken back alone (v3+, section 3.2).

COMMAND: python -m experiments.run xception_modifications

From the released network: the paper's text has a ReLU too behind each depthwise
convolution; before the paper there was neither norm nor ReLU, max pooling for
strides, and a middle flow half as deep.
"""

BASE = "v3plus_xception"


def sweep():
  """Yield the settings of each row."""
  for name, settings in (
    ("released", {}),
    ("norm_relu", {"model.xception.after_depthwise": "norm_relu"}),
    ("no_norm", {"model.xception.after_depthwise": "none"}),
    ("max_pool", {"model.xception.downsample": "max_pool"}),
    ("middle_8", {"model.xception.middle_units": 8}),
  ):
    yield {"name": name, **settings}
