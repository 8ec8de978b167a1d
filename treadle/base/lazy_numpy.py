"""NumPy, loaded when it is first used: importing it takes longer than importing Treadle.

    from treadle.base.lazy_numpy import np

``np`` is an empty module until an attribute of it is first read; from then on it has all that NumPy
has, and a look-up in it costs the same. What runs while a module of Treadle is imported must not
touch it: a table names a function by ``lambda x: np.sin(x)``, an alias of a type is a string
(``Array: TypeAlias = "np.ndarray"``).
"""

from __future__ import annotations

import importlib
import sys
import threading
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    def _load(name: str) -> Any:
        """The first look-up, as the module's ``__getattr__``; NumPy's own replaces it."""
        if "numpy" not in sys.modules:
            # On a thread of its own, for a second import fails where Ctrl-C has cut the first one
            # short: it interrupts the waiting here and never the import.
            loader = threading.Thread(target=_import, name="treadle-numpy")
            with suppress(RuntimeError):  # no thread to be had
                loader.start()
                loader.join()
        numpy = importlib.import_module("numpy")  # raises what went wrong on the thread
        np.__dict__.update(numpy.__dict__)
        return getattr(numpy, name)

    def _import() -> None:
        with suppress(Exception):
            importlib.import_module("numpy")

    np = ModuleType("numpy")
    np.__getattr__ = _load

__all__ = ["np"]
