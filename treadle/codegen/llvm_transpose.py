"""The transpose of a square block of memory, as LLVM shuffles that stay inside 128 bits.

Rows are first read in pieces so that 128-bit groups are where they belong (loads do that at no
cost), then transposed inside the groups by interleaving low and high halves, log2 times. These are
the cheapest shuffles of every instruction set.
"""

from __future__ import annotations

from collections.abc import Callable

from treadle.base.dtypes import DType
from treadle.codegen.llvm_values import ValuePrinter


def transposed(
    printer: ValuePrinter, dtype: DType, size: int, address: Callable[[int, int], str]
) -> list[str]:
    """The columns of the ``size`` x ``size`` block of which ``address(i, j)`` is element (i, j)."""
    group = min(max(16 // dtype.itemsize, 2), size)
    rows = _load(printer, dtype, size, address, group)
    half = size // 4
    while half >= group:
        rows = _swap_blocks(printer, dtype, rows, half)
        half //= 2
    for first in range(0, size, group):
        rows[first : first + group] = _inside(printer, dtype, rows[first : first + group], size)
    return rows


def _load(
    printer: ValuePrinter, dtype: DType, size: int, address: Callable[[int, int], str], group: int
) -> list[str]:
    """The rows, with the outermost blocks already swapped where the block has more than a group."""

    def piece(i: int, j: int, width: int) -> str:
        return printer.read(
            f"load {printer.type(dtype, width)}, ptr {address(i, j)}, align {dtype.itemsize}"
        )

    if size == group:
        return [piece(i, 0, size) for i in range(size)]
    half = size // 2
    joined = range(size)
    return [
        _shuffle(printer, dtype, half, piece(i, j, half), piece(i + half, j, half), joined)
        for j in (0, half)
        for i in range(half)
    ]


def _shuffle(
    printer: ValuePrinter, dtype: DType, width: int, a: str, b: str, lanes: range | list[int]
) -> str:
    ty = printer.type(dtype, width)
    mask = ", ".join(f"i32 {lane}" for lane in lanes)
    return printer.emit(f"shufflevector {ty} {a}, {ty} {b}, <{len(lanes)} x i32> <{mask}>")


def _swap_blocks(printer: ValuePrinter, dtype: DType, rows: list[str], half: int) -> list[str]:
    """Swaps the off-diagonal ``half`` x ``half`` blocks of every block of twice the size."""
    size, result = len(rows), list(rows)
    for i in range(size):
        if i & half:
            continue
        low = [j if not j & half else size + j - half for j in range(size)]
        high = [j + half if not j & half else size + j for j in range(size)]
        result[i] = _shuffle(printer, dtype, size, rows[i], rows[i + half], low)
        result[i + half] = _shuffle(printer, dtype, size, rows[i], rows[i + half], high)
    return result


def _inside(printer: ValuePrinter, dtype: DType, rows: list[str], size: int) -> list[str]:
    """Transposes inside each group of lanes, by interleaving rows i and i + group / 2."""
    group = span = len(rows)
    half = group // 2
    while span > 1:
        result = []
        for i in range(half):
            for part in (0, half):
                lanes = [
                    first + part + j // 2 + (size if j % 2 else 0)
                    for first in range(0, size, group)
                    for j in range(group)
                ]
                result.append(_shuffle(printer, dtype, size, rows[i], rows[i + half], lanes))
        rows = result
        span //= 2
    return rows
