"""What this machine can do at most, as Treadle itself measures it."""

from __future__ import annotations

from treadle.runtime.machine import copy_bandwidth, peak_flops

__all__ = ["copy_bandwidth", "peak_flops"]
