"""Measurements: ``python -m bench``. Absolute figures beside PyTorch's, taken in the same run."""
