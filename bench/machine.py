"""What this machine can do at most: fused multiply-adds per second, and bytes copied per second."""

from __future__ import annotations

import array
import time

import numpy as np

import treadle
from treadle.runtime import jit, memory, pool

_CHAINS = 12  # independent sums, enough to hide the latency of an FMA
_LOOPS = 2_000_000
_COPY_BYTES = 128 << 20


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


def peak_flops(rounds: int = 5) -> float:
    """f32 operations per second on all threads, an FMA being two: the best of some rounds."""
    threads, lanes = treadle.get_num_threads(), jit.host_target().vector_bits // 32
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
    x = treadle.from_numpy(source)
    best = 0.0
    for _ in range(rounds):
        begin = time.perf_counter()
        np.copyto(target, source)
        middle = time.perf_counter()
        x.clone().numpy()
        end = time.perf_counter()
        best = max(best, 2.0 * _COPY_BYTES / min(middle - begin, end - middle))
    return best
