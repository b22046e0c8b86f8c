"""Field of view of VGG-16's fc6, without and with the CRF (v2, table 1).

COMMAND: python -m experiments.run v2_table1

VOC 2012 val, v1's protocol. Kernel and rate set what fc6 sees, and with its
channels the number of parameters; four trainings give eight rows.
"""

from deeplax.ablation import papers

BASE = "v1_vgg16_largefov"
PAPER = papers.numbers("v2_table1", ("before_CRF", "after_CRF"))
FIELD_OF_VIEW = True


def sweep():
  """Yield the settings of each row, before and after the CRF."""
  for kernel, rate, channels in (
    (7, 4, 4096),
    (4, 4, 4096),
    (4, 8, 4096),
    (3, 12, 1024),
  ):
    for crf in (False, True):
      yield {
        "model.fc6_kernel": kernel,
        "model.pool5a": kernel == 3,
        "model.atrous_rates": (rate,),
        "model.channels": channels,
        "crf": crf,
      }
