"""What the vector loop of a kernel must take at least: a count of what each pipe has to do.

llvmlite offers no way to LLVM's machine code analyser, so this stands in for its estimate. The
model is a recent x86-64 core with 256-bit vectors (Zen 2 and later): six instructions a cycle, four
pipes for vectors of which two multiply and compare and two add and convert, two loads and a store.
It knows nothing of latencies, so a kernel cannot be faster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from treadle.base import dtypes
from treadle.codegen.llvm import print_llvm
from treadle.ir.loop import Kernel
from treadle.ops.random_kernels import random_kernel
from treadle.runtime.jit import host_target
from treadle.runtime.object_code import object_code
from treadle.testing.elementary import elementary_kernel

_MULTIPLY = re.compile(r"vf(n?)m|vp?mul|vp?min|vp?max|vp?cmp|vblendv")
_ADD = re.compile(r"v(add|sub|cvt|round)[ps]")
_SLOW = {"vdivps": 5.0, "vsqrtps": 7.0, "vdivpd": 7.0, "vsqrtpd": 12.0}  # cycles for 256 bits
_STORE = re.compile(r"vmov\w+\s+%(ymm|xmm)\d+, (?!.*%rsp)-?\w*\(")
_VECTOR_BYTES = {"ymm": 32, "xmm": 16}


def least_cycles(kernel: Kernel, itemsize: int) -> float | None:
    """Cycles an element of its longest vector loop; None where there is none (no AVX)."""
    shown: list[str] = []
    target = host_target()
    object_code(print_llvm(kernel, target.vector_bits), target, shown.append)
    found = [(_count(loop), loop) for loop in _loops(shown[0])]
    found = [(count, loop) for count, loop in found if _stored(loop)]
    if not found:
        return None
    cycles, loop = max(found, key=lambda pair: len(pair[1]))
    return cycles * itemsize / _stored(loop)


def _loops(assembly: str) -> Iterator[list[str]]:
    """The instructions of every loop without others inside."""
    begin, label = 0, ""
    lines = [line.split("#")[0].strip() for line in assembly.splitlines()]
    for place, line in enumerate(lines):
        if line.endswith(":"):
            begin, label = place + 1, line[:-1]
        elif line.startswith("j") and label and line.endswith(f"\t{label}"):
            yield [text for text in lines[begin : place + 1] if text and text[0] != "."]


def _stored(loop: list[str]) -> int:
    """Bytes that an iteration stores in vectors, what it spills left out."""
    return sum(_VECTOR_BYTES[m[1]] for text in loop if (m := _STORE.match(text)))


def _count(loop: list[str]) -> float:
    """Cycles of an iteration on the pipe that has most to do."""
    vectors = [text for text in loop if re.search("%[xy]mm", text)]
    moves = [text for text in vectors if text.startswith(("vmov", "vbroadcast"))]
    loads = sum(text.count("(") and not _STORE.match(text) for text in loop)
    multiply = sum(bool(_MULTIPLY.match(text)) for text in vectors)
    add = sum(bool(_ADD.match(text)) for text in vectors)
    slow = sum(_SLOW.get(text.split()[0], 0.0) for text in vectors)
    stores = sum(bool(_STORE.match(text)) for text in loop)
    work = len(vectors) - len(moves)
    return max(len(loop) / 6, multiply / 2 + slow, add / 2, work / 4, loads / 2, stores)


# The loops that compute more than they move, by the function or random op that takes longest.
_FUNCTIONS = {
    "exp": "exp", "tanh": "tanh", "erf": "erf", "gelu": "erf", "softmax": "exp",
    "cross_entropy": "exp",
}  # fmt: skip
_RANDOM = {
    "normal": ("random_normal", dtypes.float32), "dropout": ("random_bernoulli", dtypes.bool_)
}  # fmt: skip


def least_cycles_of(name: str) -> float | None:
    """Of what a loop of ``bench.workloads`` computes; None for those that mostly move."""
    if name in _FUNCTIONS:
        return least_cycles(elementary_kernel(_FUNCTIONS[name], dtypes.float32), 4)
    if name in _RANDOM:
        op, dtype = _RANDOM[name]
        return least_cycles(random_kernel(op, dtype.short), dtype.itemsize)
    return None


__all__ = ["least_cycles", "least_cycles_of"]
