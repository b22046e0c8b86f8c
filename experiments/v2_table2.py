"""Learning rate policy, batch and steps (v2, table 2).

COMMAND: python -m experiments.run v2_table2

VGG-16 with LargeFOV on VOC 2012 val, before the CRF. The step policy multiplies
by 0.1 every 2,000 steps.
"""

from deeplax.ablation import papers

BASE = "v2_vgg16:large_fov"
PAPER = papers.numbers("v2_table2")


def sweep():
  """Yield the settings of each row, in the columns' order."""
  for policy, batch, steps, _ in PAPER.rows():
    yield {
      "optim.schedule": policy,
      "train.batch_size": batch,
      "train.total_steps": steps,
    }
