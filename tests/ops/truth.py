"""NumPy truths in float64: slow, short and independent of what they check."""

import numpy as np


def convolution(x, kernel, dy, *, stride, rate, padding):
  """Returns y, dx and dkernel of an ordinary convolution with a holed kernel.

  Atrous convolution by its definition: the kernel gets rate - 1 zeros between
  its taps (arXiv:1606.00915, fig. 2) and is then convolved as any other.
  """
  x, kernel, dy = (np.asarray(a, np.float64) for a in (x, kernel, dy))
  kh, kw, inputs, features = kernel.shape
  down, across = np.broadcast_to(rate, 2)
  reach_h, reach_w = (kh - 1) * down + 1, (kw - 1) * across + 1
  holed = np.zeros((reach_h, reach_w, inputs, features))
  holed[::down, ::across] = kernel
  padded = np.pad(x, ((0, 0), *padding, (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(
    padded, (reach_h, reach_w), axis=(1, 2)
  )[:, ::stride, ::stride]
  y = np.tensordot(windows, holed, ((4, 5, 3), (0, 1, 2)))
  dholed = np.tensordot(windows, dy, ((0, 1, 2), (0, 1, 2)))
  dkernel = dholed.transpose(1, 2, 0, 3)[::down, ::across]
  dpadded = np.zeros_like(padded)
  for i, j in np.ndindex(y.shape[1:3]):
    seen = (slice(None), *(slice(o, o + r) for o, r in (
      (i * stride, reach_h), (j * stride, reach_w)
    )))  # fmt: skip
    dpadded[seen] += np.tensordot(dy[:, i, j], holed, (1, 3))
  (top, _), (left, _) = padding
  dx = dpadded[:, top:, left:][:, : x.shape[1], : x.shape[2]]
  return y, dx, dkernel


def align_corners(old, new):
  """Matrix [new, old] of linear interpolation between the corner pixels."""
  return _interpolation(old, np.linspace(0, old - 1, new))


def half_pixel(old, new):
  """The same between the outer edges; np.interp holds the ends."""
  return _interpolation(old, (np.arange(new) + 0.5) * old / new - 0.5)


def _interpolation(old, positions):
  columns = [np.interp(positions, np.arange(old), e) for e in np.eye(old)]
  return np.stack(columns, axis=1)
