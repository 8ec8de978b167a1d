"""Convolutions and their gradients against their definition, to the last bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.base.errors import CompileError, DTypeError, ShapeError
from treadle.codegen.conv import plan_conv, takes_riders
from treadle.codegen.hooks import Fused, Hook, Indices, Riders
from treadle.ir.launch import In, contiguous
from treadle.ir.loop import Builder, Operand, Pointer

KINDS = ("forward", "input", "weight")
Geometry = dict[str, Any]


def geometry(
    stride: Any = (1, 1), padding: Any = ((0, 0), (0, 0)), dilation: Any = (1, 1), groups: int = 1
) -> Geometry:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def axes(g: Geometry) -> range:
    return range(len(g["stride"]))


def output_size(x: np.ndarray, w: np.ndarray, g: Geometry) -> tuple[int, ...]:
    sizes = [
        (x.shape[2 + a] + sum(g["padding"][a]) - g["dilation"][a] * (w.shape[2 + a] - 1) - 1)
        // g["stride"][a] + 1
        for a in axes(g)
    ]  # fmt: skip
    return (x.shape[0], w.shape[0], *sizes)


def convolve(
    c: Any, kind: str, x: np.ndarray, y: np.ndarray, shape: tuple[int, ...], g: Geometry,
    threads: int = 1, bits: int = 256,
) -> np.ndarray:  # fmt: skip
    out = np.full(shape, 3, x.dtype)
    plan = plan_conv(
        kind, c.layout_of(x), c.layout_of(y), c.layout_of(out), **g, threads=threads,
        vector_bits=bits,
    )  # fmt: skip
    c.run(plan, [x, y], out, threads, bits)
    return out


def window(x: np.ndarray, tap: Any, count: Any, stride: Any, dilation: Any) -> Any:
    """The elements (or their presence) under one tap, for every pixel."""
    first = [t * d for t, d in zip(tap, dilation, strict=True)]
    cuts = (slice(f, f + (n - 1) * s + 1, s) for f, n, s in zip(first, count, stride, strict=True))
    return x[..., *cuts]


def padded(x: np.ndarray, g: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The padded image and where it is not padding."""
    there = np.pad(np.ones(x.shape[2:], bool), g["padding"])
    out = np.zeros((*x.shape[:2], *there.shape), x.dtype)
    out[:, :, there] = x.reshape(*x.shape[:2], -1)
    return out, there


def spread(x: np.ndarray, rank: int) -> np.ndarray:
    """With axes of size 1 for the pixels."""
    return x.reshape(*x.shape, *(1,) * rank)


def forward(c: Any, x: np.ndarray, w: np.ndarray, g: Geometry) -> np.ndarray:
    n, outputs, *size = output_size(x, w, g)
    inner, taps = w.shape[1], w.shape[2:]
    image, there = padded(x, g)
    grouped = image.reshape(n, g["groups"], inner, *image.shape[2:])
    weights = w.reshape(g["groups"], -1, inner, *taps)

    def terms(k: int) -> Any:
        tap, channel = divmod(k, inner)
        at = np.unravel_index(tap, taps)
        elements = window(grouped[:, :, channel], at, size, g["stride"], g["dilation"])
        present = window(there, at, size, g["stride"], g["dilation"])
        return spread(weights[:, :, channel, *at], len(taps)), elements[:, :, None], present

    shape = (n, g["groups"], outputs // g["groups"], *size)
    depth = math.prod(taps) * inner
    return c.contract(terms, depth, shape, x.dtype).reshape(n, outputs, *size)


def input_gradient(
    c: Any, grad: np.ndarray, w: np.ndarray, shape: tuple[int, ...], g: Geometry
) -> np.ndarray:
    n, _, *size = shape
    groups, inner, taps = g["groups"], w.shape[1], w.shape[2:]
    per_group = grad.shape[1] // groups
    # Every result, reached from all sides: grad_out spread by the stride in a wide frame.
    margin = [(taps[a] - 1) * g["dilation"][a] for a in axes(g)]
    wide = [size[a] + sum(g["padding"][a]) + 2 * margin[a] for a in axes(g)]
    frame, there = np.zeros((*grad.shape[:2], *wide), grad.dtype), np.zeros(wide, bool)
    places = tuple(
        slice(margin[a], margin[a] + (grad.shape[2 + a] - 1) * g["stride"][a] + 1, g["stride"][a])
        for a in axes(g)
    )
    frame[:, :, *places] = grad
    there[places] = True
    grouped = frame.reshape(n, groups, per_group, *frame.shape[2:])
    weights = w.reshape(groups, per_group, inner, *taps)

    def terms(k: int) -> Any:
        tap, channel = divmod(k, per_group)
        at = np.unravel_index(tap, taps)
        first = [g["padding"][a][0] + margin[a] - at[a] * g["dilation"][a] for a in axes(g)]
        cut = tuple(slice(first[a], first[a] + size[a]) for a in axes(g))
        elements = grouped[:, :, channel, *cut]
        return spread(weights[:, channel, :, *at], len(taps)), elements[:, :, None], there[cut]

    result = (n, groups, inner, *size)
    depth = math.prod(taps) * per_group
    return c.contract(terms, depth, result, grad.dtype).reshape(shape)


def weight_gradient(
    c: Any, grad: np.ndarray, x: np.ndarray, shape: tuple[int, ...], g: Geometry
) -> np.ndarray:
    outputs, inner, *taps = shape
    n, size = grad.shape[0], grad.shape[2:]
    image, there = padded(x, g)
    grouped = image.reshape(n, g["groups"], inner, *image.shape[2:])
    grads = grad.reshape(n, g["groups"], -1, *size)

    def terms(k: int) -> Any:
        image_index, pixel = divmod(k, math.prod(size))
        at = np.unravel_index(pixel, size)
        elements = window(grouped[image_index], at, taps, g["dilation"], g["stride"])
        present = window(there, at, taps, g["dilation"], g["stride"])
        factor = spread(grads[image_index, :, :, *at], 1 + len(taps))
        return factor, elements[:, None], present

    whole = (g["groups"], outputs // g["groups"], inner, *taps)
    return c.contract(terms, n * math.prod(size), whole, grad.dtype).reshape(shape)


def operands(kind: str, x: np.ndarray, w: np.ndarray, grad: np.ndarray) -> Any:
    return {
        "forward": (x, w, grad.shape), "input": (grad, w, x.shape), "weight": (grad, x, w.shape)
    }[kind]  # fmt: skip


def defined(c: Any, kind: str, x: np.ndarray, w: np.ndarray, grad: np.ndarray, g: Geometry) -> Any:
    if kind == "forward":
        return forward(c, x, w, g)
    if kind == "input":
        return input_gradient(c, grad, w, x.shape, g)
    return weight_gradient(c, grad, x, w.shape, g)


def example(c: Any, x: Any, w: Any, g: Geometry, dtype: str = "f32", seed: int = 0) -> Any:
    rng, kind = np.random.default_rng(seed), c.dtypes[dtype]
    x, w = c.random(rng, x, kind), c.random(rng, w, kind)
    return x, w, c.random(rng, output_size(x, w, g), kind)


CASES = [
    ((2, 3, 9, 10), (5, 3, 3, 3), geometry()),
    ((2, 4, 9, 20), (6, 2, 3, 5), geometry(padding=((1, 2), (2, 1)), groups=2)),
    ((3, 4, 11, 13), (7, 4, 3, 3), geometry((2, 2), ((1, 1), (1, 1)))),
    ((2, 3, 16, 17), (4, 3, 3, 2), geometry((2, 3), ((0, 1), (2, 2)), (2, 3))),
    ((9, 8, 4, 4), (7, 8, 3, 3), geometry(padding=((1, 1), (1, 1)))),  # images in the lanes
    ((2, 70, 5, 7), (3, 70, 3, 3), geometry(padding=((1, 1), (1, 1)))),  # k = 630: two blocks
    ((2, 8, 7, 7), (16, 8, 1, 1), geometry((2, 2))),  # elements that no tap reads
    ((2, 6, 8, 8), (6, 1, 3, 3), geometry(padding=((1, 1), (1, 1)), groups=6)),
    ((2, 3, 3, 3), (4, 3, 2, 2), geometry(padding=((3, 3), (3, 3)))),  # pixels without a term
    ((1, 2, 20, 31), (3, 2, 2, 2), geometry()),
    ((9, 2, 8, 8), (3, 2, 3, 3), geometry()),  # a block of the weight gradient in many images
    ((1, 1, 1, 1), (1, 1, 1, 1), geometry()),
    ((2, 6, 9, 7), (12, 1, 3, 3), geometry((2, 1), ((1, 1), (2, 1)), groups=6)),  # twice each
    ((2, 36, 6, 8), (36, 1, 3, 2), geometry((2, 2), ((1, 1), (0, 1)), (2, 1), groups=36)),
    ((1, 3, 28, 30), (3, 1, 23, 24), geometry((2, 1), groups=3)),  # 552 taps: two blocks
    ((2, 3, 9, 37), (3, 1, 3, 3), geometry((2, 2), ((1, 1), (1, 1)), groups=3)),
    ((1, 2, 7, 70), (2, 1, 5, 4), geometry((3, 2), ((4, 2), (5, 0)), (1, 2), 2)),
    ((1, 2, 5, 40), (2, 1, 1, 5), geometry((4, 1), ((0, 1), (2, 2)), groups=2)),
    ((4, 11, 16, 19), (11, 1, 3, 3), geometry((1, 2), ((1, 1), (1, 1)), groups=11)),
    ((4, 9, 8, 40), (9, 1, 5, 4), geometry((1, 2), ((2, 2), (3, 0)), (1, 2), 9)),
    ((1, 8, 3, 40), (8, 1, 2, 14), geometry(groups=8)),  # more taps than registers
    ((2, 9, 7, 7), (9, 1, 3, 3), geometry(padding=((1, 1), (1, 1)), groups=9)),  # short rows
    ((3, 8, 9, 4), (8, 1, 3, 2), geometry((2, 1), ((1, 1), (0, 0)), groups=8)),
    ((2, 8, 2, 70), (8, 1, 2, 2), geometry((1, 2), ((1, 0), (1, 1)), groups=8)),
    ((2, 18, 9, 17), (25, 18, 3, 3), geometry(padding=((1, 1), (1, 1)))),  # squares that overlap
    ((2, 12, 6, 8), (6, 2, 3, 3), geometry((2, 1), ((1, 1), (0, 1)), groups=6)),
    ((2, 5, 6, 6), (18, 5, 1, 1), geometry()),  # products of matrices
    ((2, 18, 6, 6), (5, 18, 1, 1), geometry()),
    ((2, 8, 9, 9), (4, 8, 3, 3), geometry((3, 3), dilation=(3, 3))),  # pixels without any tap
    ((2, 5, 23), (7, 5, 4), geometry((1,), ((2, 1),), (1,))),
    ((3, 4, 40), (6, 2, 3), geometry((3,), ((4, 4),), (2,), 2)),
    ((2, 3, 600), (4, 3, 5), geometry((1,), ((2, 2),), (1,))),  # cut along the only axis
    ((2, 3, 5, 6, 7), (5, 3, 3, 2, 3), geometry((1,) * 3, ((1, 1), (0, 1), (1, 1)), (1,) * 3)),
    ((2, 4, 6, 5, 6), (4, 2, 2, 3, 3), geometry((2, 1, 2), ((0, 1), (1, 1), (2, 0)), (2, 1, 1), 2)),
    ((1, 3, 8, 12, 12), (2, 3, 2, 2, 2), geometry((1,) * 3, ((0, 0),) * 3, (1,) * 3)),
    ((2, 5, 3, 4, 4), (5, 1, 2, 2, 2), geometry((1,) * 3, ((1, 1),) * 3, (1,) * 3, 5)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_bits_are_the_defined_ones(contractions: Any, case: Any, kind: str) -> None:
    x, w, grad = example(contractions, *case)
    expected = defined(contractions, kind, x, w, grad, case[2])
    a, b, shape = operands(kind, x, w, grad)
    for threads in (1, 2, 3):
        got = convolve(contractions, kind, a, b, shape, case[2], threads)
        assert contractions.same_bits(got, expected), threads


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f16", "bf16", "i32", "u8"])
def test_other_dtypes(contractions: Any, dtype: str, kind: str) -> None:
    g = geometry((1, 2), ((1, 1), (0, 1)))
    x, w, grad = example(contractions, (3, 19, 14, 15), (5, 19, 3, 3), g, dtype)
    expected = defined(contractions, kind, x, w, grad, g)
    a, b, shape = operands(kind, x, w, grad)
    got = convolve(contractions, kind, a, b, shape, g, 2)
    assert contractions.same_bits(got, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_padding_is_no_term(contractions: Any, dtype: str, kind: str) -> None:
    """Infinities, NaNs, zeros of both signs and subnormals on either side."""
    g = geometry((2, 1), ((2, 1), (1, 2)))
    rng = np.random.default_rng(5)
    for share in (0.01, 0.3):
        x, w, grad = example(contractions, (3, 3, 12, 9), (7, 3, 3, 4), g, dtype)
        x, w, grad = (contractions.special(rng, t, share) for t in (x, w, grad))
        expected = defined(contractions, kind, x, w, grad, g)
        a, b, shape = operands(kind, x, w, grad)
        for threads in (1, 2):
            got = convolve(contractions, kind, a, b, shape, g, threads)
            assert contractions.same_bits(got, expected)


def test_infinite_weights_under_padding_do_not_poison(contractions: Any) -> None:
    x, w = np.ones((9, 1, 4, 4), "f4"), np.ones((1, 1, 3, 3), "f4")
    w[0, 0, 0, 0] = np.inf
    g = geometry(padding=((1, 1), (1, 1)))
    for images in (x[:1], x):  # pixels, and images, in the lanes
        out = convolve(contractions, "forward", images, w, images.shape, g, 2)
        assert np.isinf(out[:, :, 1:, 1:]).all()
        assert out[0, 0, 0].tolist() == [4, 6, 6, 4]
        assert out[-1, 0, :, 0].tolist() == [4, 6, 6, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_layout_and_width_do_not_change_a_bit(contractions: Any, kind: str) -> None:
    g = geometry((1, 2), ((1, 1), (2, 0)), groups=2)
    x, w, grad = example(contractions, (9, 4, 6, 19), (6, 2, 3, 3), g)
    a, b, shape = operands(kind, x, w, grad)
    expected = convolve(contractions, kind, a, b, shape, g)

    def channels_last(t: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(t.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    def backwards(t: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(t[..., ::-1, ::-1])[..., ::-1, ::-1]

    for first, second in ((channels_last, backwards), (backwards, channels_last)):
        got = convolve(contractions, kind, first(a), second(b), shape, g, 2)
        assert contractions.same_bits(got, expected)
    if kind != "weight":  # one width more for two of the kernels is enough
        for bits in (128, 512):
            got = convolve(contractions, kind, a, b, shape, g, 2, bits)
            assert contractions.same_bits(got, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_interpreter_agrees(contractions: Any, kind: str) -> None:
    g = geometry(padding=((1, 0), (1, 0)))
    x, w, grad = example(contractions, (1, 2, 2, 3), (2, 2, 2, 2), g)
    x[0, 0, 0, 0] = w[0, 0, 0, 0] = grad[0, 0, 0, 0] = np.inf
    a, b, shape = operands(kind, x, w, grad)
    out = np.zeros(shape, "f4")
    layouts = (contractions.layout_of(t) for t in (a, b, out))
    plan = plan_conv(kind, *layouts, **g, threads=1, vector_bits=128)
    contractions.interpret(plan, [a, b], out)
    assert contractions.same_bits(out, defined(contractions, kind, x, w, grad, g))


def test_an_image_has_the_same_bits_in_every_batch(contractions: Any) -> None:
    g = geometry(padding=((1, 1), (1, 1)))
    x, w, _ = example(contractions, (17, 9, 5, 5), (11, 9, 3, 3), g)
    whole = convolve(contractions, "forward", x, w, (17, 11, 5, 5), g, 2)
    for count in (1, 2, 8):
        part = convolve(contractions, "forward", x[:count], w, (count, 11, 5, 5), g)
        assert contractions.same_bits(part, whole[:count].copy())


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_random_geometries(contractions: Any, rank: int) -> None:
    rng = np.random.default_rng(rank)

    def pick(top: int, low: int = 1) -> int:
        return int(rng.integers(low, top))

    def every(top: int) -> tuple[int, ...]:
        return tuple(pick(top) for _ in range(rank))

    most = {1: (70, 6), 2: (18, 5), 3: (8, 4)}[rank]
    done = 0
    while done < 15:
        depthwise = pick(4) == 1
        groups = pick(20) if depthwise else pick(3)
        inner, outer = (1, pick(3)) if depthwise else (pick(6), pick(20))
        g = geometry(every(4), tuple((pick(3, 0), pick(3, 0)) for _ in range(rank)), every(3),
                     groups)  # fmt: skip
        x_shape = (pick(6), inner * groups, *every(most[0]))
        w_shape = (outer * groups, inner, *every(most[1]))
        if min(output_size(np.empty(x_shape, "u1"), np.empty(w_shape, "u1"), g)) < 1:
            continue
        done += 1
        dtype = ("f32", "f32", "bf16", "f16")[pick(4, 0)]
        x, w, grad = example(contractions, x_shape, w_shape, g, dtype, seed=done)
        for kind in KINDS:
            a, b, shape = operands(kind, x, w, grad)
            got = convolve(contractions, kind, a, b, shape, g, (1, 2, 3, 5)[pick(4, 0)])
            expected = defined(contractions, kind, x, w, grad, g)
            assert contractions.same_bits(got, expected), (kind, x_shape, w_shape, g, dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_no_term_in_depthwise(contractions: Any, kind: str) -> None:
    g = geometry((1, 2), ((1, 1), (1, 1)), groups=11)
    rng = np.random.default_rng(8)
    x, w, grad = example(contractions, (2, 11, 6, 8), (11, 1, 3, 3), g)
    x, w, grad = (contractions.special(rng, t, 0.1) for t in (x, w, grad))
    a, b, shape = operands(kind, x, w, grad)
    got = convolve(contractions, kind, a, b, shape, g, 2)
    assert contractions.same_bits(got, defined(contractions, kind, x, w, grad, g))


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_of_zero(contractions: Any, kind: str) -> None:
    for x_shape, w_shape, g in (
        ((0, 2, 4, 4), (3, 2, 3, 3), geometry()),
        ((2, 0, 4, 4), (3, 0, 3, 3), geometry()),
        ((2, 2, 4, 4), (0, 2, 3, 3), geometry()),
        ((2, 2, 0, 4), (3, 2, 1, 3), geometry(padding=((1, 1), (1, 1)))),
        ((2, 2, 2, 2), (3, 2, 3, 3), geometry()),  # no pixels
    ):
        x, w, grad = example(contractions, x_shape, w_shape, g)
        a, b, shape = operands(kind, x, w, grad)
        got = convolve(contractions, kind, a, b, shape, g, 2)
        assert contractions.same_bits(got, np.zeros(shape, "f4")), (x_shape, w_shape)


def channel(
    k: Builder, image: Operand, row: Operand, pointers: Sequence[Pointer], sizes: Sequence[Operand]
) -> list[Operand]:
    """The bias of a channel, and where it begins."""
    at = k.mul(k.add(k.mul(image, sizes[0]), row), sizes[1])
    return [k.load(pointers[0], row), at]


def biased(
    k: Builder, value: Operand, at: Indices, pointers: Sequence[Pointer], ahead: Sequence[Operand]
) -> Operand:
    """relu(value + bias) + residual; value + bias is stored, too."""
    place = k.add(ahead[1], at[2])
    total = k.add(value, ahead[0])
    k.store(pointers[2], place, total)
    return k.add(k.maximum(total, k.const(0, value.dtype)), k.load(pointers[1], place))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_rides_on_the_result(contractions: Any, case: Any, kind: str) -> None:
    rng = np.random.default_rng(9)
    x, w, grad = example(contractions, *case)
    w = np.where(rng.random(w.shape) < 0.01, np.float32(np.inf), w)  # padding is computed again
    a, b, shape = operands(kind, x, w, grad)
    bias, residual = rng.standard_normal(shape[1]), rng.standard_normal(shape)
    bias, residual = bias.astype("f4"), residual.astype("f4")
    pixels = math.prod(shape[2:])
    float32 = dtypes.float32
    hook = Hook("biased", biased, (float32,) * 3, 2, channel)
    riders = Riders(result=Fused(hook, (In(2), In(3), In(4)), (shape[1], pixels)))
    plain = convolve(contractions, kind, a, b, shape, case[2], 2)
    layouts = [contractions.layout_of(t) for t in (a, b, plain)]
    takes = takes_riders(kind, *layouts, **case[2])
    assert takes or kind != "forward"
    for threads in (1, 3):
        out, beside = np.full(shape, 3, "f4"), np.full(shape, 5, "f4")
        if not takes:
            with pytest.raises(CompileError, match="ask takes_riders first"):
                plan_conv(kind, *layouts, **case[2], threads=threads, riders=riders)
            continue
        plan = plan_conv(kind, *layouts, **case[2], threads=threads, riders=riders)
        contractions.run(plan, [a, b, bias, residual, beside], out, threads)
        total = plain + bias.reshape(-1, *(1,) * (len(shape) - 2))
        assert contractions.same_bits(beside, total)
        assert contractions.same_bits(out, np.maximum(total, np.float32(0)) + residual)


def test_mistakes() -> None:
    f32 = dtypes.float32
    x, w = contiguous(f32, (2, 4, 5, 5)), contiguous(f32, (6, 4, 3, 3))
    out = contiguous(f32, (2, 6, 3, 3))
    plain = ((1, 1), ((0, 0), (0, 0)), (1, 1), 1, 1)
    with pytest.raises(ShapeError, match=r"output \(2, 6, 4, 3\).*an output of shape \(2, 6, 3, 3"):
        plan_conv("forward", x, w, contiguous(f32, (2, 6, 4, 3)), *plain)
    with pytest.raises(ShapeError, match=r"input channels = groups \* weight.shape\[1\]"):
        plan_conv("input", out, w, contiguous(f32, (2, 3, 5, 5)), *plain)
    with pytest.raises(ShapeError, match="with one to three spatial axes"):
        plan_conv("weight", contiguous(f32, (6, 3, 3)), x, w, *plain)
    with pytest.raises(ShapeError, match=r"got stride \(0, 1\), .* the others at least 1"):
        plan_conv("forward", x, w, out, (0, 1), *plain[1:])
    with pytest.raises(ShapeError, match="expected a contiguous one"):
        plan_conv("forward", x, w, out._replace(strides=(54, 1, 18, 6)), *plain)
    with pytest.raises(DTypeError, match="convert the operands to one dtype first"):
        plan_conv("forward", x, contiguous(dtypes.float64, w.shape), out, *plain)
