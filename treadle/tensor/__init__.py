"""Tensor: thin documented methods that record nodes, aliasing, and composed functions by family."""
