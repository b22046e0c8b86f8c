"""A decoder of one's own against the published one, on made-up pictures.

COMMAND: python -m experiments.run docs/examples/my_decoder_ablation.py
"""

BASE = "quickstart"
SEEDS = (0,)


def sweep():
  """Yield the published decoder, and two widths of one's own."""
  yield {"name": "published", "model.decoder.channels": 64}
  for width in (32, 64):
    kind = f"my_decoder.py:MyDecoder(channels={width})"
    yield {"name": f"mine-{width}", "model.decoder.kind": kind}
