"""The layers of every network: convolution + norm, and the separable pair.

Convolution, norm and activation are one flat module, so that inference folds
the norm into the kernel in the graph and a checkpoint path stays short:
`aspp0/kernel`, `aspp0/scale`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
import numpy as np

from deeplax.arrays import Arrays
from deeplax.models import activations
from deeplax.models import parameters
from deeplax.ops import backend
from deeplax.ops import broadcast
from deeplax.ops import dense
from deeplax.ops import depthwise as depthwise_ops
from deeplax.ops import norm as norm_ops
from deeplax.ops import padding as padding_ops
from deeplax.ops import true_size

PADDINGS = ("same", "symmetric")
NORM_MODES = ("train", "frozen", "fixed")


class Init(NamedTuple):
  """How a kernel is drawn: data, so that modules stay hashable and comparable.

  Attributes:
    kind: "truncated_normal" (cut at two deviations, TensorFlow's, without a
      correction of the deviation), "variance_scaling" (slim's default: the
      same with deviation sqrt(1.3 scale / fan_in)), "xavier_uniform", and of
      PyTorch "kaiming_uniform" (variance scale / fan_in) and "kaiming_normal"
      (variance scale / fan_out).
    scale: Deviation, factor of the variance, or factor of xavier's limit.
  """

  kind: str = "xavier_uniform"
  scale: float = 1.0

  def bound(self, shape: tuple[int, ...]) -> float:
    """Return the deviation (normal kinds) or the limit (uniform)."""
    area = int(np.prod(shape[-4:-2]))  # a scanned kernel has an axis in front
    fan_in, fan_out = area * shape[-2], area * shape[-1]
    if self.kind == "truncated_normal":
      return self.scale
    if self.kind == "variance_scaling":
      # slim's factor 1.3 stands for the deviation lost by cutting.
      return float(np.sqrt(1.3 * self.scale / fan_in))
    if self.kind == "xavier_uniform":
      return self.scale * float(np.sqrt(6.0 / (fan_in + fan_out)))
    if self.kind == "kaiming_uniform":
      return float(np.sqrt(3.0 * self.scale / fan_in))
    if self.kind == "kaiming_normal":
      return float(np.sqrt(self.scale / fan_out))
    kinds = ["truncated_normal", "variance_scaling", "xavier_uniform"]
    kinds += ["kaiming_uniform", "kaiming_normal"]
    raise ValueError(f"initializer {self.kind!r} not in {kinds}")

  def __call__(self, key, shape, dtype=jnp.float32) -> jax.Array:
    bound = self.bound(shape)
    if self.kind.endswith("uniform"):
      return jax.random.uniform(key, shape, dtype, -bound, bound)
    if self.kind == "kaiming_normal":
      return bound * jax.random.normal(key, shape, dtype)
    return bound * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

  def draw(
    self, rng: np.random.Generator, shape: tuple[int, ...]
  ) -> np.ndarray:
    """Return values of the same distribution from NumPy, without compiling."""
    bound = self.bound(shape)
    if self.kind.endswith("uniform"):
      return rng.uniform(-bound, bound, shape).astype(np.float32)
    values = rng.standard_normal(shape, np.float32)
    cut = self.kind != "kaiming_normal"
    while cut and (outside := np.abs(values) > 2).any():
      values[outside] = rng.standard_normal(int(outside.sum()), np.float32)
    return np.float32(bound) * values


class Norm(NamedTuple):
  """Settings of batch normalization, handed to every layer.

  Attributes:
    decay: Share of the running statistics that stays in a step:
      new = decay * old + (1 - decay) * batch.
    eps: Added to the variance.
    mode: "train" normalizes by the batch in training; "frozen" always by the
      running statistics, which stay (scale and offset still train); "fixed"
      does not train scale and offset either.
    axis_name: Name of the mapped axis of devices; None outside one.
    group: Devices whose examples are averaged: "all", one "device", or a number
      of consecutive devices as text.
  """

  decay: float
  eps: float
  mode: str = "train"
  axis_name: str | None = None
  group: str = "all"

  def over(self) -> tuple[norm_ops.Over | None, int]:
    """Return the devices that share statistics, and how many they are.

    Raises:
      ValueError: On a group that does not divide the devices.
    """
    text = str(self.group)
    if text not in ("all", "device") and not (text.isdigit() and int(text)):
      raise ValueError(
        f"batch_norm.group {self.group!r} is neither 'all', 'device' nor a "
        "number of devices such as '4'"
      )
    if self.axis_name is None or text in ("device", "1"):
      return None, 1
    size = lax.axis_size(self.axis_name)
    per_group = size if text == "all" else int(text)
    if size % per_group:
      divisors = [n for n in range(1, size + 1) if not size % n]
      nearest = min(divisors, key=lambda n: abs(n - per_group))
      raise ValueError(
        f"batch_norm.group {self.group!r} does not divide the {size} devices; "
        f"use {str(nearest)!r}, the nearest that does, 'all' or 'device'"
      )
    if per_group == size:
      return norm_ops.Over(self.axis_name), size
    groups = np.arange(size).reshape(-1, per_group).tolist()
    return norm_ops.Over(self.axis_name, tuple(map(tuple, groups))), per_group


def check_one_of(name: str, value: str | int | None, allowed) -> None:
  """Raise ValueError unless `value` is one of `allowed`."""
  if value not in allowed:
    raise ValueError(f"{name} {value!r} not in {list(allowed)}")


class ConvNorm(nn.Module):
  """Convolution, then batch norm or a bias, then an activation.

  Parameters: `kernel` [kh, kw, i, o] or `depthwise_kernel` [kh, kw, 1, c];
  with a norm `scale`, `offset` and the running `mean`, `var`; else `bias`.

  Attributes:
    features: Output channels; unused when depthwise.
    kernel: Side of the square kernel.
    rate: Atrous rate, or one for rows and one for columns.
    padding: "same" is TensorFlow's; "symmetric" pads a strided convolution
      as much before as after (slim conv2d_same), others as "same".
    depthwise: One filter per channel.
    relu_first: Convolve the positive part of the input (depthwise only).
    norm: Settings of the norm; None: no normalization.
    activation: A key of activations.BY_NAME.
    use_bias: Add a bias when there is no norm.
    kernel_init: How the kernel is drawn.
    dtype: Compute dtype; parameters and statistics stay float32.
  """

  features: int | None = None
  kernel: int = 1
  stride: int = 1
  rate: padding_ops.Rate = 1
  padding: str = "same"
  depthwise: bool = False
  relu_first: bool = False
  norm: Norm | None = None
  activation: str | None = None
  use_bias: bool = False
  kernel_init: Init = Init()
  dtype: DTypeLike = jnp.float32

  def __call__(
    self, x: Float[Arrays, "b h w c"] | norm_ops.Normed, *, train: bool
  ) -> Float[Array, "b H W k"]:
    return norm_ops.now(self.normed(x, train=train))

  @nn.compact
  def normed(
    self, x: Float[Arrays, "b h w c"] | norm_ops.Normed, *, train: bool
  ) -> Float[Array, "b H W k"] | norm_ops.Normed:
    """Return the result, in training as a map that is yet to be normalized.

    So it is where the platform's kernels do that as they read: a depthwise
    convolution that follows takes such a map, and everything else `now` of it.
    """
    check_one_of("activation", self.activation, activations.BY_NAME)
    activate = activations.BY_NAME[self.activation]
    if self.relu_first and not self.depthwise:
      raise ValueError("ConvNorm: relu_first is for depthwise convolutions")
    if not (isinstance(x, norm_ops.Normed) and x.x.dtype == self.dtype):
      x = jnp.asarray(norm_ops.now(x), self.dtype)
    kernel = self._kernel(norm_ops.map_of(x).shape[-1])
    if self.norm is None:
      y, _ = self._convolve(x, kernel)
      if self.use_bias:
        bias = self._vector("bias", nn.initializers.zeros, y.shape[-1])
        y = broadcast.widely(jnp.add, y, _channels(bias))
      return activate(y)

    check_one_of("batch_norm.mode", self.norm.mode, NORM_MODES)
    shape = (kernel.shape[-1],)
    scale = self._vector("scale", nn.initializers.ones, *shape)
    offset = self._vector("offset", nn.initializers.zeros, *shape)
    if self.norm.mode == "fixed":
      scale, offset = lax.stop_gradient((scale, offset))
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    var = self.variable("batch_stats", "var", jnp.ones, shape)
    if not (train and self.norm.mode == "train"):
      factor = scale * lax.rsqrt(var.value + self.norm.eps)
      y, _ = self._convolve(x, kernel * _channels(factor))
      bias = _channels(offset - mean.value * factor)
      return activate(broadcast.widely(jnp.add, y, bias))

    y, sums = self._convolve(x, kernel, mean.value)
    y, new_mean, new_var = self._normalize(y, scale, offset, mean.value, sums)
    if not self.is_initializing():
      keep = self.norm.decay
      mean.value = keep * mean.value + (1 - keep) * new_mean
      var.value = keep * var.value + (1 - keep) * new_var
    return y

  def _kernel(self, channels: int) -> jax.Array:
    side = (self.kernel, self.kernel)
    if self.depthwise:
      name, shape = "depthwise_kernel", (*side, 1, channels)
    elif self.features is None:
      raise ValueError("ConvNorm needs features unless it is depthwise")
    else:
      name, shape = "kernel", (*side, channels, self.features)
    return parameters.array(self, name, self.kernel_init, shape)

  def _vector(self, name: str, init: Any, size: int) -> jax.Array:
    return parameters.array(self, name, init, (size,))

  def _convolve(
    self,
    x: jax.Array | norm_ops.Normed,
    kernel: jax.Array,
    shift: Arrays | None = None,
  ) -> tuple[jax.Array, jax.Array | None]:
    """Return the convolved map y, and sums of y - shift or None.

    Kernels of the platform that write y take along what surrounds it: the norm
    before it, and the sums that the norm behind it needs.
    """
    check_one_of("padding", self.padding, PADDINGS)
    if not (shift is not None and self._surrounded(x)):
      x, shift = norm_ops.now(x), None
    map_, pads = true_size.windows(
      norm_ops.map_of(x),
      kernel=self.kernel,
      stride=self.stride,
      rate=self.rate,
      padding=self.padding,
    )
    kernel = kernel.astype(self.dtype)
    settings: dict[str, Any] = dict(
      stride=self.stride, rate=self.rate, padding=pads
    )
    if not self.depthwise:
      return dense.conv(map_, kernel, **settings), None
    settings["relu"] = self.relu_first
    if shift is None:
      return depthwise_ops.depthwise_conv(map_, kernel, **settings), None
    return depthwise_ops.depthwise_conv_sums(x, kernel, shift, **settings)

  def _surrounded(self, x: jax.Array | norm_ops.Normed) -> bool:
    """Return whether kernels do what surrounds this convolution as well."""
    map_ = norm_ops.map_of(x)
    return (
      self.depthwise
      and backend.form("statistics") == "kernels"
      and true_size.sides((map_.shape[1], map_.shape[2])) is None
      and depthwise_ops.row_kernels_take(map_, self.stride, self.rate)
    )

  def _normalize(
    self,
    y: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    shift: Arrays,
    sums: jax.Array | None,
  ) -> tuple[jax.Array | norm_ops.Normed, jax.Array, jax.Array]:
    """Return the normalized map, its mean and its unbiased variance."""
    assert self.norm is not None
    over, devices = self.norm.over()
    count = y.shape[0] * y.shape[1] * y.shape[2] * devices
    if count < 2:
      raise ValueError(
        f"{'/'.join(self.path)}: batch normalization in training mode over one "
        "value per channel gives zeros and an infinite variance. Use more "
        "images per device, batch_norm.group='all' or batch_norm.mode='frozen'"
      )
    kernels = backend.form("statistics") == "kernels"
    limits = activations.LIMITS
    normed = norm_ops.normed(
      y,
      scale,
      offset,
      eps=self.norm.eps,
      limit=limits.get(self.activation) if kernels else None,
      shift=shift,
      sums=sums,
      over=over,
    )
    result: jax.Array | norm_ops.Normed = normed
    if not kernels or self.activation not in (None, *limits):
      result = activations.BY_NAME[self.activation](norm_ops.now(normed))
    # TensorFlow's fused kernel keeps the unbiased variance (its own output is
    # normalized by the biased one).
    return result, normed.mean, normed.var * (count / (count - 1))


def _channels(x: jax.Array) -> jax.Array:
  """Return [c] as [1, 1, 1, c], to broadcast against features and kernels."""
  return x.reshape(1, 1, 1, -1)


class SeparableConv(nn.Module):
  """Depthwise then 1x1 convolution, each with its norm (v3+, section 3.1).

  Without `norm_between` the two are one linear map, and the norm follows it.

  Attributes:
    features: Output channels.
    kernel: Side of the depthwise kernel.
    stride: Of the depthwise convolution.
    rate: Of the depthwise convolution.
    padding: As ConvNorm.
    norm: Of both.
    norm_between: Whether the depthwise convolution has one.
    pre_activation: Before the depthwise convolution.
    activation_between: After the depthwise convolution, and its norm.
    activation: After the pointwise convolution's norm.
    depthwise_init: How the depthwise kernel is drawn; the default is the
      reference's for head and decoder (utils.py split_separable_conv2d).
    pointwise_init: How the 1x1 kernel is drawn.
    dtype: Compute dtype.
  """

  features: int
  kernel: int = 3
  stride: int = 1
  rate: padding_ops.Rate = 1
  padding: str = "same"
  norm: Norm | None = None
  norm_between: bool = True
  pre_activation: str | None = None
  activation_between: str | None = None
  activation: str | None = None
  depthwise_init: Init = Init("truncated_normal", 0.33)
  pointwise_init: Init = Init("truncated_normal", 0.06)
  dtype: DTypeLike = jnp.float32

  def __call__(
    self, x: Float[Arrays, "b h w c"] | norm_ops.Normed, *, train: bool
  ) -> Float[Array, "b H W k"]:
    return norm_ops.now(self.normed(x, train=train))

  @nn.compact
  def normed(
    self, x: Float[Arrays, "b h w c"] | norm_ops.Normed, *, train: bool
  ) -> Float[Array, "b H W k"] | norm_ops.Normed:
    """Return the result as `ConvNorm.normed` does."""
    check_one_of("pre_activation", self.pre_activation, activations.BY_NAME)
    relu_first = self.pre_activation == "relu"  # where the map is read
    if self.pre_activation is not None and not relu_first:
      x = activations.BY_NAME[self.pre_activation](norm_ops.now(x))
    x = ConvNorm(
      kernel=self.kernel,
      stride=self.stride,
      rate=self.rate,
      padding=self.padding,
      depthwise=True,
      relu_first=relu_first,
      norm=self.norm if self.norm_between else None,
      activation=self.activation_between,
      kernel_init=self.depthwise_init,
      dtype=self.dtype,
      name="depthwise",
    )(x, train=train)
    pointwise = ConvNorm(
      features=self.features,
      norm=self.norm,
      activation=self.activation,
      kernel_init=self.pointwise_init,
      dtype=self.dtype,
      name="pointwise",
    )
    return pointwise.normed(x, train=train)
