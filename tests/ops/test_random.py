"""Random primitives: Philox's published vectors, exact agreement with NumPy, and statistics."""

import ctypes
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.codegen.llvm import print_llvm
from treadle.ir.launch import Launch, contiguous
from treadle.ir.loop_interpret import interpret
from treadle.ir.loop_text import print_kernel
from treadle.ir.op import NoGradient, Op
from treadle.ops import random as ops
from treadle.ops.random import (
    COUNTERS,
    counters,
    random_bernoulli,
    random_bits,
    random_normal,
    random_uniform,
)
from treadle.runtime import jit
from treadle.tensor.storage import node_from_array

ALL = (random_bits, random_bernoulli, random_uniform, random_normal)
ENTRY = ctypes.CFUNCTYPE(ctypes.c_int, *(ctypes.c_void_p, *(ctypes.c_int64,) * 3))
Key = tuple[int, int, int]
KEY = (2024, 0, 0)

# counter, key, words: the vectors "philox4x32 10" of the paper's library Random123
VECTORS = (
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)  # fmt: skip


def as_array(number: int) -> np.ndarray:
    """A 0-d int64 with these 64 bits."""
    return np.array(number & (1 << 64) - 1, np.uint64).astype(np.int64)


def attributes(op: Op, shape: Any, dtype: dtypes.DType) -> dict[str, Any]:
    if op is random_bernoulli:
        return {"shape": shape, "threshold": 3 << 29}
    return {"shape": shape} if op is random_bits else {"shape": shape, "dtype": dtype}


def launch_of(op: Op, size: int, dtype: dtypes.DType) -> Launch:
    key = [contiguous(dtypes.int64, ())] * 3
    out = [contiguous(dtype, (size,))]
    plan = op.lower.plan(key, out, attributes(op, (size,), dtype), 1)  # type: ignore[union-attr]
    return plan.launches[0]


def draw(
    op: Op, size: int, dtype: dtypes.DType = dtypes.float32, key: Key = KEY, cuts: Any = ()
) -> np.ndarray:
    """Runs the compiled kernel, in pieces cut at the given blocks."""
    if op is random_bits:
        dtype = dtypes.int64
    launch = launch_of(op, size, dtype)
    kernel = launch.kernel.build(*launch.kernel.key)
    bits = jit.host_target().vector_bits
    entry = ENTRY(
        jit.compile_kernel(kernel.name, print_kernel(kernel), lambda: print_llvm(kernel, bits))
    )
    guard = 64
    out = np.full(size + guard, 7, dtype.numpy)
    inputs = [as_array(x) for x in key]
    table = np.array(
        [out.ctypes.data, *(x.ctypes.data for x in inputs), *launch.args[4:]], np.int64
    )
    for begin, end in pairwise((0, *cuts, launch.units)):
        assert entry(table.ctypes.data, begin, end, 0) == 0
    assert (out[size:] == np.array(7, out.dtype)).all()
    return out[:size]


@pytest.mark.parametrize(("counter", "key", "words"), VECTORS)
def test_published_vectors(counter: Any, key: Any, words: Any) -> None:
    assert tuple(int(w) for w in ops.philox_reference(counter, key)) == words
    low, high = counter[0] | counter[1] << 32, counter[2] | counter[3] << 32
    drawn = draw(random_bits, 4 * COUNTERS, key=(key[0] | key[1] << 32, high, low))
    assert tuple(drawn[::COUNTERS]) == words


def kinds() -> list[Any]:
    made = [(random_bits, dtypes.int64), (random_bernoulli, dtypes.bool_)]
    made += [(op, dtype) for op in (random_uniform, random_normal) for dtype in dtypes.FLOATS]
    return [pytest.param(op, dtype, id=f"{op.name}-{dtype.short}") for op, dtype in made]


@pytest.mark.parametrize(("op", "dtype"), kinds())
def test_kernel_and_reference_agree(op: Op, dtype: dtypes.DType) -> None:
    for key in (KEY, (-5, 1 << 40, (1 << 32) - 4), (1 << 63, -1, -9)):
        for size in (1, 31, 5 * 32 + 3):
            found = draw(op, size, dtype, key)
            arrays = [as_array(x) for x in key]
            expected = op.reference(*arrays, **attributes(op, (size,), dtype))
            if op is random_normal:
                # The float64 reference rounds the angle before it takes the cosine.
                relative = {"f64": 2.0**-50, "f32": 2.0**-21, "f16": 2.0**-10, "bf16": 2.0**-7}
                np.testing.assert_allclose(
                    found.astype(np.float64), expected.astype(np.float64),
                    rtol=relative[dtype.short], atol=2.0**-47 if dtype.short == "f64" else 0,
                )  # fmt: skip
            else:
                assert np.array_equal(found, expected)


def test_float64_normals_to_the_last_digits() -> None:
    mpmath = pytest.importorskip("mpmath")
    found = draw(random_normal, 16, dtypes.float64, KEY)
    with mpmath.workprec(200):
        for lane in range(COUNTERS):
            a, b, c, d = (int(w) for w in ops.philox_reference([lane, 0, 0, 0], [KEY[0], 0]))
            u = (mpmath.mpf((a << 21) + (b >> 11)) + 1) / 2**53
            radius, angle = mpmath.sqrt(-2 * mpmath.log(u)), mpmath.mpf((c << 32) + d) / 2**63
            pair = radius * mpmath.cospi(angle), radius * mpmath.sinpi(angle)
            np.testing.assert_allclose(
                found[lane::COUNTERS], [float(x) for x in pair], rtol=2.0**-50, atol=0
            )


@pytest.mark.parametrize(("op", "dtype"), kinds())
def test_every_cut_and_the_interpreter_give_the_same_bits(op: Op, dtype: dtypes.DType) -> None:
    size = 200
    whole = draw(op, size, dtype)
    for cuts in ((1,), (3, 5), (1, 2, 3, 4, 5, 6)):
        assert draw(op, size, dtype, cuts=cuts).tobytes() == whole.tobytes()
    launch = launch_of(op, size, dtype)
    by_hand = np.zeros(size, dtype.numpy)
    key = [as_array(x).reshape(1) for x in KEY]
    interpret(
        launch.kernel.build(*launch.kernel.key), [by_hand, *key, *launch.args[4:]], 0, launch.units
    )
    assert by_hand.tobytes() == whole.tobytes()


@pytest.mark.parametrize(("op", "dtype"), kinds())
def test_an_element_depends_on_its_index_and_the_key_alone(op: Op, dtype: dtypes.DType) -> None:
    long = draw(op, 1000, dtype)
    assert draw(op, 77, dtype).tobytes() == long[:77].tobytes()
    used = counters(256, dtype)  # whole blocks: the next op goes on where this one ended
    assert draw(op, 744, dtype, (2024, 0, used)).tobytes() == long[256:].tobytes()
    arrays = [as_array(x) for x in KEY]
    flat = op.reference(*arrays, **attributes(op, (77,), dtype))
    shaped = op.reference(*arrays, **attributes(op, (7, 11), dtype))
    assert np.array_equal(flat.reshape(7, 11), shaped)


def test_counters_are_enough_and_disjoint() -> None:
    for dtype in dtypes.FLOATS:
        each = 2 if dtype is dtypes.float64 else 1
        for size in (0, 1, 15, 16, 17, 32, 33, 1000):
            used = counters(size, dtype)
            assert used % COUNTERS == 0
            assert 0 <= 4 * used - each * size < 4 * COUNTERS
            if size:
                assert launch_of(random_uniform, size, dtype).units == used // COUNTERS


def kolmogorov(sample: np.ndarray, cdf: np.ndarray) -> float:
    """sqrt(n) times the distance of the distributions; above 1.95 one time in a thousand."""
    n = len(sample)
    steps = np.arange(n + 1) / n
    return math.sqrt(n) * max(np.abs(cdf - steps[1:]).max(), np.abs(cdf - steps[:-1]).max())


N = 1 << 17


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=repr)
def test_normal_distribution(dtype: dtypes.DType) -> None:
    x = np.sort(draw(random_normal, N, dtype).astype(np.float64))
    cdf = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    assert kolmogorov(x, cdf) < 1.95
    expected = {1: 0, 2: 1, 3: 0, 4: 3, 6: 15}
    for power, moment in expected.items():
        spread = math.sqrt(math.prod(range(2 * power - 1, 0, -2)) / N)  # sqrt(E x^(2p) / n)
        assert abs((x**power).mean() - moment) < 4 * spread
    assert 4 < x[-1] < 6.8
    assert -6.8 < x[0] < -4


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=repr)
def test_uniform_distribution(dtype: dtypes.DType) -> None:
    x = np.sort(draw(random_uniform, N, dtype).astype(np.float64))
    assert kolmogorov(x, x) < 1.95
    assert 0 <= x[0] < 1e-4
    assert 1 - 1e-4 < x[-1] < 1


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=repr)
def test_uniform_is_below_one_on_an_even_grid(dtype: dtypes.DType) -> None:
    bits = {"f64": 53, "f32": 24, "f16": 11, "bf16": 8}[dtype.short]
    x = draw(random_uniform, N, dtype).astype(np.float64)
    assert (x < 1).all()
    assert (x >= 0).all()
    grid = x * 2.0**bits
    assert np.array_equal(grid, np.round(grid))
    if bits <= 11:  # the ends of the grid occur
        assert x.max() == 1 - 2.0**-bits
        assert x.min() == 0
    assert np.any(grid % 2 == 1)


def test_narrow_normals_are_the_wide_ones_rounded() -> None:
    wide = draw(random_normal, 1000)
    for dtype in (dtypes.float16, dtypes.bfloat16):
        assert np.array_equal(draw(random_normal, 1000, dtype), wide.astype(dtype.numpy))


def test_bits_are_balanced_and_independent() -> None:
    count = N // 8
    words = draw(random_bits, count)
    assert words.min() >= 0
    assert words.max() < 1 << 32
    bits = (words[:, None] >> np.arange(32)) & 1
    assert np.abs(bits.mean(0) - 0.5).max() < 4.5 * 0.5 / math.sqrt(count)
    signs = 2.0 * bits - 1
    correlation = signs.T @ signs / count - np.eye(32)
    assert np.abs(correlation).max() < 5 / math.sqrt(count)


def test_neighbours_seeds_streams_and_offsets_are_independent() -> None:
    x = draw(random_normal, N).astype(np.float64)
    for lag in (1, 7, 8, 16, 24, 32, 256):
        assert abs(np.mean(x[:-lag] * x[lag:])) < 4.5 / math.sqrt(N)
        squares = (x[:-lag] ** 2 - 1) * (x[lag:] ** 2 - 1)
        assert abs(squares.mean()) < 4.5 * 2 / math.sqrt(N)
    for key in ((2025, 0, 0), (2024, 1, 0), (2024, 0, counters(N, dtypes.float32))):
        y = draw(random_normal, N, key=key).astype(np.float64)
        assert abs(np.mean(x * y)) < 4.5 / math.sqrt(N)


def test_records() -> None:
    for op in ALL:
        assert isinstance(op.gradient, NoGradient)
        for sample in op.samples():
            out = op.reference(*sample.args, **sample.attrs)
            nodes = [node_from_array(a) for a in sample.args]
            node = op(*nodes, **sample.attrs)
            assert node.shape == out.shape == sample.attrs["shape"]
            assert node.dtype.numpy == out.dtype
            assert not sample.smooth


@pytest.mark.parametrize("op", ALL, ids=repr)
def test_refusals(op: Op) -> None:
    for error in op.errors():
        nodes = [node_from_array(a) for a in error.args]
        with pytest.raises(error.error) as caught:
            op(*nodes, **error.attrs)
        assert str(caught.value).startswith(error.text)
