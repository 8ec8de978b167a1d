"""Sums of products: matmul, and convolution with its two gradients.

Convolution is three primitives, each linear in both operands, whose gradients are again among the
three: with ``y = conv_forward(x, w)``

    <g, conv_forward(x, w)> = <conv_input(g, w), x> = <conv_weight(g, x), w>

for every g in the shape of y. Shapes are x (N, C, *spatial), w (O, C / groups, *window) and
g (N, O, *spatial), with one, two or three spatial axes; ``stride``, ``padding`` and ``dilation``
have an entry for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from treadle.base.dtypes import DType, from_numpy
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, prod
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import MULTILINEAR, Contraction, Cost, ErrorSample, Gradient, Op, Sample
from treadle.ops.movement import expand, permute, reshape
from treadle.ops.registry import FLOATS, NUMERIC, check_dtype, floats, register, rng


def _check_operands(name: str, types: Sequence[Type], allowed: Sequence[DType], ndim: int) -> None:
    """Both operands have one allowed dtype and ``ndim`` axes."""
    a, b = types
    check_dtype(name, a, allowed)
    if a.dtype is not b.dtype:
        raise DTypeError(
            f"{name}: got dtypes {a.dtype.name} and {b.dtype.name}; they must be equal here "
            f"(convert one of them first)"
        )
    if a.ndim != ndim or b.ndim != ndim:
        raise ShapeError(
            f"{name}: got shapes {a.shape} and {b.shape}; both must have {ndim} dimensions here "
            f"(reshape them first)"
        )


def _widened(x: np.ndarray) -> np.ndarray:
    """References add floats in float64; integers wrap in their own dtype."""
    return x.astype(np.float64) if from_numpy(x.dtype).is_floating_point else x


def _moved(inputs: Sequence[Type], out: Type) -> int:
    return sum(t.nbytes for t in inputs) + out.nbytes


# --- matmul ---------------------------------------------------------------------------------------


def _matmul_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    a, b = types
    _check_operands("matmul", types, NUMERIC, 2 if len(a.shape) == 2 else 3)
    *batch, m, k = a.shape
    if k != b.shape[-2]:
        raise ShapeError(
            f"matmul: got {a.shape} @ {b.shape}; the inner sizes {k} and {b.shape[-2]} must be "
            f"equal"
        )
    if batch != list(b.shape[:-2]):
        raise ShapeError(
            f"matmul: got {a.shape} @ {b.shape}; the batch sizes {batch[0]} and {b.shape[0]} must "
            f"be equal here (expand one of them first)"
        )
    return type_of(a.dtype, (*batch, m, b.shape[-1]), a.device)


def _transposed(x: Node) -> Node:
    *leading, m, n = range(len(x.shape))
    return permute(x, axes=(*leading, n, m))


def _is_transposed(x: Node) -> bool:
    axes = tuple(range(len(x.shape)))
    return x.op is permute and x.attrs["axes"] == (*axes[:-2], axes[-1], axes[-2])


def _left_adjoint(g: Node, n: Node) -> Node:
    """The adjoint of a view of a transpose lies as what is viewed: a weight's as the weight.

    The factors of its products have changed their places, which changes no bit.
    """
    a, b = n.inputs
    if _is_transposed(a):
        return _transposed(matmul(b, _transposed(g)))
    return matmul(g, _transposed(b))


def _right_adjoint(g: Node, n: Node) -> Node:
    a, b = n.inputs
    if _is_transposed(b):
        return _transposed(matmul(_transposed(g), a))
    return matmul(_transposed(a), g)


def _matmul_batch(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
    """More products; or more rows (of the transpose: columns) where one factor is the same."""
    a, b = inputs
    if not batched[0]:
        return _transposed(_more_rows(_transposed(b), _transposed(a)))
    if not batched[1]:
        return _more_rows(a, b)
    a, b = (reshape(x, shape=(prod(x.shape[:-2]), *x.shape[-2:])) for x in inputs)
    return reshape(matmul(a, b), shape=(size, *n.shape))


def _more_rows(a: Node, b: Node) -> Node:
    """a (size, *batch, m, k) times b (*batch, k, n)."""
    size, *batch, m, k = a.shape
    rows = permute(a, axes=(1, 0, 2, 3)) if batch else a
    product = matmul(reshape(rows, shape=(*batch, size * m, k)), b)
    product = reshape(product, shape=(*batch, size, m, b.shape[-1]))
    return permute(product, axes=(1, 0, 2, 3)) if batch else product


def _matmul_cost(inputs: Sequence[Type], out: Any, attrs: dict[str, Any]) -> Cost:
    return Cost(2 * out.size * inputs[0].shape[-1], _moved(inputs, out))


def _matmul_samples() -> Iterable[Sample]:
    sizes = (
        (1, 2, 3, 4), (3, 5, 7, 2), (2, 1, 9, 1), (1, 17, 5, 19), (1, 1, 1, 1),
        (0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (1, 2, 3, 0), (1, 2, 530, 3),
    )  # fmt: skip
    for seed, (batch, m, k, n) in enumerate(sizes):
        yield Sample((floats(batch, m, k, seed=seed), floats(batch, k, n, seed=seed + 50)))
    yield Sample((floats(6, 5), floats(5, 4)))
    integers = rng(7).integers(-9, 9, (2, 4, 6))
    yield Sample((integers, integers.reshape(2, 6, 4)))


def _matmul_errors() -> Iterable[ErrorSample]:
    yield ErrorSample(
        (floats(64, 512), floats(256, 10)), {}, ShapeError,
        "matmul: got (64, 512) @ (256, 10); the inner sizes 512 and 256 must be equal",
    )  # fmt: skip
    yield ErrorSample(
        (floats(2, 3, 4), floats(2, 5, 6)), {}, ShapeError,
        "matmul: got (2, 3, 4) @ (2, 5, 6); the inner sizes 4 and 5 must be equal",
    )  # fmt: skip
    yield ErrorSample(
        (floats(2, 3, 4), floats(3, 4, 5)), {}, ShapeError,
        "matmul: got (2, 3, 4) @ (3, 4, 5); the batch sizes 2 and 3 must be equal here",
    )  # fmt: skip
    yield ErrorSample(
        (floats(3, 4), floats(1, 4, 5)), {}, ShapeError,
        "matmul: got shapes (3, 4) and (1, 4, 5); both must have 2 dimensions here",
    )  # fmt: skip
    yield ErrorSample(
        (floats(1, 2, 2), floats(1, 2, 2).astype(np.float64)), {}, DTypeError,
        "matmul: got dtypes float32 and float64; they must be equal here",
    )  # fmt: skip
    yield ErrorSample(
        (floats(1, 2, 2) > 0, floats(1, 2, 2) > 0), {}, DTypeError,
        "matmul: got an operand of dtype bool",
    )  # fmt: skip


matmul: Op = register(
    Op(
        name="matmul", family="contraction", traits=frozenset({"contraction"}),
        infer=_matmul_infer,
        gradient=(_left_adjoint, _right_adjoint), jvp=MULTILINEAR, batch=_matmul_batch,
        residuals=(0, 1), lower=Contraction("matmul"),
        reference=lambda a, b: np.matmul(_widened(a), _widened(b)).astype(a.dtype),
        samples=_matmul_samples, errors=_matmul_errors,
        cost=_matmul_cost, dtypes=NUMERIC,
        doc="out[b, m, n] = sum over k of a[b, m, k] * b[b, k, n] (no b in 2-D); integers wrap",
    )
)  # fmt: skip

# --- convolution ----------------------------------------------------------------------------------


def _check_geometry(name: str, types: Sequence[Type], attrs: dict[str, Any]) -> None:
    """The ranks of the operands; strides, dilations and groups of at least 1, padding of 0."""
    rank = len(attrs["stride"])
    if not 1 <= rank <= 3:
        raise ShapeError(f"{name}: got stride {attrs['stride']}; it takes one to three numbers")
    _check_operands(name, types, FLOATS, 2 + rank)
    for key in ("stride", "dilation"):
        if min(attrs[key]) < 1:
            raise ShapeError(f"{name}: got {key} {attrs[key]}; each must be at least 1")
    if attrs["groups"] < 1:
        raise ShapeError(f"{name}: got groups {attrs['groups']}; it must be at least 1")
    if min(map(min, attrs["padding"])) < 0:
        raise ShapeError(
            f"{name}: got padding {attrs['padding']}; it must not be negative (cut the input "
            f"with a slice instead)"
        )


def _check_channels(name: str, channels: int, weight: Shape, groups: int) -> None:
    if channels != weight[1] * groups:
        raise ShapeError(
            f"{name}: got an input of {channels} channels and a weight of shape {weight}; with "
            f"groups={groups} the weight takes {weight[1]} * {groups} = {weight[1] * groups} "
            f"channels"
        )
    if weight[0] % groups:
        raise ShapeError(
            f"{name}: got a weight of shape {weight}; its {weight[0]} output channels must be "
            f"divisible by groups={groups}"
        )


_AXIS_NAMES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def _out_size(name: str, image: Shape, window: Shape, attrs: dict[str, Any]) -> Shape:
    """floor((size + before + after - dilation * (taps - 1) - 1) / stride) + 1 along each axis."""
    sizes = []
    for axis, what in enumerate(_AXIS_NAMES[len(image)]):
        size, taps, dilation = image[axis], window[axis], attrs["dilation"][axis]
        before, after = attrs["padding"][axis]
        reach = dilation * (taps - 1) + 1
        if taps < 1:
            raise ShapeError(
                f"{name}: got a window of {' x '.join(map(str, window))}; every size must be at "
                f"least 1"
            )
        if size + before + after < reach:
            raise ShapeError(
                f"{name}: the window is larger than the padded input: with dilation {dilation} a "
                f"{what} of {taps} reaches over {reach} elements, the input has {size} + "
                f"{before} + {after}; use a smaller kernel, more padding or a larger input"
            )
        sizes.append((size + before + after - reach) // attrs["stride"][axis] + 1)
    return tuple(sizes)


def _forward_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    x, w = types
    _check_geometry("conv_forward", types, attrs)
    _check_channels("conv_forward", x.shape[1], w.shape, attrs["groups"])
    size = _out_size("conv_forward", x.shape[2:], w.shape[2:], attrs)
    return type_of(x.dtype, (x.shape[0], w.shape[0], *size), x.device)


def _check_adjoint(name: str, g: Shape, outputs: int, size: Shape) -> None:
    if g[1:] != (outputs, *size):
        raise ShapeError(
            f"{name}: got a gradient of shape {g}; the convolution's result has the shape "
            f"{(g[0], outputs, *size)}"
        )


def _input_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    g, w = types
    _check_geometry("conv_input", types, attrs)
    channels = w.shape[1] * attrs["groups"]
    _check_channels("conv_input", channels, w.shape, attrs["groups"])
    size = _out_size("conv_input", attrs["size"], w.shape[2:], attrs)
    _check_adjoint("conv_input", g.shape, w.shape[0], size)
    return type_of(g.dtype, (g.shape[0], channels, *attrs["size"]), g.device)


def _weight_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    g, x = types
    _check_geometry("conv_weight", types, attrs)
    groups, (batch, channels) = attrs["groups"], x.shape[:2]
    if channels % groups or g.shape[1] % groups or batch != g.shape[0]:
        raise ShapeError(
            f"conv_weight: got a gradient of shape {g.shape} and an input of shape {x.shape}; "
            f"their batch sizes must be equal and both channel counts divisible by groups={groups}"
        )
    size = _out_size("conv_weight", x.shape[2:], attrs["window"], attrs)
    _check_adjoint("conv_weight", g.shape, g.shape[1], size)
    return type_of(g.dtype, (g.shape[1], channels // groups, *attrs["window"]), g.device)


def _geometry(node: Node) -> dict[str, Any]:
    """The attributes that all three share."""
    return {key: node.attrs[key] for key in ("stride", "padding", "dilation", "groups")}


def _to_output(image: Node, weight: Node, n: Node) -> Node:
    return conv_forward(image, weight, **_geometry(n))


def _to_image(g: Node, weight: Node, n: Node, size: Shape) -> Node:
    return conv_input(g, weight, **_geometry(n), size=size)


def _to_weight(g: Node, image: Node, n: Node, window: Shape) -> Node:
    return conv_weight(g, image, **_geometry(n), window=window)


def _conv_batch(
    one: tuple[tuple[int, int], ...], all_: tuple[int, int, int]
) -> Callable[..., Node]:
    """The batching rule: examples become images, channels or groups.

    ``one[i] = (axis, to)``: where only operand i has examples they are joined to that axis of it,
    and are found at axis ``to`` of the result. That is so for images, and for channels unless there
    are groups. Else they are groups, joined to the channels of both: the axes ``all_`` of the
    operands and the result.
    """

    def rule(inputs: list[Node], batched: list[bool], size: int, n: Node) -> Node:
        axis, to = one[batched.index(True)]
        groups = n.attrs["groups"]
        if all(batched) or (groups > 1 and (axis or to)):
            stacked = (
                x if has else expand(x, shape=(size, *x.shape))
                for x, has in zip(inputs, batched, strict=True)
            )  # fmt: skip
            operands = [_joined(x, a) for x, a in zip(stacked, all_, strict=False)]
            groups, to = groups * size, all_[2]
        else:
            operands = [_joined(x, axis) if h else x for x, h in zip(inputs, batched, strict=True)]
        result = n.op(*operands, **n.attrs | {"groups": groups})
        shape = result.shape
        apart = reshape(result, shape=(*shape[:to], size, shape[to] // size, *shape[to + 1 :]))
        return permute(apart, axes=(to, *[a for a in range(len(shape) + 1) if a != to]))

    return rule


def _joined(x: Node, axis: int) -> Node:
    """The leading axis made one with ``axis`` of the others."""
    moved = permute(x, axes=(*range(1, axis + 1), 0, *range(axis + 1, len(x.shape))))
    shape = moved.shape
    return reshape(moved, shape=(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))


# References: a sum over the taps of the window, each an einsum over a strided view of the image.


def _taps(
    padded: np.ndarray, window: Shape, out: Shape, stride: Shape, dilation: Shape, groups: int
) -> Iterator[tuple[Any, np.ndarray]]:
    """(a tap as index of the weight, the view (N, groups, C / groups, *out) of what it reads)."""
    batch, channels, *sizes = padded.shape
    grouped = padded.reshape(batch, groups, channels // groups, *sizes)
    for tap in np.ndindex(*window):
        first = [t * d for t, d in zip(tap, dilation, strict=True)]
        cut = tuple(
            slice(f, f + (n - 1) * s + 1, s) for f, n, s in zip(first, out, stride, strict=True)
        )
        yield (..., *tap), grouped[:, :, :, *cut]


def _by_group(x: np.ndarray, axis: int, groups: int) -> np.ndarray:
    """Splits the channel axis into (groups, channels / groups)."""
    shape = x.shape
    split = (*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return _widened(x).reshape(split)


def _forward_reference(
    x: np.ndarray, w: np.ndarray, stride: Shape, padding: Any, dilation: Shape, groups: int
) -> np.ndarray:
    padded = np.pad(_widened(x), ((0, 0), (0, 0), *padding))
    attrs = _attrs(stride, padding, dilation, groups)
    out = _out_size("conv_forward", x.shape[2:], w.shape[2:], attrs)
    weight = _by_group(w, 0, groups)
    total = np.zeros((x.shape[0], groups, w.shape[0] // groups, *out))
    for tap, view in _taps(padded, w.shape[2:], out, stride, dilation, groups):
        total += np.einsum("ngc...,goc->ngo...", view, weight[tap])
    return total.reshape(x.shape[0], w.shape[0], *out).astype(x.dtype)


def _input_reference(
    g: np.ndarray, w: np.ndarray, stride: Shape, padding: Any, dilation: Shape, groups: int,
    size: Shape,
) -> np.ndarray:  # fmt: skip
    spans = [before + n + after for n, (before, after) in zip(size, padding, strict=True)]
    padded = np.zeros((g.shape[0], w.shape[1] * groups, *spans))
    weight, grad = _by_group(w, 0, groups), _by_group(g, 1, groups)
    for tap, view in _taps(padded, w.shape[2:], g.shape[2:], stride, dilation, groups):
        view += np.einsum("ngo...,goc->ngc...", grad, weight[tap])
    cut: Any = tuple(
        slice(before, before + n) for n, (before, _) in zip(size, padding, strict=True)
    )
    return padded[:, :, *cut].astype(g.dtype)


def _weight_reference(
    g: np.ndarray, x: np.ndarray, stride: Shape, padding: Any, dilation: Shape, groups: int,
    window: Shape,
) -> np.ndarray:  # fmt: skip
    padded = np.pad(_widened(x), ((0, 0), (0, 0), *padding))
    grad = _by_group(g, 1, groups)
    total = np.zeros((groups, g.shape[1] // groups, x.shape[1] // groups, *window))

    def flat(t: np.ndarray) -> np.ndarray:
        return t.reshape(*t.shape[:3], prod(t.shape[3:]))

    for tap, view in _taps(padded, window, g.shape[2:], stride, dilation, groups):
        total[tap] = np.einsum("ngop,ngcp->goc", flat(grad), flat(view))
    return total.reshape(g.shape[1], x.shape[1] // groups, *window).astype(g.dtype)


def _attrs(
    stride: Shape = (1, 1),
    padding: Any = ((0, 0), (0, 0)),
    dilation: Shape = (1, 1),
    groups: int = 1,
) -> dict[str, Any]:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


# (shape of x, shape of w, attributes)
_CASES: tuple[tuple[Shape, Shape, dict[str, Any]], ...] = (
    ((2, 3, 5, 6), (4, 3, 3, 2), _attrs()),
    ((1, 2, 7, 6), (3, 2, 3, 3), _attrs(stride=(2, 3), padding=((1, 1), (2, 2)))),
    ((2, 2, 6, 7), (2, 2, 2, 3), _attrs(padding=((2, 0), (0, 1)), dilation=(2, 2))),
    ((2, 4, 4, 4), (6, 2, 3, 3), _attrs(padding=((1, 1), (1, 1)), groups=2)),
    ((1, 3, 5, 5), (3, 1, 3, 3), _attrs(stride=(2, 2), padding=((1, 1), (1, 1)), groups=3)),
    ((2, 3, 4, 5), (2, 3, 1, 1), _attrs(stride=(2, 2))),
    ((1, 1, 1, 1), (1, 1, 1, 1), _attrs()),
    ((1, 2, 3, 3), (2, 2, 3, 3), _attrs(padding=((3, 3), (3, 3)))),
    ((0, 2, 4, 4), (3, 2, 3, 3), _attrs()),
    ((2, 2, 9), (3, 2, 3), _attrs((2,), ((1, 2),), (2,))),
    ((1, 2, 3, 4, 5), (4, 1, 2, 3, 2), _attrs((1, 2, 1), ((0, 0), (1, 1), (1, 0)), (1,) * 3, 2)),
)


def _conv_samples(kind: str) -> Callable[[], Iterable[Sample]]:
    def samples() -> Iterable[Sample]:
        for seed, (x_shape, w_shape, attrs) in enumerate(_CASES):
            x, w = floats(*x_shape, seed=seed), floats(*w_shape, seed=seed + 50)
            size = _out_size(kind, x_shape[2:], w_shape[2:], attrs)
            g = floats(x_shape[0], w_shape[0], *size, seed=seed + 90)
            if kind == "conv_forward":
                yield Sample((x, w), attrs)
            elif kind == "conv_input":
                yield Sample((g, w), attrs | {"size": x_shape[2:]})
            else:
                yield Sample((g, x), attrs | {"window": w_shape[2:]})

    return samples


def _shared_errors(name: str, extra: dict[str, Any]) -> Iterable[ErrorSample]:
    """What is wrong for all three on operands (1, 2, 3, 3), and their dtypes."""
    good = (floats(1, 2, 3, 3), floats(1, 2, 3, 3))
    yield ErrorSample(
        (good[0].astype(np.int32),) * 2, _attrs() | extra, DTypeError,
        f"{name}: got an operand of dtype int32",
    )  # fmt: skip
    yield ErrorSample(
        (good[0], good[1].astype(np.float64)), _attrs() | extra, DTypeError,
        f"{name}: got dtypes float32 and float64; they must be equal here",
    )  # fmt: skip
    yield ErrorSample(
        (floats(2, 3, 3), good[1]), _attrs() | extra, ShapeError,
        f"{name}: got shapes (2, 3, 3) and (1, 2, 3, 3); both must have 4 dimensions here",
    )  # fmt: skip
    for attrs, text in (
        (_attrs(stride=(0, 1)), "stride (0, 1); each must be at least 1"),
        (_attrs(dilation=(1, -1)), "dilation (1, -1); each must be at least 1"),
        (_attrs(groups=0), "groups 0; it must be at least 1"),
        (_attrs(padding=((0, 0), (-1, 0))), "padding ((0, 0), (-1, 0)); it must not be"),
    ):
        yield ErrorSample(good, attrs | extra, ShapeError, f"{name}: got {text}")


def _forward_errors() -> Iterable[ErrorSample]:
    yield from _shared_errors("conv_forward", {})
    for x, w, attrs, text in (
        ((1, 4, 5, 5), (2, 3, 3, 3), _attrs(), "got an input of 4 channels and a weight of shape "
         "(2, 3, 3, 3); with groups=1 the weight takes 3 * 1 = 3 channels"),
        ((1, 4, 5, 5), (3, 2, 3, 3), _attrs(groups=2), "its 3 output channels must be divisible "
         "by groups=2"),
        ((1, 1, 2, 9), (1, 1, 3, 3), _attrs(), "with dilation 1 a height of 3 reaches over 3 "
         "elements, the input has 2 + 0 + 0; use a smaller kernel"),
        ((1, 1, 9, 3), (1, 1, 3, 3), _attrs(dilation=(1, 2), padding=((0, 0), (1, 0))),
         "with dilation 2 a width of 3 reaches over 5 elements, the input has 3 + 1 + 0"),
        ((1, 1, 3, 3), (1, 1, 0, 3), _attrs(), "got a window of 0 x 3; every size must be at "
         "least 1"),
    ):  # fmt: skip
        yield ErrorSample((floats(*x), floats(*w)), attrs, ShapeError, text)


def _input_errors() -> Iterable[ErrorSample]:
    yield from _shared_errors("conv_input", {"size": (5, 5)})
    yield ErrorSample(
        (floats(1, 2, 4, 4), floats(2, 3, 3, 3)), _attrs() | {"size": (5, 5)}, ShapeError,
        "conv_input: got a gradient of shape (1, 2, 4, 4); the convolution's result has the shape "
        "(1, 2, 3, 3)",
    )  # fmt: skip


def _weight_errors() -> Iterable[ErrorSample]:
    yield from _shared_errors("conv_weight", {"window": (1, 1)})
    yield ErrorSample(
        (floats(1, 2, 4, 4), floats(2, 3, 5, 5)), _attrs() | {"window": (2, 2)}, ShapeError,
        "their batch sizes must be equal",
    )  # fmt: skip
    yield ErrorSample(
        (floats(1, 2, 4, 4), floats(1, 3, 5, 5)), _attrs() | {"window": (3, 3)}, ShapeError,
        "conv_weight: got a gradient of shape (1, 2, 4, 4); the convolution's result has the shape "
        "(1, 2, 3, 3)",
    )  # fmt: skip


def _define(
    name: str, infer: Callable[..., Type], gradient: Gradient, reference: Callable[..., Any],
    errors: Callable[[], Iterable[ErrorSample]], taps: Callable[..., tuple[Type, Type]],
    batch: Callable[..., Node], doc: str,
) -> Op:  # fmt: skip
    """One record; ``taps(inputs, out)`` gives the types of the forward result and of the weight."""

    def cost(inputs: Sequence[Type], out: Any, attrs: dict[str, Any]) -> Cost:
        result, weight = taps(*inputs, out)
        return Cost(2 * result.size * prod(weight.shape[1:]), _moved(inputs, out))

    return register(
        Op(
            name=name, family="contraction", traits=frozenset({"contraction"}), infer=infer,
            gradient=gradient, residuals=(0, 1), lower=Contraction(name), reference=reference,
            samples=_conv_samples(name), errors=errors, cost=cost, dtypes=FLOATS, doc=doc,
            jvp=MULTILINEAR, batch=batch,
        )
    )  # fmt: skip


conv_forward = _define(
    "conv_forward", _forward_infer,
    (
        lambda g, n: _to_image(g, n.inputs[1], n, n.inputs[0].shape[2:]),
        lambda g, n: _to_weight(g, n.inputs[0], n, n.inputs[1].shape[2:]),
    ),
    _forward_reference, _forward_errors, lambda x, w, y: (y, w),
    _conv_batch(((0, 0), (0, 1)), (1, 0, 1)),
    "cross-correlation of x (N, C, *spatial) with w (O, C / groups, *window)",
)  # fmt: skip
conv_input = _define(
    "conv_input", _input_infer,
    (
        lambda u, n: _to_output(u, n.inputs[1], n),
        lambda u, n: _to_weight(n.inputs[0], u, n, n.inputs[1].shape[2:]),
    ),
    _input_reference, _input_errors, lambda g, w, x: (g, w),
    _conv_batch(((0, 0), (1, 1)), (1, 0, 1)),
    "the x (N, C, *size) with <g, conv_forward(v, w)> = <x, v> for all v: transposed convolution",
)  # fmt: skip
conv_weight = _define(
    "conv_weight", _weight_infer,
    (
        lambda u, n: _to_output(n.inputs[1], u, n),
        lambda u, n: _to_image(n.inputs[0], u, n, n.inputs[1].shape[2:]),
    ),
    _weight_reference, _weight_errors, lambda g, x, w: (g, w),
    _conv_batch(((1, 0), (1, 1)), (1, 1, 0)),
    "the w (O, C / groups, *window) with <g, conv_forward(x, v)> = <w, v> for all v",
)  # fmt: skip

__all__ = ["conv_forward", "conv_input", "conv_weight", "matmul"]
