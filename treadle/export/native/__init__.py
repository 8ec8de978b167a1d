"""Native builds of programs: an object file and a C header that need neither Python nor Treadle.

    program graph --bind--> trace --the compiler's passes--> calls (``entry.py``)
    calls of all entries and levels --> one LLVM module with its driver (``driver.py``, ``build.py``)

The driver does what ``runtime.pool`` does with a tape: it fills in addresses and calls kernels.
"""

from treadle.export.native.build import Built, build
from treadle.export.native.targets import TARGETS, BuildError

__all__ = ["TARGETS", "BuildError", "Built", "build"]
