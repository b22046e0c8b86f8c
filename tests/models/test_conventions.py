"""The table of conventions; its rows are compared in the golden tests."""

import pytest

from deeplax.models import conventions


def test_every_backbone_row_keeps_to_the_fused_norms_least_epsilon():
  row = conventions.get("tf_deeplab")
  norms = [backbone.norm for backbone in row.backbones.values()]
  assert (
    min(norm.eps for norm in (*norms, row.style.norm))
    == conventions.FUSED_MIN_EPS
  )


def test_unknown_conventions_and_backbones_are_refused_by_name():
  with pytest.raises(ValueError, match="conventions 'jft' not in .*tf_deeplab"):
    conventions.get("jft")
  with pytest.raises(ValueError, match="backbone 'vgg19' not in .*mobilenet"):
    conventions.get("tf_deeplab").backbone("vgg19")
