"""The scales and flips that a prediction is averaged over."""

import dataclasses

View = tuple[bool, float]  # mirrored, scale


@dataclasses.dataclass(frozen=True)
class Mode:
  """The views that a prediction is averaged over.

  Attributes:
    scales: Factors the image is resized by, each once.
    flip: Whether the left-right mirrored image is averaged, too.

  Raises:
    ValueError: A scale is not positive, or is given twice.
  """

  scales: tuple[float | int, ...] = (1.0,)
  flip: bool = False

  def __post_init__(self):
    scales = tuple(float(scale) for scale in self.scales)
    if not scales or min(scales) <= 0 or len(set(scales)) < len(scales):
      raise ValueError(
        f"scales must be positive numbers, each once, got {self.scales}"
      )
    object.__setattr__(self, "scales", scales)

  @property
  def views(self) -> tuple[View, ...]:
    """The views, in the order in which they are summed."""
    mirrors = (False, True) if self.flip else (False,)
    return tuple((m, s) for m in mirrors for s in sorted(self.scales))

  def until(self, view: View) -> tuple[View, ...]:
    """Return the views up to `view`, which is included."""
    return tuple(v for v in self.views if v <= view)

  def __str__(self) -> str:
    scales = ", ".join(map(str, self.scales))
    return f"scales {scales}" + (", flip" if self.flip else "")
