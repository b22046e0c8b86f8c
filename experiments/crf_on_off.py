"""The dense CRF behind a network with and without the decoder.

COMMAND: python -m experiments.run crf_on_off

v3 and v3+ left the CRF out; this asks what it still gives, and where: mIoU near
boundaries is measured too. v1's and v2's own numbers are in v2_table1 and
v2_table3. Two trainings give four rows.
"""

BASE = "v3plus_resnet101"
MEASURE = ("--trimap=1,2,5,10,20,30,40", "--boundary")


def sweep():
  """Yield the settings of each row."""
  for decoder in ("none", "concat"):
    for crf in (False, True):
      yield {"model.decoder.kind": decoder, "crf": crf}
