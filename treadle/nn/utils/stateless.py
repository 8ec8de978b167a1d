"""PyTorch's older path of ``func.functional_call``."""

from treadle.func.modules import functional_call

__all__ = ["functional_call"]
