"""The one place that decides which form of an operation a backend gets."""

import jax


def prefers_shifted() -> bool:
  """Whether shifted multiply-adds and dots beat XLA's own convolutions.

  On CPU a grouped convolution costs 10 to 100 times what its shifted form
  costs, and its gradient inside `lax.scan` more again. Elsewhere the compiler's
  own convolution stands until someone measures better. Read at trace time.
  """
  return jax.default_backend() == "cpu"
