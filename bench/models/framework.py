"""The framework that the programs of this process run on, under the names they know it by.

A process runs one: ``BENCH_FRAMEWORK`` names it. The programs are written in PyTorch's dialect.
``BENCH_TUNED`` says that options of PyTorch's are taken that its users find in its tuning guide.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

NAME = os.environ.get("BENCH_FRAMEWORK", "treadle")
IS_TUNED = "BENCH_TUNED" in os.environ

torch: Any = importlib.import_module(NAME)
nn: Any = importlib.import_module(f"{NAME}.nn")
F: Any = importlib.import_module(f"{NAME}.nn.functional")
optim: Any = importlib.import_module(f"{NAME}.optim")
