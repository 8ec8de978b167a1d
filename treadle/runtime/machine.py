"""What this machine can do at most: fused multiply-adds per second, and bytes copied per second.

Bytes move the faster the less there are of them, since caches hold them: so there is a bandwidth
for each of a few sizes, and a kernel is held to that of the bytes it touches.
"""

from __future__ import annotations

import array
import json
import time

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.base.record import Record
from treadle.base.shapes import contiguous_strides
from treadle.ir.launch import Layout, Out
from treadle.ir.nest import copy_launch
from treadle.runtime import memory, pool
from treadle.runtime.cpu import cpu

_CHAINS = 12  # independent sums, enough to hide the latency of an FMA
_LOOPS = 200_000  # half a millisecond: of many such rounds some are disturbed by nobody
_COPY_BYTES = 128 << 20
_SIZES = (1 << 17, 1 << 20, 1 << 23, 1 << 26)  # bytes read and written by the copies of `limits`
_MOVED = 1 << 24  # bytes of all copies of one size together, at least


class MachineLimits(Record):
    """f32 operations per second, and (bytes, bytes per second) of copies of growing sizes."""

    flops: float
    bandwidths: tuple[tuple[int, float], ...]

    def bandwidth(self, nbytes: int) -> float:
        """Bytes per second that a kernel which touches ``nbytes`` can read and write at most.

        >>> MachineLimits(1e11, ((1000, 9e10), (10000, 2e10))).bandwidth(5500) / 1e9
        55.0
        """
        sizes, rates = zip(*self.bandwidths, strict=True)
        return float(np.interp(nbytes, sizes, rates))

    def seconds(self, flops: float, nbytes: int, itemsize: int = 4) -> float:
        """The least time for so much work on numbers of ``itemsize`` bytes (at least 4)."""
        compute = flops * max(itemsize, 4) / 4 / self.flops
        return max(compute, nbytes / self.bandwidth(nbytes))


def limits(again: bool = False) -> MachineLimits:
    """The limits on all threads: measured once, in 0.3 s, and kept for this machine.

    ``again`` measures anew and keeps the better of both: a first measurement may have been
    disturbed.
    """
    key = f"machine limits, {pool.get_num_threads()} threads"
    known = None
    text = cpu.recall(key)
    if text is not None:
        flops, bandwidths = json.loads(text)
        known = MachineLimits(flops, tuple((size, rate) for size, rate in bandwidths))
        if not again:
            return known
    best, flops = 0.0, peak_flops()
    rates = []
    for position in reversed(range(len(_SIZES))):
        before = known.bandwidths[position][1] if known is not None else 0.0
        best = max(best, before, _small_copies(_SIZES[position]))  # less is never slower
        rates.append((_SIZES[position], best))
    found = MachineLimits(max(flops, known.flops if known else 0.0), tuple(reversed(rates)))
    cpu.remember(key, json.dumps(found))
    return found


def _small_copies(nbytes: int, rounds: int = 20) -> float:
    """Bytes read and written per second by copies that touch ``nbytes``, one after another."""
    size = nbytes // 8
    layout = Layout(dtypes.float32, (size,), contiguous_strides((size,)))
    launch = copy_launch(layout, Out(0), layout.strides)
    source, target = (memory.allocate(4 * size) for _ in range(2))
    entry = cpu.compile(launch.kernel)
    numbers = [x for x in launch.args if isinstance(x, int)]
    threads = pool.get_num_threads()
    head = [entry, len(launch.args), launch.units, threads, target.address, source.address]
    calls = max(_MOVED // nbytes, 1)
    tape = array.array("q", [*head, *numbers] * calls)
    best = float("inf")
    for _ in range(rounds + 1):  # the first touches the memory
        begin = time.perf_counter()
        pool.run_tape(tape, calls)
        best = min(best, time.perf_counter() - begin)
    return calls * nbytes / best


def _peak_module(lanes: int) -> str:
    """A kernel of nothing but FMAs on f32 vectors; the sums are stored, so that they are needed."""
    vector = f"<{lanes} x float>"
    phis, chains = [], []
    for i in range(_CHAINS):
        phis.append(f"  %a{i} = phi {vector} [ zeroinitializer, %entry ], [ %b{i}, %loop ]")
        chains.append(
            f"  %b{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{i}, {vector} %x, "
            f"{vector} %x)"
        )
    stores = []
    for i in range(_CHAINS):
        stores.append(f"  %q{i} = getelementptr {vector}, ptr %row, i64 {i}")
        stores.append(f"  store {vector} %b{i}, ptr %q{i}, align 4")
    body = "\n".join([*phis, "  %n = phi i64 [ 0, %entry ], [ %m, %loop ]", *chains])
    tail = "\n".join(stores)
    return f"""
declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define i32 @fma_peak(ptr %args, i64 %begin, i64 %end, i64 %thread) {{
entry:
  %out = load ptr, ptr %args
  %count.at = getelementptr i64, ptr %args, i64 1
  %count = load i64, ptr %count.at
  %offset = mul i64 %thread, {4 * lanes * _CHAINS}
  %row = getelementptr i8, ptr %out, i64 %offset
  %x = load {vector}, ptr %row, align 4
  br label %loop
loop:
{body}
  %m = add i64 %n, 1
  %more = icmp ult i64 %m, %count
  br i1 %more, label %loop, label %done
done:
{tail}
  ret i32 0
}}
"""


def peak_flops(rounds: int = 50) -> float:
    """f32 operations per second on all threads, an FMA being two: the best of some rounds."""
    from treadle.runtime import jit  # the compiler, when first needed

    threads, lanes = pool.get_num_threads(), jit.host_target().vector_bits // 32
    text = _peak_module(lanes)
    entry = jit.compile_kernel("fma_peak", text, lambda: text)
    out = memory.allocate(4 * lanes * _CHAINS * threads)
    tape = array.array("q", [entry, 2, threads, threads, out.address, _LOOPS])
    best = 0.0
    for _ in range(rounds):
        begin = time.perf_counter()
        pool.run_tape(tape, 1)
        seconds = time.perf_counter() - begin
        best = max(best, 2.0 * lanes * _CHAINS * _LOOPS * threads / seconds)
    return best


def copy_bandwidth(rounds: int = 7) -> float:
    """Bytes read and written per second while copying far more than the caches hold.

    The best of a copy on all threads by a generated kernel and of NumPy's on one.
    """
    source = np.ones(_COPY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    best = _small_copies(2 * _COPY_BYTES, rounds)
    for _ in range(rounds):
        begin = time.perf_counter()
        np.copyto(target, source)
        best = max(best, 2.0 * _COPY_BYTES / (time.perf_counter() - begin))
    return best


__all__ = ["MachineLimits", "copy_bandwidth", "limits", "peak_flops"]
