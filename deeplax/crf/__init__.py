"""Fully connected CRFs (DeepLab v1 and v2), without a compiler to install."""

from deeplax.crf.dense import dense_crf as dense_crf
