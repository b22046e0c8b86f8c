"""How ResNet-101 is evaluated, with and without the decoder (v3+, table 3).

COMMAND: python -m experiments.run v3plus_table3
         python -m experiments.report v3plus_table3 --costs-only

VOC 2012 val. Four trainings, at output strides 16 and 32 with and without the
decoder, give all fourteen rows. Without the decoder it is v3's network.

Of the Multiply-Adds 101.28 is inconsistent: the same network's numbers over
several scales, and all others, fit multi-grid (1, 2, 4), which gives 102.59 at
one scale.
"""

from deeplax.ablation import papers

BASE = "v3plus_resnet101"
PAPER = papers.numbers("v3plus_table3", multiply_adds="MAdds_B")


def sweep():
  """Yield the settings of each row, in the columns' order."""
  for row in PAPER.rows():
    trained_at, evaluated_at, decoder, several_scales, flip, *_ = row
    words = ("decoder", "scales", "flip")
    marks = zip(words, (decoder, several_scales, flip), strict=True)
    on = [word for word, mark in marks if mark]
    yield {
      "name": "-".join([str(trained_at), str(evaluated_at), *on]),
      "model.output_stride": trained_at,
      "eval.output_stride": evaluated_at,
      "model.decoder.kind": "concat" if decoder else "none",
      "eval.scales": papers.SCALES if several_scales else (1.0,),
      "eval.flip": flip,
    }
