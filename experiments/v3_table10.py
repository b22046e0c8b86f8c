"""Output stride in training and in evaluation (v3, table 10).

COMMAND: python -m experiments.run v3_table10

ResNet-101, VOC 2012 val. Batches are the largest that fitted the paper's GPUs:
6, 16 and 24. Three trainings give all rows.
"""

from deeplax.ablation import papers

BASE = "v3_resnet101"
PAPER = papers.numbers("v3_table10")
BATCHES = {8: 6, 16: 16, 32: 24}


def sweep():
  """Yield the settings of each row, in the columns' order."""
  for trained_at, evaluated_at, _ in PAPER.rows():
    yield {
      "model.output_stride": trained_at,
      "train.batch_size": BATCHES[trained_at],
      "eval.output_stride": evaluated_at,
    }
