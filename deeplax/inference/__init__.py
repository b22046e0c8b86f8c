"""Predict class probabilities and labels with a network and its variables."""

from deeplax.inference.probabilities import predict_probabilities

__all__ = ["predict_probabilities"]
