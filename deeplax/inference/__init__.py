"""From a network and its variables to class probabilities and labels."""

from deeplax.inference.probabilities import predict_probabilities

__all__ = ["predict_probabilities"]
