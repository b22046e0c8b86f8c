"""deeplax: the DeepLab line (v1, v2, v3, v3+) in JAX and Flax."""

__version__ = "0.1.0"
