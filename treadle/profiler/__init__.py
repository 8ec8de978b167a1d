"""Where the time and the memory go: ``torch.profiler``'s interface.

>>> import treadle
>>> from treadle.profiler import profile, record_function
>>> x = treadle.ones(64, 64)
>>> with profile() as prof:
...     with record_function("product"):
...         y = x @ x
>>> print(prof.key_averages().table(sort_by="cpu_time_total", row_limit=5))
----...
Name ...
"""

from __future__ import annotations

from treadle.profiler.averages import EventList, FunctionEvent, FunctionEventAvg
from treadle.profiler.memory import MemoryReport, memory_report
from treadle.profiler.profile import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)
from treadle.profiler.recording import record_function

__all__ = [
    "EventList", "FunctionEvent", "FunctionEventAvg", "MemoryReport", "ProfilerAction",
    "ProfilerActivity", "memory_report", "profile", "record_function", "schedule",
    "supported_activities", "tensorboard_trace_handler",
]  # fmt: skip
