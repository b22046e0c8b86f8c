"""The strides that a backbone keeps, and atrous rates for the others."""

from typing import NamedTuple

from deeplax.models import layers

OUTPUT_STRIDES = (4, 8, 16, 32)
DILATE_FROM = ("next", "same", "never")


class Unit(NamedTuple):
  """One unit of a backbone; `rate` is that of its first 3x3 kernel."""

  name: str
  stride: int
  rate: int


def dilate(
  units: list[tuple[str, int]],
  output_stride: int,
  *,
  dilate_from: str = "next",
) -> list[Unit]:
  """Return each (name, stride), in order, with the stride and rate it runs at.

  Once the product of strides reaches `output_stride`, further strides are
  dropped and multiply the rate of the units after them. Under "next" the unit
  that lost its stride keeps the rate before it (slim stack_blocks_dense,
  mobilenet_base; torchvision), so that one set of parameters computes the same
  features at every output stride; under "same" it runs at the new rate
  (segmentation_models_pytorch replace_strides_with_dilation). Under "never"
  strides are dropped and no rate takes their place: the network that atrous
  convolution is compared with.

  Raises:
    ValueError: On an unknown output stride or `dilate_from`.
  """
  layers.check_one_of("output_stride", output_stride, OUTPUT_STRIDES)
  layers.check_one_of("dilate_from", dilate_from, DILATE_FROM)
  dilated, reached, rate = [], 1, 1
  for name, stride in units:
    if reached == output_stride:
      after = 1 if dilate_from == "never" else rate * stride
      dilated.append(Unit(name, 1, after if dilate_from == "same" else rate))
      rate = after
    else:
      dilated.append(Unit(name, stride, 1))
      reached *= stride
  return dilated


def check_multi_grid(multi_grid: tuple[int, ...]) -> None:
  """Raise ValueError unless it is three positive rates."""
  if len(multi_grid) != 3 or min(multi_grid) < 1:
    raise ValueError(
      f"multi_grid {multi_grid} is not three rates of 1 or more, such as "
      "(1, 2, 4)"
    )
