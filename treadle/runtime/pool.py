"""Running kernels on threads: a tape of calls, and a fork-join pool parked in generated code.

A tape is a row of 64-bit words, for each call::

    fn, nargs, units, pieces, arg 0, ..., arg nargs-1

``fn`` is the address of a kernel (see ``jit``), which receives a pointer to its arguments in the
tape and the range 0..units. Where ``pieces`` is 2 or more the range is cut into as many pieces, at
most so many and a few for each thread, which threads take one by one (see ``pool_code``); all are
done before the next call starts. Which thread runs which piece is a matter of the moment. The first
call that returns something other than 0 stops the tape.

Workers are daemon threads of Python that enter ``treadle_pool_worker`` once, without the GIL. They
wait for a job by spinning, then asleep in the kernel; so does the caller for the workers. Every
thread computes with IEEE rounding to nearest and with denormals; the caller's floating-point state
is put back when the tape ends.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from treadle.base.flags import flags
from treadle.runtime import pool_code
from treadle.runtime.control_groups import control_groups

if TYPE_CHECKING:
    from pathlib import Path

_EXIT_SECONDS = 1.0  # how long the interpreter's exit waits for a tape that still runs
_DONE = (-1, 0)

_lock = threading.RLock()


def run_tape(
    tape: array.array[int], count: int, threads: int = 0, times: array.array[int] | None = None,
    moves: Iterable[object] = (),
) -> tuple[int, int]:  # fmt: skip
    """Runs the first ``count`` calls of ``tape`` in order, without the GIL.

    ``tape`` is an ``array('q')`` as described above, trusted as it stands; ``threads`` is the
    number of threads it was made for, 0 for ``get_num_threads()``. Returns (-1, 0), or the index of
    the call that failed and the code it returned (where several pieces failed, the first piece's).
    ``times``, of ``count`` + 1 words, gets the ticks of a steady clock at the start and after every
    call (``seconds_per_tick``). If no call failed, ``moves`` are gone through in the same call into
    C, so that no signal is handled before they are done.
    Tapes of several Python threads run one after the other.
    """
    with _lock:
        pool = _current(threads or flags.NUM_THREADS or _automatic())
        state = pool.state
        state[pool.call_index] = tape.buffer_info()[0]
        state[pool.call_index + 1] = count
        state[pool.call_index + 2] = 0 if times is None else times.buffer_info()[0]
        run = map(pool.run, (pool.bound_address,))
        try:
            deque(chain.from_iterable(map({0: moves}.__getitem__, run)), maxlen=0)
        except KeyError as failed:
            result: int = failed.args[0]
        else:
            return _DONE
    return (result >> 32) - 1, ctypes.c_int32(result & 0xFFFFFFFF).value


@lru_cache(maxsize=None)
def seconds_per_tick() -> float:
    """What a tick of the clock in ``run_tape``'s times lasts; measured once, in 20 ms."""
    nothing, times = array.array("q"), array.array("q", (0,))

    def reading() -> tuple[float, float, int]:
        """How far apart two looks at the other clock were, their middle, and the ticks then."""
        before = time.perf_counter()
        run_tape(nothing, 0, times=times)
        after = time.perf_counter()
        return after - before, (before + after) / 2, times[0]

    # The best of a few: the first may have to compile, any may be disturbed.
    _, begin, first = min(reading() for _ in range(20))
    time.sleep(0.02)
    _, end, last = min(reading() for _ in range(20))
    return (end - begin) / (last - first)


def get_num_threads() -> int:
    """The number of threads that kernels run on.

    The flag NUM_THREADS, or where it is 0 the cores this process may use (its affinity, and the
    whole cores in its control group's quota).
    """
    return flags.NUM_THREADS or _automatic()


def set_num_threads(num_threads: int) -> None:
    """Sets the number of threads from the next tape on.

    More threads than cores are allowed: so many of them run as there are cores. Raises ValueError
    below 1 and above 4096.
    """
    if num_threads < 1:
        raise ValueError(f"set_num_threads got {num_threads}; expected at least 1 thread")
    flags.NUM_THREADS = num_threads


class _Pool:
    """``threads - 1`` workers and the state they share with the caller."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.run = _entry("run", ctypes.c_int64, 0)
        # Words of an array are the quickest way to hand numbers over, and one bound address the
        # quickest argument (0.1 us instead of 1 for four numbers).
        self.state = array.array("q", bytes(pool_code.PLACES + pool_code.LINE * (threads + 1)))
        start = self.state.buffer_info()[0]
        self.address = -(-start // pool_code.LINE) * pool_code.LINE
        self.bound_address = ctypes.c_void_p(self.address)
        offset = self.address - start
        self.call_index = (offset + pool_code.CALL) // 8
        setup = (offset + pool_code.SETUP) // 8
        self.state[setup] = threads
        self.state[setup + 1] = min(threads, _automatic()) - 1
        self.state[(offset + pool_code.FAILURE) // 8] = -1
        self._workers: list[threading.Thread] = []
        try:
            for thread in range(1, threads):
                self._start(thread)
        except RuntimeError as error:
            self.stop()
            raise RuntimeError(
                f"could start only {len(self._workers) + 1} of {threads} threads ({error}); set "
                "a lower number with treadle.set_num_threads or TREADLE_NUM_THREADS"
            ) from None

    def _start(self, thread: int) -> None:
        worker = threading.Thread(
            target=_entry("worker", ctypes.c_int32, 1),
            args=(self.bound_address, thread),
            name=f"treadle-{thread}",
            daemon=True,
        )
        worker.start()
        self._workers.append(worker)

    def stop(self, timeout: float | None = None) -> None:
        """Sends the workers home and waits for them."""
        _entry("stop", ctypes.c_int32, 0)(self.bound_address)
        for worker in self._workers:
            worker.join(timeout)


_pool: _Pool | None = None
_exiting = False
_state_cell = array.array("q", (0,))  # the address of the state of the pool that runs


def _current(threads: int) -> _Pool:
    """The pool with that many threads, made anew where the number changed; call it locked."""
    global _pool
    if _exiting:
        threads = 1
    pool = _pool
    if pool is None or pool.threads != threads:
        if pool is not None:
            _pool = None
            pool.stop()
        pool = _pool = _Pool(threads)
        _state_cell[0] = pool.address
    return pool


def control_entry() -> tuple[int, int]:
    """The address of the kernel that runs control flow inside of a tape (see ``pool_code``), and
    where it finds the pool."""
    entry = ctypes.cast(_entry("control", ctypes.c_int32, 3), ctypes.c_void_p).value
    return entry or 0, _state_cell.buffer_info()[0]


@lru_cache(maxsize=None)
def _entry(name: str, result: Any, num_words: int) -> Any:
    """A function of the pool's generated code; a call of it releases the GIL."""
    full = f"treadle_pool_{name}"
    from treadle.runtime import jit  # the compiler, when first needed

    text = pool_code.module(name, jit.host_target().triple)
    address = jit.compile_kernel(full, text, lambda: text)
    return ctypes.CFUNCTYPE(result, ctypes.c_void_p, *[ctypes.c_int64] * num_words)(address)


@lru_cache(maxsize=None)
def _automatic() -> int:
    """The cores this process may use."""
    from pathlib import Path

    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota(Path("/"), cores)))


def _quota(root: Path, cores: int) -> int:
    """Whole cores that the control groups of this process allow, at most ``cores``.

    ``root`` is the root of the file system (another one in tests). A group's limit holds for all
    below it, so every group from ours upwards is asked.
    """
    for group in control_groups(root, "cpu"):
        cores = min(cores, _group_quota(group, cores))
    return cores


def _group_quota(group: Path, cores: int) -> int:
    """Whole cores one control group allows (version 2: cpu.max, version 1: cpu.cfs_*_us)."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        limit = int(quota) // int(period)
    except (OSError, ValueError):  # no such group, or "max"
        return cores
    return cores if int(quota) < 0 else limit


def _stop_at_exit() -> None:
    """Ends the workers before the interpreter does; a tape still running is left alone."""
    global _exiting
    _exiting = True
    if _lock.acquire(timeout=_EXIT_SECONDS):
        try:
            if _pool is not None:
                _pool.stop(_EXIT_SECONDS)
        finally:
            _lock.release()


def _forget_pool() -> None:
    """In a forked child: the workers, and whoever held the lock, are in the parent only."""
    global _lock, _pool
    _lock = threading.RLock()
    _pool = None
    _automatic.cache_clear()  # it may be given other cores


atexit.register(_stop_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
