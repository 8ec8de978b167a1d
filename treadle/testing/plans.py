"""Runs the plan of an op with the loop-IR interpreter: slow, exact, and it checks every access."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.base import dtypes
from treadle.compiler import lower
from treadle.ir.launch import In, Launch, Out, Work, contiguous
from treadle.ir.loop import Kernel, Pointer
from treadle.ir.loop_interpret import interpret
from treadle.ir.node import type_of
from treadle.ir.op import Op


def interpret_op(
    op: Op, arrays: tuple[np.ndarray, ...], attrs: dict[str, Any],
    cut: Callable[[int], int] = lambda units: units, vector_bits: int = 256,
) -> list[np.ndarray]:  # fmt: skip
    """The results of ``op`` on contiguous arrays, every launch run in two pieces.

    ``cut(units)`` says where the first piece ends; ``vector_bits`` is the width that contractions
    are planned for. Raises KernelRunError for an index outside its
    array, a value read before it is written or a vector loop whose iterations are not independent.
    """
    types = [type_of(dtypes.from_numpy(a.dtype), a.shape) for a in arrays]
    result = op.infer(types, attrs)
    outs = result if isinstance(result, tuple) else (result,)
    layouts = tuple(contiguous(t.dtype, t.shape) for t in types)
    plan = lower.plan(op, attrs, layouts, [t.layout for t in outs], 2, vector_bits)
    memory = {
        In: [np.ascontiguousarray(a).ravel() for a in arrays],
        Out: [np.zeros(t.size, t.dtype.numpy) for t in outs],
        Work: [np.zeros(nbytes, np.uint8) for nbytes in plan.workspaces],
    }
    for launch in plan.launches:
        kernel = launch.kernel.build(*launch.kernel.key)
        args = _arguments(launch, kernel, memory)
        middle = cut(launch.units)
        for thread, piece in enumerate(((0, middle), (middle, launch.units))):
            code = interpret(kernel, args, *piece, thread) if piece[0] < piece[1] else 0
            if code:
                raise IndexError(f"{kernel.name} stopped with code {code}: {launch.message}")
    return [out.reshape(t.shape) for out, t in zip(memory[Out], outs, strict=True)]


def _arguments(launch: Launch, kernel: Kernel, memory: dict[Any, list[np.ndarray]]) -> list[Any]:
    args: list[Any] = []
    for param, argument in zip(kernel.params, launch.args, strict=True):
        if not isinstance(param, Pointer) or isinstance(argument, int):
            args.append(argument)
        elif isinstance(argument, Work):
            args.append(memory[Work][argument.index][argument.offset :].view(param.dtype.numpy))
        else:
            args.append(memory[type(argument)][argument.index][argument.offset :])
    return args
