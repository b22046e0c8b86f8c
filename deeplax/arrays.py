"""The one name for what an operation of JAX or NumPy takes."""

import jax
import numpy as np

Arrays = jax.Array | np.ndarray
