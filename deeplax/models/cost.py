"""Multiply-Adds, parameters and field of view, without making any weights.

Everything is read off one trace of the model under `jax.eval_shape`.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from deeplax.models import layers
from deeplax.models.backbones import vgg
from deeplax.models.backbones import xception
from deeplax.models.heads import aspp
from deeplax.models.heads import dpc
from deeplax.models.heads import large_fov
from deeplax.ops import padding

CONVENTIONS = ("true", "paper")
# Facts that do not depend on the size of the image are read off a trace of this
# one, which is cached.
TRACE_SIZE = (33, 33)
# Every stride up to 32 has a position on this input's center pixel.
CENTERED = (257, 257)
# Layers of Flax that are counted in parts of a user's own.
FLAX_LAYERS = (nn.Conv, nn.ConvTranspose, nn.Dense, nn.DenseGeneral)


class Convolution(NamedTuple):
  """One `ConvNorm` as the trace met it.

  Attributes:
    module: Unbound; its fields are the settings.
    path: Path of its parameters.
    shape: Shape of its kernel; that of a scanned one starts with the number of
      repetitions.
    size_in: (height, width) of its input.
    size_out: (height, width) of its output.
  """

  module: layers.ConvNorm
  path: tuple[str, ...]
  shape: tuple[int, ...]
  size_in: tuple[int, int]
  size_out: tuple[int, int]


class Traced(NamedTuple):
  """What a trace met.

  Attributes:
    variables: Abstract ones.
    convolutions: Every `ConvNorm`, in order of call.
    others: Multiply-Adds of each of Flax's own layers, by path, in a network
      with parts of a user's own.
    first: Path of the layer that was called first.
  """

  variables: dict[str, Any]
  convolutions: list[Convolution]
  others: dict[Any, int]
  first: tuple[str, ...]


def trace(
  model: nn.Module, size: tuple[int, int]
) -> tuple[dict[str, Any], list[Convolution]]:
  """Return the abstract variables and every convolution, in order of call."""
  found = traced(model, size)
  return found.variables, found.convolutions


@functools.lru_cache(maxsize=64)
def traced(model: nn.Module, size: tuple[int, int]) -> Traced:
  """Return what one trace of a network at a size of images met.

  Results are cached: every function here starts from a trace, which takes a
  second, and evaluation needs one for each output stride and scale.
  """
  # By path and size: a scanned block may be traced more than once, and a
  # network over several scales runs at several sizes.
  calls, others, order = {}, {}, []

  def record(call, args, kwargs, context):
    result = call(*args, **kwargs)
    module = context.module
    if isinstance(module, layers.ConvNorm) and context.method_name == "normed":
      sizes = args[0].shape[1:3], result.shape[1:3]
      calls[module.path, sizes] = module.clone(parent=None)
      order.append(module.path)
    elif isinstance(module, FLAX_LAYERS) and context.method_name == "__call__":
      others[module.path, args[0].shape] = _of_flax(module, args[0], result)
      order.append(module.path)
    return result

  def init(images):
    key = jax.random.key(0)
    return model.init(key, images, train=False, method="coarse")

  with nn.intercept_methods(record):
    variables = jax.eval_shape(
      init, jax.ShapeDtypeStruct((1, *size, _channels(model)), jnp.float32)
    )
  convolutions = []
  for (path, sizes), module in calls.items():
    params: Any = variables["params"]
    for name in path:
      params = params[name]
    kernel = params["depthwise_kernel" if module.depthwise else "kernel"]
    convolutions.append(Convolution(module, path, kernel.shape, *sizes))
  return Traced(variables, convolutions, others, order[0] if order else ())


def _of_flax(module: nn.Module, x: Any, result: Any) -> int:
  """Return the Multiply-Adds of one of Flax's layers, of one image."""
  kernel: Any = module.get_variable("params", "kernel")
  if isinstance(module, nn.DenseGeneral):
    axes = module.axis if isinstance(module.axis, tuple) else (module.axis,)
    taken = math.prod(x.shape[axis] for axis in axes)
    return x.size // x.shape[0] // taken * kernel.size
  # A transposed convolution uses its kernel once for each input.
  map_ = x if isinstance(module, nn.ConvTranspose) else result
  return math.prod(map_.shape[1:-1]) * kernel.size


def _channels(model: nn.Module) -> int:
  """Return the number of channels of the images; a backbone takes RGB."""
  return len(getattr(model, "mean", "RGB"))


def multiply_adds(
  model: nn.Module, size: tuple[int, int], *, convention: str = "true"
) -> int:
  """Return the Multiply-Adds of the convolutions for one image, to the logits.

  In parts of a user's own, Flax's convolutions and dense layers count as well;
  products of features with features do not.

  Args:
    model: As `build.from_config` returns it.
    size: (height, width) of the image.
    convention: "true" counts output positions as they are; "paper" rounds
      those of a dilated convolution up to multiples of its rate, as
      SpaceToBatch executed them and the papers' profiler counted them.

  Raises:
    ValueError: On an unknown convention.
  """
  layers.check_one_of("convention", convention, CONVENTIONS)
  found = traced(model, size)
  total = sum(found.others.values())
  for conv in found.convolutions:
    steps = padding.pair(conv.module.rate if convention == "paper" else 1)
    sides = zip(conv.size_out, steps, strict=True)
    # SpaceToBatch pads each side to a multiple of the rate.
    positions = math.prod(math.ceil(s / step) * step for s, step in sides)
    total += positions * math.prod(conv.shape)
  return total


def parameters(model: nn.Module) -> int:
  """Return the number of trained values; running statistics are not."""
  variables, _ = trace(model, TRACE_SIZE)
  return sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))


def field_of_view(model: nn.Module, *, zero_padded: bool = False) -> int:
  """Return the side, in pixels, of what one logit sees through convolutions.

  It is the receptive field of the logit at the image's center on the deepest
  path. A kernel of side k at rate r over features of stride s reaches
  (k - 1) r s / 2 to each side. Of a head's parallel branches the one with the
  largest rate counts. A resize to finer features reaches out to the next coarse
  one. Image pooling, which sees the whole image, is left out, and so are v1's
  multi-scale branches, which see less. For a network over several scales it is
  the field at scale 1.

  Args:
    model: As `build.from_config` returns it.
    zero_padded: Count as v1 (section 3.1) and v2 (table 1) do: a feature stands
      for its own 32x32 pixels and only fc6 reaches further. This is for VGG-16
      with v1's or v2's head.

  Raises:
    ValueError: `zero_padded` is set for another network.
  """
  head = getattr(model, "head", None)
  fully_connected = isinstance(head, large_fov.LargeFOV | large_fov.ASPPSum)
  backbone: Any = getattr(model, "backbone", None)
  if isinstance(backbone, vgg.VGG16) and fully_connected:
    return _of_vgg(backbone, head, zero_padded=zero_padded)
  if zero_padded:
    raise ValueError(
      "zero_padded is for VGG-16 with the head 'large_fov' or 'aspp_sum'"
    )
  if getattr(model, "input_scales", ()):
    model = model.clone(input_scales=())
  if isinstance(backbone, xception.Xception):
    # A trace does not show poolings; these reach as far as 3x3 convolutions.
    model = model.clone(backbone=backbone.clone(downsample="separable"))
  convs = [
    c
    for c in trace(model, CENTERED)[1]
    if c.module.kernel > 1 and c.path[0] != "auxiliary"
  ]
  if isinstance(head, aspp.ASPP | large_fov.ASPPSum):
    in_head = [c for c in convs if c.path[0] == "head"]
    names = ("aspp", "logits")
    branches = [c for c in in_head if c.path[1].startswith(names)]
    branches.sort(key=lambda c: c.module.rate)
    convs = [c for c in convs if c not in branches[:-1]]
  in_cell = None
  if isinstance(head, dpc.DPC):
    # One step that reaches as far as the furthest way through the branches.
    in_cell, *others = [c for c in convs if c.path[0] == "head"]
    convs = [c for c in convs if c not in others]

  def stride(size: tuple[int, int]) -> int:
    return (CENTERED[0] - 1) // (size[0] - 1)

  steps = []  # (stride of the output, reach) of each window, in order
  fine = 1
  for conv in convs:
    coarse = stride(conv.size_in)
    if coarse > fine:
      # ResNet's pool1, 3x3 with stride 2, is no module and so not in the trace.
      steps.append((coarse, fine))
    rate = max(padding.pair(conv.module.rate))
    if conv is in_cell:
      rate = dpc.furthest(head.cell)  # pyright: ignore
    reach = (conv.module.kernel - 1) * rate * coarse // 2
    fine = stride(conv.size_out)
    steps += [(fine, reach)] * math.prod(conv.shape[:-4])
  # From the logit back to the image.
  field = 0
  for grid, reach in reversed(steps):
    field = math.ceil(field / grid) * grid + reach
  return 2 * field + 1


def _of_vgg(backbone: vgg.VGG16, head: Any, *, zero_padded: bool) -> int:
  """Return the field of view from the layers' windows, poolings included."""
  field = step = 1
  for layer in vgg.dilated_layers(backbone.output_stride, pool=backbone.pool):
    field += (layer.kernel - 1) * layer.rate * step
    step *= layer.stride
  rate = max(head.rates) if hasattr(head, "rates") else head.rate
  if getattr(head, "pool5a", False):
    field += (large_fov.POOL5A - 1) * step
  fc6 = (head.kernel - 1) * rate * step
  return (vgg.NATIVE_STRIDE if zero_padded else field) + fc6
