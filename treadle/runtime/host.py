"""Python called from a tape: how library ops run between kernels.

An entry is a C function as any kernel's (``runtime.jit``), which takes the GIL, shows NumPy the
operands where they lie, and copies the result to its place. It runs on the thread that runs the
tape. NumPy's linear algebra is held to one thread meanwhile, as section 4 of the design says: how
many there are must never change a bit.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.launch import HostErrors, KernelSpec, Layout

Array: TypeAlias = "np.ndarray[Any, Any]"
_ENTRY = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.POINTER(ctypes.c_int64), *(ctypes.c_int64,) * 3
)  # fmt: skip
_codes = itertools.count(1)
_kept: list[Any] = []  # C functions, which must outlive whatever has their address


def entry_of(spec: KernelSpec) -> int:
    """The address of a C function that does the call of the spec (see ``ir.launch.host_call``)."""
    call, attrs, ins, outs = spec.key

    def run(words: Any, begin: int, end: int, thread: int) -> int:
        try:
            count = len(outs)
            inputs = [array_over(words[count + i], layout) for i, layout in enumerate(ins)]
            with one_thread(), np.errstate(all="ignore"):
                result = call(*inputs, **dict(attrs))
                results = result if isinstance(result, tuple) else (result,)
                for i, (layout, value) in enumerate(zip(outs, results, strict=True)):
                    np.copyto(array_over(words[i], layout), value, casting="unsafe")
        except BaseException as error:  # ctypes would print it and go on
            code = next(_codes) & 0x7FFFFFFF
            HostErrors.raised[code] = error
            return code
        return 0

    function = _ENTRY(run)
    _kept.append(function)
    address = ctypes.cast(function, ctypes.c_void_p).value
    return address or 0


def array_over(address: int, layout: Layout) -> Array:
    """The operand at an address, as NumPy sees it."""
    dtype = layout.dtype.numpy
    if not prod(layout.shape):
        return np.empty(layout.shape, dtype)
    size = dtype.itemsize
    spans = [(n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True)]
    lowest = sum(s for s in spans if s < 0)
    reach = sum(map(abs, spans)) + 1
    memory: Any = (ctypes.c_byte * (reach * size)).from_address(address + lowest * size)
    strides = tuple(s * size for s in layout.strides)
    return np.ndarray(layout.shape, dtype, memory, -lowest * size, strides)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it NumPy's linear algebra uses one thread, where NumPy came with its own OpenBLAS."""
    found = _openblas()
    if found is None:
        yield
        return
    get, put = found
    before = get()
    if before == 1:
        yield
        return
    put(1)
    try:
        yield
    finally:
        put(before)


@lru_cache(maxsize=None)
def _openblas() -> tuple[Any, Any] | None:
    """Asking and setting the number of threads of NumPy's OpenBLAS."""
    import numpy.linalg  # noqa: F401  # which loads it

    package = Path(np.__file__).parent
    folders = (package.with_name("numpy.libs"), package / ".dylibs")
    for path in sorted(p for f in folders if f.is_dir() for p in f.glob("*openblas*")):
        library = ctypes.CDLL(str(path))
        for suffix in ("64_", "_64_", ""):
            for prefix in ("scipy_openblas", "openblas"):
                names = (f"{prefix}_{verb}_num_threads{suffix}" for verb in ("get", "set"))
                found = [getattr(library, name, None) for name in names]
                if all(found):
                    return found[0], found[1]
    return None


__all__ = ["array_over", "entry_of", "one_thread"]
