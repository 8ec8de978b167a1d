"""Loop nests: transposed operands go through tiles, and threads get a long axis."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.base.shapes import contiguous_strides, prod
from treadle.ir.launch import In, Launch, Layout, Out
from treadle.ir.loop_interpret import interpret
from treadle.ir.loop_verify import verify_kernel
from treadle.ir.nest import Nest, copy_launch

SHAPES = [
    ((4, 4), (1, 0)),
    ((70, 133), (1, 0)),
    ((129, 3), (1, 0)),
    ((3, 67, 9), (0, 2, 1)),
    ((5, 66, 10), (2, 0, 1)),
    ((2, 3, 17, 20), (0, 2, 3, 1)),
    ((2, 9, 4, 33), (3, 1, 0, 2)),
]


def values(shape: tuple[int, ...], dtype: dtypes.DType) -> np.ndarray:
    numbers = np.random.default_rng(0).integers(0, 120, shape)
    return (numbers % 2 if dtype is dtypes.bool_ else numbers).astype(dtype.numpy)


def transposed_copy(shape: tuple[int, ...], axes: tuple[int, ...], dtype: dtypes.DType) -> Launch:
    strides = tuple(contiguous_strides(shape)[a] for a in axes)
    moved = tuple(shape[a] for a in axes)
    return copy_launch(Layout(dtype, moved, strides), Out(0), contiguous_strides(moved))


def nest_of(launch: Launch) -> Nest:
    return launch.kernel.key[-1]


@pytest.mark.parametrize("name", ["bool_", "uint8", "int16", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize(("shape", "axes"), SHAPES)
def test_transposed_copies(shape: tuple[int, ...], axes: tuple[int, ...], name: str):
    dtype = getattr(dtypes, name)
    array = values(shape, dtype)
    got = treadle.tensor(array, dtype=dtype).permute(axes).clone().numpy()
    assert got.tobytes() == np.ascontiguousarray(array.transpose(axes)).tobytes()


@pytest.mark.parametrize("size", [5, 64, 71, 200])
def test_operands_that_disagree_about_the_inner_axis(size: int):
    x, y = (np.random.default_rng(s).standard_normal((size, size), np.float32) for s in (1, 2))
    a, b = treadle.tensor(x), treadle.tensor(y)
    assert (a + b.t()).numpy().tobytes() == (x + y.T).tobytes()
    both = (a * b.t() + b.flip(0).t()).numpy()
    assert both.tobytes() == (x * y.T + y[::-1].T).tobytes()


@pytest.mark.parametrize("name", ["float32", "bool_"])
@pytest.mark.parametrize(("shape", "axes"), [SHAPES[1], SHAPES[3], SHAPES[4]])
def test_tiled_kernels_keep_the_rules_of_the_loop_ir(
    shape: tuple[int, ...], axes: tuple[int, ...], name: str
):
    dtype = getattr(dtypes, name)
    array = values(shape, dtype)
    bytes_or_numbers = np.uint8 if dtype.kind == "b" else dtype.numpy
    launch = transposed_copy(shape, axes, dtype)
    assert "t" in nest_of(launch).classes
    kernel = launch.kernel.build(*launch.kernel.key)
    verify_kernel(kernel)
    memory = {In: array.astype(bytes_or_numbers).ravel(), Out: np.zeros(prod(shape), dtype.numpy)}
    args = [memory.get(type(a), a) for a in launch.args]
    for begin, end in ((0, launch.units // 3), (launch.units // 3, launch.units)):
        assert interpret(kernel, args, begin, end, 0) == 0
    assert memory[Out].tobytes() == np.ascontiguousarray(array.transpose(axes)).tobytes()


def test_threads_share_a_long_axis():
    gaps = Layout(dtypes.float32, (2, 1000), (2000, 1))
    assert copy_launch(gaps, Out(0), (1000, 1)).units == 1000
    rows = Layout(dtypes.float32, (300, 1000), (2000, 1))
    assert copy_launch(rows, Out(0), (1000, 1)).units == 300
    assert transposed_copy((8, 64, 3136), (0, 2, 1), dtypes.float32).units == 3136
