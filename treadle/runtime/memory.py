"""Memory of the CPU: a caching allocator, and buffers that give their block back when they die.

Sizes are rounded up to classes, four to each doubling and sixteen from 64 KiB on; blocks of at most
that are carved from slabs, larger ones are mapped one by one, from 2 MiB on in huge pages as far as
these go. A block that dies goes to its class's list of free blocks and is the next to be handed
out. So a program that repeats itself asks the system once; when one needs new memory that would
take more than it ever used at once, and a quarter and 256 MiB on top, free mapped blocks are
returned first, in the order they died.

A buffer dies between any two instructions of any thread, also inside ``allocate``. No Python code
runs then, in which Ctrl-C would be swallowed: the buffer's weak reference, which knows the block,
is appended to ``_returned`` by C code, and whoever next allocates puts the block where it belongs.

There are no locks here. A block belongs to whoever takes it out of the list of free blocks, and
``list.pop``, ``list.remove`` and ``list.append`` are atomic under the GIL; all other tables are
hints or belong to blocks already owned. The counters are for people to read.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import errno
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from sys import getrefcount
from typing import Any

from treadle.base.dtypes import DType
from treadle.base.flags import flags
from treadle.base.lazy_numpy import np
from treadle.ir.scan import OWN

ALIGNMENT = 64
_SMALL = 64 << 10  # the largest block carved from a slab
_SLAB = 64 << 10  # the smallest slab
_BLOCKS_PER_SLAB = 16  # at least so many
_HUGE = 2 << 20  # a huge page
_SLACK = 256 << 20  # what may always be reserved on top of the peak
_PAGE = mmap.PAGESIZE


class _SizeClass(list[int]):
    """The addresses of the free blocks of one size."""

    __slots__ = ("is_mapped", "nbytes")

    def __init__(self, nbytes: int) -> None:
        super().__init__()
        self.nbytes = nbytes
        self.is_mapped = nbytes > _SMALL


class _Counters:
    """What is handed out (allocated) and held from the system (reserved), in bytes."""

    __slots__ = (
        "allocated", "allocated_peak", "allocations", "most", "reserved", "reserved_peak",
    )  # fmt: skip

    def __init__(self) -> None:
        self.allocations = 0
        self.allocated = 0
        self.allocated_peak = 0
        self.most = 0  # the peak that nobody resets
        self.reserved = 0
        self.reserved_peak = 0


_counters = _Counters()
_classes: dict[int, _SizeClass] = {}
_mappings: dict[int, mmap.mmap] = {}  # by address of the block or slab
_slabs: dict[int, int] = {}  # address of a slab -> size of its blocks
_freed: dict[int, _SizeClass] = {}  # mapped blocks that are free, the one freed first in front


def _class_size(nbytes: int) -> int:
    """The size of the block for ``nbytes``: so many sizes to each doubling, whole units.

    >>> _class_size(1), _class_size(1000), _class_size(1100), _class_size(100_000)
    (64, 1024, 1280, 102400)
    """
    unit, sizes = (ALIGNMENT, 3) if nbytes <= _SMALL else (_PAGE, 5)
    step = max(unit, 1 << max((nbytes - 1).bit_length() - sizes, 0))
    return max(-(-nbytes // step) * step, unit)


@lru_cache(maxsize=4096)
def _class_of(nbytes: int) -> _SizeClass:
    if nbytes < 0:
        raise ValueError(f"got a size of {nbytes} bytes; a size must not be negative")
    size = _class_size(nbytes)
    return _classes.setdefault(size, _SizeClass(size))


def _small_classes() -> list[_SizeClass]:
    """The class of every small size, by the number of 64-byte units it needs."""
    table: list[_SizeClass] = []
    while len(table) * ALIGNMENT <= _SMALL:
        home = _class_of(len(table) * ALIGNMENT)
        table += [home] * (home.nbytes // ALIGNMENT + 1 - len(table))
    return table


_small = _small_classes()


class Buffer:
    """``nbytes`` of memory at ``address``, given back when nothing refers to the buffer."""

    __slots__ = ("__weakref__", "_block", "_owner", "address", "nbytes")

    address: int
    nbytes: int
    _block: _Block
    _owner: Any  # whose memory it is, where it is somebody else's

    @property
    def is_ours(self) -> bool:
        """False for memory of somebody else's (``wrap``)."""
        return hasattr(self, "_block")

    def __repr__(self) -> str:
        return f"Buffer({self.nbytes} bytes at {self.address:#x})"

    def array(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None = None,
        offset: int = 0,
        odd: int = 0,
    ) -> np.ndarray[Any, Any]:
        """A NumPy view of the memory (no copy) that keeps the buffer alive.

        ``strides`` (row-major if None) and ``offset`` count elements, as in ``ir.launch.Layout``;
        ``odd`` more bytes come before (complex numbers may lie at any of their parts).
        Raises ValueError where an element would lie outside the buffer.
        """
        itemsize = dtype.itemsize
        steps = None if strides is None else tuple(step * itemsize for step in strides)
        try:
            if offset < 0:  # what NumPy does not look at
                raise ValueError("the offset is negative")
            return np.ndarray(
                shape, dtype.numpy, np.asarray(_Bytes(self)), offset * itemsize + odd, steps
            )
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"an array of {dtype!r} with shape {shape}, strides {strides} and offset {offset} "
                f"does not lie inside the buffer of {self.nbytes} bytes ({error}); ask for fewer "
                "elements or allocate more"
            ) from None


class _Block(weakref.ref[Buffer]):
    """The block of a buffer, which it outlives.

    The buffer holds it, because the weak reference alone does not tell: the cyclic collector clears
    it before destructors run, and one of these may take up the buffer again.
    """

    __slots__ = ("address", "home")

    address: int
    home: _SizeClass


_blocks: dict[int, _Block] = {}  # by address; of a free block, what it was last
_HELD_BY_NONE = OWN + 1  # the references of a block with a name that only ``_blocks`` holds
_returned: deque[_Block] = deque()  # of buffers that died
_give_back = _returned.append
# Takes one: Ctrl-C is looked at after a call, so from here to ``append`` no block can be lost.
_take = iter(_returned.popleft, None)


def _collect() -> None:
    """Puts the blocks of dead buffers among the free ones; there is one at least."""
    counters = _counters
    left = len(_returned)
    try:
        for block in _take:
            if getrefcount(block) > _HELD_BY_NONE:
                _give_back(block)  # the buffer lives yet, or again: see later
            else:
                home = block.home
                counters.allocated -= home.nbytes
                if home.is_mapped:
                    _freed[block.address] = home
                home.append(block.address)
            left -= 1
            if left <= 0:
                return
    except IndexError:  # another thread was quicker
        return


class _Bytes:
    """The bytes of a buffer in NumPy's array interface."""

    __slots__ = ("__array_interface__", "_buffer")

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (buffer.nbytes,),
            "data": (buffer.address, False),
        }


def allocate(nbytes: int) -> Buffer:
    """A buffer of ``nbytes``, aligned to 64 bytes, its contents undefined.

    Raises MemoryError, with what is in use, where the system has no memory left, and where it
    would be more than the flag MEMORY_LIMIT allows.
    """
    if _returned:
        _collect()
    if flags.MEMORY_LIMIT:
        _hold_to_limit(nbytes)
    if 0 <= nbytes <= _SMALL:
        home = _small[(nbytes + 63) >> 6]
        try:
            address = home.pop()
        except IndexError:
            address = _carve(home)
    else:
        home = _class_of(nbytes)
        try:
            address = home.pop()
            _freed.pop(address, None)
        except IndexError:
            _trim(home.nbytes)
            address = _map(home.nbytes, nbytes)
    buffer = Buffer()
    buffer.address = address
    buffer.nbytes = nbytes
    buffer._block = block = _Block(buffer, _give_back)
    block.address = address
    block.home = home
    _blocks[address] = block
    counters = _counters
    counters.allocations += 1
    counters.allocated += home.nbytes
    if counters.allocated > counters.allocated_peak:
        counters.allocated_peak = counters.allocated
        if _Watch.peak is not None:
            _Watch.peak(counters.allocated)
    return buffer


class _Watch:
    peak: Callable[[int], object] | None = None


def watch_peak(call: Callable[[int], object] | None) -> None:
    """Has ``call(bytes)`` called whenever more is handed out than ever before (None: no more)."""
    _Watch.peak = call


def wrap(owner: Any, address: int, nbytes: int) -> Buffer:
    """A buffer over the memory of ``owner``, which it keeps alive (a NumPy array, a file map)."""
    buffer = Buffer()
    buffer.address = address
    buffer.nbytes = nbytes
    buffer._owner = owner
    return buffer


def memory_stats() -> dict[str, int]:
    """What the allocator holds, in bytes of whole blocks, and how often it was called.

    ``allocated``: handed out; ``reserved``: taken from the system, free blocks included.
    """
    if _returned:
        _collect()
    counters = _counters
    return {
        "allocated.current": counters.allocated,
        "allocated.peak": counters.allocated_peak,
        "reserved.current": counters.reserved,
        "reserved.peak": counters.reserved_peak,
        "allocations": counters.allocations,
        "frees": counters.allocations - len(blocks()),
    }


def blocks() -> dict[Buffer, int]:
    """The buffers that are alive with the bytes of their blocks (not those that ``wrap`` made)."""
    found = {}
    for block in list(_blocks.values()):
        buffer = block()
        if buffer is not None:
            found[buffer] = block.home.nbytes
    return found


def reset_peak_memory_stats() -> None:
    """Lets the peaks start again from what is in use now."""
    if _returned:
        _collect()
    _counters.allocated_peak = _counters.allocated
    _counters.reserved_peak = _counters.reserved


def empty_cache() -> None:
    """Returns to the system all mapped blocks that are free, and slabs with no block in use."""
    if _returned:
        _collect()
    while _freed:
        _unmap_oldest()
    for home in list(_classes.values()):
        if home.nbytes <= _SMALL:
            _release_slabs(home)


def block_bytes(nbytes: int) -> int:
    """The bytes of the block that ``allocate(nbytes)`` hands out."""
    return _class_of(nbytes).nbytes


def limit() -> int:
    """The bytes that may be in use: the flag MEMORY_LIMIT, or what the machine has."""
    return flags.MEMORY_LIMIT or _machine_memory()


@lru_cache(maxsize=None)
def _machine_memory() -> int:
    """The memory of the machine, or less where the control groups of this process say so."""
    from pathlib import Path

    from treadle.runtime.control_groups import smallest

    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not told here
        whole = 1 << 62
    return smallest(Path("/"), "memory", ("memory.max", "memory.limit_in_bytes"), whole)


def _hold_to_limit(nbytes: int) -> None:
    """MemoryError where ``nbytes`` more would be beyond MEMORY_LIMIT, also without garbage."""
    size = _class_of(nbytes).nbytes
    for attempt in range(2):
        if _counters.allocated + size <= flags.MEMORY_LIMIT:
            return
        if attempt == 0:
            _collect_garbage()
    raise MemoryError(
        f"cannot allocate {pretty(nbytes)}: {pretty(_counters.allocated)} of the "
        f"{pretty(flags.MEMORY_LIMIT)} that TREADLE_MEMORY_LIMIT allows are in use; use a smaller "
        "batch, drop tensors no longer needed, or raise the limit"
    )


def _collect_garbage() -> None:
    """Frees what only cycles of dead objects hold."""
    import gc

    gc.collect()
    if _returned:
        _collect()


def _carve(home: _SizeClass) -> int:
    """A block of a new slab, whose other blocks become free."""
    block = home.nbytes
    size = _slab_size(block)
    start = _map(size, block)
    _slabs[start] = block
    home.extend(range(start + (size // block - 1) * block, start, -block))
    return start


def _slab_size(block: int) -> int:
    return max(_SLAB, block * _BLOCKS_PER_SLAB)


def _map(size: int, asked: int) -> int:
    """Fresh memory from the system; ``asked`` is for the error text."""
    try:
        return _map_now(size)
    except MemoryError:
        _collect_garbage()
        empty_cache()
    try:
        return _map_now(size)
    except MemoryError:
        raise MemoryError(
            f"cannot allocate {pretty(asked)}: the system has no memory left; "
            f"{pretty(_counters.allocated)} are in use and {pretty(_counters.reserved)} are "
            "reserved by this process; use a smaller batch or drop tensors no longer needed"
        ) from None


def _map_now(size: int) -> int:
    # The system aligns to pages only, so a block in huge pages brings room to align it; what is
    # never touched costs no memory.
    if _counters.reserved + size > _machine_memory():
        raise MemoryError  # the system would hand it out, and end the process when it is used
    huge = size >= _HUGE
    length = size + (_HUGE if huge else 0)
    try:
        if hasattr(mmap, "MAP_ANONYMOUS"):
            mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            mapping = mmap.mmap(-1, length)
    except OverflowError:
        raise MemoryError from None
    except OSError as error:
        if error.errno not in (errno.ENOMEM, errno.EAGAIN) and os.name == "posix":
            raise
        raise MemoryError from None
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    if huge:
        start = -(-address // _HUGE) * _HUGE
        if flags.HUGE_PAGES and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # advice: a system without huge pages refuses it
                mapping.madvise(mmap.MADV_HUGEPAGE, start - address, size)
        address = start
    _mappings[address] = mapping
    _counters.reserved += size
    _counters.reserved_peak = max(_counters.reserved_peak, _counters.reserved)
    return address


def _trim(size: int) -> None:
    """Returns old free blocks where ``size`` more bytes would reserve beyond the limit."""
    counters = _counters
    counters.most = max(counters.most, counters.allocated_peak, counters.allocated + size)
    limit = counters.most * 5 // 4 + _SLACK
    while _freed and counters.reserved + size > limit:
        _unmap_oldest()


def _unmap_oldest() -> None:
    try:
        address, home = next(iter(_freed.items()))
    except (StopIteration, RuntimeError):  # another thread emptied or changed the table
        return
    _freed.pop(address, None)
    try:
        home.remove(address)
    except ValueError:
        return  # another thread has taken the block
    _unmap(address, home.nbytes)


def _unmap(address: int, size: int) -> None:
    """Returns a block or slab that the caller owns."""
    _blocks.pop(address, None)  # first: the system may give the address to another thread
    _mappings.pop(address).close()
    _counters.reserved -= size


def _release_slabs(home: _SizeClass) -> None:
    """Unmaps the slabs of one class whose blocks are all free."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(home.pop())
    known = _slabs.copy()  # in one step, and after ``taken``: it has the slab of each of them
    slabs = sorted(start for start, block in known.items() if block == home.nbytes)
    blocks: dict[int, list[int]] = {start: [] for start in slabs}
    for address in taken:
        blocks[slabs[bisect.bisect_right(slabs, address) - 1]].append(address)
    size = _slab_size(home.nbytes)
    for start, free in blocks.items():
        if len(free) == size // home.nbytes:
            del _slabs[start]
            for address in free:
                _blocks.pop(address, None)
            _unmap(start, size)
        else:
            home.extend(free)


def pretty(nbytes: int) -> str:
    """``1.5 MiB``."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes} bytes"


# Memory outlives the interpreter: threads in generated code may still write to it at exit.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_mappings))
