"""PyTorch's paths (``treadle.utils.data``, ``treadle.utils.tensorboard``): re-exports only."""
