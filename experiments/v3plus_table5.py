"""How Xception-65 is evaluated; separable convolutions; COCO (v3+, table 5).

COMMAND: python -m experiments.run v3plus_table5
         python -m experiments.report v3plus_table5 --costs-only

VOC 2012 val, trained at output stride 16. The rows of COCO start from
configs/v3plus_xception.py:coco, which is to be run before them; JFT-300M is
not public. The separable rows save 33 to 41% of the Multiply-Adds.
"""

from deeplax.ablation import papers

BASE = "v3plus_xception"
PAPER = papers.numbers("v3plus_table5", multiply_adds="MAdds_B")
# (without, with) separable convolutions in head and decoder.
SAVINGS = (
  ("16-16-decoder", "16-16-decoder-separable"),
  ("16-16-decoder-scales-flip", "16-16-decoder-scales-flip-separable"),
  ("16-8-decoder", "16-8-decoder-separable"),
  ("16-8-decoder-scales-flip", "16-8-decoder-scales-flip-separable"),
)


def sweep():
  """Yield the settings of each row, in the columns' order."""
  words = ("decoder", "scales", "flip", "separable", "coco", "jft")
  for trained_at, evaluated_at, *marks, _, _ in PAPER.rows():
    decoder, several_scales, flip, separable, coco, jft = marks
    on = [word for word, mark in zip(words, marks, strict=True) if mark]
    yield {
      "name": "-".join([str(trained_at), str(evaluated_at), *on]),
      "base": f"{BASE}:after_coco" if coco else BASE,
      "not_here": "JFT-300M is not public" if jft else "",
      "model.output_stride": trained_at,
      "eval.output_stride": evaluated_at,
      "model.decoder.kind": "concat" if decoder else "none",
      "eval.scales": papers.SCALES if several_scales else (1.0,),
      "eval.flip": flip,
      "model.separable": separable,
      "model.decoder.separable": separable,
    }
