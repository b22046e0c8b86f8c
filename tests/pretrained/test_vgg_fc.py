"""fc6 and fc7 of VGG-16, subsampled for the heads of DeepLab v1 and v2."""

import numpy as np
import pytest

from deeplax.models import layers
from deeplax.models import style as style_lib
from deeplax.models.heads import large_fov
from deeplax.pretrained import vgg_fc

STYLE = style_lib.Style(layers.Norm(decay=0.0, eps=1e-5))


@pytest.mark.parametrize(
  ("kernel", "kept"), [(3, (0, 3, 6)), (4, (0, 2, 4, 6))]
)
def test_fc6_is_subsampled_in_space_and_channels(kernel, kept):
  layer = vgg_fc.layers(
    large_fov.LargeFOV(STYLE, kernel=kernel, channels=2),
    fc6="fc6", fc7="fc7", flat=True,
  )[0]  # fmt: skip
  source = np.arange(8 * 512 * 49, dtype=np.float32).reshape(8, -1)
  assert layer.kernel and layer.bias
  found = layer.kernel.load(source)
  window = source.reshape(8, 512, 7, 7)[::4][:, :, kept][:, :, :, kept]
  np.testing.assert_array_equal(found, window.transpose(2, 3, 1, 0))
  np.testing.assert_array_equal(layer.bias.load(source[:, 0]), source[::4, 0])
  # Caffe's file has the same numbers as [outputs, all inputs, 1, 1].
  np.testing.assert_array_equal(
    layer.kernel.load(source[:, :, None, None]), found
  )
  # What was subsampled once stays as it is.
  np.testing.assert_array_equal(
    layer.kernel.load(layer.kernel.save(found)), found
  )


def test_fc7_keeps_the_inputs_that_fc6_keeps():
  layer = vgg_fc.layers(
    large_fov.LargeFOV(STYLE, channels=4), fc6="fc6", fc7="fc7", flat=True
  )[1]
  source = np.arange(64.0).reshape(8, 8)
  assert layer.kernel
  np.testing.assert_array_equal(
    layer.kernel.load(source)[0, 0], source[::2, ::2].T
  )
