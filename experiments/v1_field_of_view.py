"""v1's field of view: kernel and rate of fc6, with the CRF (v1, table 2).

COMMAND: python -m experiments.run v1_field_of_view

VOC 2012 val. The networks are those of v2_table1; here each row is v1's, behind
the CRF. The paper's receptive fields are 224, 128, 224 and 224 pixels.
"""

from deeplax.ablation import papers

BASE = "v1_vgg16_largefov"
PAPER = papers.numbers("v1_table2")
FIELD_OF_VIEW = True


def sweep():
  """Yield the settings of each row."""
  for name, kernel, rate, channels in (
    ("DeepLab-CRF-7x7", 7, 4, 4096),
    ("DeepLab-CRF", 4, 4, 4096),
    ("DeepLab-CRF-4x4", 4, 8, 4096),
    ("DeepLab-CRF-LargeFOV", 3, 12, 1024),
  ):
    yield {
      "name": name,
      "model.fc6_kernel": kernel,
      "model.pool5a": kernel == 3,
      "model.atrous_rates": (rate,),
      "model.channels": channels,
      "crf": True,
    }
