"""Convolutions and their gradients against their definition, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.codegen.conv import plan_conv
from treadle.ir.launch import contiguous

KINDS = ("forward", "input", "weight")
Geometry = dict[str, Any]


def geometry(
    stride: Any = (1, 1), padding: Any = ((0, 0), (0, 0)), dilation: Any = (1, 1), groups: int = 1
) -> Geometry:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def output_size(x: np.ndarray, w: np.ndarray, g: Geometry) -> tuple[int, ...]:
    sizes = [
        (x.shape[2 + a] + sum(g["padding"][a]) - g["dilation"][a] * (w.shape[2 + a] - 1) - 1)
        // g["stride"][a] + 1
        for a in (0, 1)
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


def window(x: np.ndarray, tap: tuple[int, int], count: Any, stride: Any, dilation: Any) -> Any:
    """The elements (or their presence) under one tap, for every pixel."""
    h, w = (tap[a] * dilation[a] for a in (0, 1))
    return x[..., h : h + (count[0] - 1) * stride[0] + 1 : stride[0],
             w : w + (count[1] - 1) * stride[1] + 1 : stride[1]]  # fmt: skip


def padded(x: np.ndarray, g: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The padded image and where it is not padding."""
    there = np.pad(np.ones(x.shape[2:], bool), g["padding"])
    out = np.zeros((*x.shape[:2], *there.shape), x.dtype)
    out[:, :, there] = x.reshape(*x.shape[:2], -1)
    return out, there


def forward(c: Any, x: np.ndarray, w: np.ndarray, g: Geometry) -> np.ndarray:
    n, outputs, *size = output_size(x, w, g)
    inner, (kh, kw) = w.shape[1], w.shape[2:]
    image, there = padded(x, g)
    grouped = image.reshape(n, g["groups"], inner, *image.shape[2:])
    weights = w.reshape(g["groups"], -1, inner, kh, kw)

    def terms(k: int) -> Any:
        tap, channel = divmod(k, inner)
        at = divmod(tap, kw)
        elements = window(grouped[:, :, channel], at, size, g["stride"], g["dilation"])
        present = window(there, at, size, g["stride"], g["dilation"])
        return weights[:, :, channel, *at, None, None], elements[:, :, None], present

    shape = (n, g["groups"], outputs // g["groups"], *size)
    return c.contract(terms, kh * kw * inner, shape, x.dtype).reshape(n, outputs, *size)


def input_gradient(
    c: Any, grad: np.ndarray, w: np.ndarray, shape: tuple[int, ...], g: Geometry
) -> np.ndarray:
    n, _, *size = shape
    groups, inner, (kh, kw) = g["groups"], w.shape[1], w.shape[2:]
    per_group = grad.shape[1] // groups
    # Every result, reached from all sides: grad_out spread by the stride in a wide frame.
    margin = [(w.shape[2 + a] - 1) * g["dilation"][a] for a in (0, 1)]
    frame = np.zeros((n, *grad.shape[1:2], *(size[a] + sum(g["padding"][a]) + 2 * margin[a]
                                              for a in (0, 1))), grad.dtype)  # fmt: skip
    there = np.zeros(frame.shape[2:], bool)
    spread = [
        slice(margin[a], margin[a] + (grad.shape[2 + a] - 1) * g["stride"][a] + 1, g["stride"][a])
        for a in (0, 1)
    ]
    frame[:, :, spread[0], spread[1]] = grad
    there[spread[0], spread[1]] = True
    grouped = frame.reshape(n, groups, per_group, *frame.shape[2:])
    weights = w.reshape(groups, per_group, inner, kh, kw)

    def terms(k: int) -> Any:
        tap, channel = divmod(k, per_group)
        at = divmod(tap, kw)
        first = [
            g["padding"][a][0] + margin[a] - at[a] * g["dilation"][a] for a in (0, 1)
        ]  # fmt: skip
        cut = tuple(slice(first[a], first[a] + size[a]) for a in (0, 1))
        elements = grouped[:, :, channel, cut[0], cut[1]]
        return weights[:, channel, :, *at, None, None], elements[:, :, None], there[cut]

    result = (n, groups, inner, *size)
    return c.contract(terms, kh * kw * per_group, result, grad.dtype).reshape(shape)


def weight_gradient(
    c: Any, grad: np.ndarray, x: np.ndarray, shape: tuple[int, ...], g: Geometry
) -> np.ndarray:
    outputs, inner, kh, kw = shape
    n, size = grad.shape[0], grad.shape[2:]
    image, there = padded(x, g)
    grouped = image.reshape(n, g["groups"], inner, *image.shape[2:])
    grads = grad.reshape(n, g["groups"], -1, *size)

    def terms(k: int) -> Any:
        image_index, pixel = divmod(k, size[0] * size[1])
        at = divmod(pixel, size[1])
        elements = window(grouped[image_index], at, (kh, kw), g["dilation"], g["stride"])
        present = window(there, at, (kh, kw), g["dilation"], g["stride"])
        return grads[image_index, :, :, *at, None, None, None], elements[:, None], present

    shape5 = (g["groups"], outputs // g["groups"], inner, kh, kw)
    return c.contract(terms, n * size[0] * size[1], shape5, grad.dtype).reshape(shape)


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


def test_random_geometries(contractions: Any) -> None:
    rng = np.random.default_rng(6)
    done = 0
    while done < 25:
        groups = int(rng.integers(1, 3))
        pick = lambda top, low=1: int(rng.integers(low, top))  # noqa: E731
        g = geometry(
            (pick(4), pick(4)), ((pick(3, 0), pick(3, 0)), (pick(3, 0), pick(3, 0))),
            (pick(3), pick(3)), groups,
        )  # fmt: skip
        inner, outer = pick(4), pick(6)
        x_shape = (pick(11), inner * groups, pick(14), pick(20))
        w_shape = (outer * groups, inner, pick(4), pick(4))
        size = output_size(np.empty(x_shape, "u1"), np.empty(w_shape, "u1"), g)
        if min(size) < 1:
            continue
        done += 1
        x, w, grad = example(contractions, x_shape, w_shape, g, seed=done)
        for kind in KINDS:
            a, b, shape = operands(kind, x, w, grad)
            got = convolve(contractions, kind, a, b, shape, g, pick(4))
            expected = defined(contractions, kind, x, w, grad, g)
            assert contractions.same_bits(got, expected), (kind, x_shape, w_shape, g)


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


def test_mistakes() -> None:
    f32 = dtypes.float32
    x, w = contiguous(f32, (2, 4, 5, 5)), contiguous(f32, (6, 4, 3, 3))
    out = contiguous(f32, (2, 6, 3, 3))
    plain = ((1, 1), ((0, 0), (0, 0)), (1, 1), 1, 1)
    with pytest.raises(ShapeError, match=r"output \(2, 6, 4, 3\).*an output of shape \(2, 6, 3, 3"):
        plan_conv("forward", x, w, contiguous(f32, (2, 6, 4, 3)), *plain)
    with pytest.raises(ShapeError, match=r"input channels = groups \* weight.shape\[1\]"):
        plan_conv("input", out, w, contiguous(f32, (2, 3, 5, 5)), *plain)
    with pytest.raises(ShapeError, match="expected four dimensions each"):
        plan_conv("weight", contiguous(f32, (6, 3, 3)), x, w, *plain)
    with pytest.raises(ShapeError, match=r"got stride \(0, 1\), .* the others at least 1"):
        plan_conv("forward", x, w, out, (0, 1), *plain[1:])
    with pytest.raises(ShapeError, match="expected a contiguous one"):
        plan_conv("forward", x, w, out._replace(strides=(54, 1, 18, 6)), *plain)
    with pytest.raises(DTypeError, match="convert the operands to one dtype first"):
        plan_conv("forward", x, contiguous(dtypes.float64, w.shape), out, *plain)
