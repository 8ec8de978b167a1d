"""Fourier transforms, by NumPy's pocketfft.

``norm`` is NumPy's: "backward" scales the inverse by 1/n, "forward" the other, "ortho" both by
1/sqrt(n). So the transpose of a transform is the opposite one with the opposite norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log2
from typing import Any

from treadle.base import dtypes
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.ir.node import Node, Type, type_of
from treadle.ir.op import LINEAR, NEXT_AXES, Cost, Library, Op, Sample
from treadle.ops.complex import REALS, as_complex, as_real, part
from treadle.ops.elementwise import full_like, mul
from treadle.ops.movement import concatenate, slice_, zeros_of
from treadle.ops.registry import check_dtype, floats, refuses, register

OPPOSITE = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _cost(inputs: Sequence[Type], out: Any, attrs: dict[str, Any]) -> Cost:
    shape = max(inputs[0], out, key=lambda t: t.size).shape
    count = max(prod(shape[a] for a in attrs["axes"]), 2)
    return Cost(int(5 * prod(shape) * log2(count)), inputs[0].nbytes + out.nbytes)


_SHARED: dict[str, Any] = {
    "family": "fft", "traits": frozenset({"fft", "holds_complex"}), "residuals": (), "cost": _cost,
    "jvp": LINEAR, "batch": NEXT_AXES,
}  # fmt: skip


def _samples(real: bool, **attrs: Any) -> Iterable[Sample]:
    for seed, (shape, axes) in enumerate((((6,), (0,)), ((3, 5), (1,)), ((2, 4, 3), (0, 2)))):
        for norm in OPPOSITE:
            x = floats(*shape, seed=seed)
            if not real:
                x = x + 1j * floats(*shape, seed=seed + 9)
            yield Sample((x,), {"axes": axes, "norm": norm, **attrs})


# --- complex to complex -------------------------------------------------------------------------


def _c2c_call(x: Any, axes: Any, norm: Any, forward: bool) -> Any:
    return (np.fft.fftn if forward else np.fft.ifftn)(x, axes=axes, norm=norm)


def _c2c_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    check_dtype("fft", types[0], dtypes.COMPLEX)
    return types[0]


def _c2c_back(g: Node, n: Node) -> Node:
    norm = OPPOSITE[n.attrs["norm"]]
    return fft_c2c(g, axes=n.attrs["axes"], norm=norm, forward=not n.attrs["forward"])


fft_c2c: Op = register(
    Op(
        name="fft_c2c", infer=_c2c_infer, gradient=(_c2c_back,), lower=Library(_c2c_call),
        errors=lambda: refuses("fft", floats(6), axes=(0,), norm="backward", forward=True),
        reference=_c2c_call, dtypes=dtypes.COMPLEX,
        samples=lambda: [s for forward in (True, False) for s in _samples(False, forward=forward)],
        doc="the Fourier transform (or its inverse) along some axes", **_SHARED,
    )
)  # fmt: skip

# --- real to complex ----------------------------------------------------------------------------


def _r2c_call(x: Any, axes: Any, norm: Any) -> Any:
    return np.fft.rfftn(x, axes=axes, norm=norm)


def _resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _r2c_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    kind, last = types[0], attrs["axes"][-1]
    check_dtype("rfft", kind, REALS)
    shape = _resized(kind.shape, last, kind.shape[last] // 2 + 1)
    return type_of(kind.dtype.to_complex(), shape, kind.device)


def _r2c_back(g: Node, n: Node) -> Node:
    """The real part of the other transform of what is there, with zeros for what is not."""
    last, size = n.attrs["axes"][-1], n.inputs[0].shape[n.attrs["axes"][-1]]
    missing = size - g.shape[last]
    if missing:
        g = concatenate(g, zeros_of(type_of(g.dtype, _resized(g.shape, last, missing))), axis=last)
    norm = OPPOSITE[n.attrs["norm"]]
    return part(fft_c2c(g, axes=n.attrs["axes"], norm=norm, forward=False), 0)


fft_r2c: Op = register(
    Op(
        name="fft_r2c", infer=_r2c_infer, gradient=(_r2c_back,), lower=Library(_r2c_call),
        errors=lambda: refuses("rfft", np.arange(6), axes=(0,), norm="backward"),
        reference=_r2c_call, dtypes=REALS, samples=lambda: _samples(True),
        doc="the Fourier transform of real numbers: the half of it that tells the other", **_SHARED,
    )
)  # fmt: skip

# --- complex to real ----------------------------------------------------------------------------


def _c2r_call(x: Any, axes: Any, norm: Any, size: int) -> Any:
    return np.fft.irfftn(x, s=[*(x.shape[a] for a in axes[:-1]), size], axes=axes, norm=norm)


def _c2r_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    kind, last = types[0], attrs["axes"][-1]
    check_dtype("irfft", kind, dtypes.COMPLEX)
    shape = _resized(kind.shape, last, attrs["size"])
    return type_of(kind.dtype.to_real(), shape, kind.device)


def _c2r_back(g: Node, n: Node) -> Node:
    """The transform of g, twice where an element stands for its mirror image too."""
    axes, size, shape = n.attrs["axes"], n.attrs["size"], n.inputs[0].shape
    half = fft_r2c(g, axes=axes, norm=OPPOSITE[n.attrs["norm"]])
    last, rank = axes[-1], len(shape)
    count = size // 2 + 1
    middle = (size - 1) // 2  # 1..middle have a mirror image

    def span(start: int, length: int) -> Node:
        starts = _resized((0,) * rank, last, start)
        return slice_(half, starts=starts, sizes=_resized(shape, last, length), steps=(1,) * rank)

    doubled = as_real(span(1, middle))
    doubled = as_complex(mul(doubled, full_like(doubled, 2)))
    pieces = [span(0, 1), doubled]
    if count > middle + 1:
        pieces.append(span(count - 1, 1))
    return concatenate(*pieces, axis=last)


fft_c2r: Op = register(
    Op(
        name="fft_c2r", infer=_c2r_infer, gradient=(_c2r_back,), lower=Library(_c2r_call),
        errors=lambda: refuses("irfft", floats(4), axes=(0,), norm="backward", size=6),
        reference=_c2r_call, dtypes=dtypes.COMPLEX,
        samples=lambda: (
            Sample(
                (floats(*shape) + 1j * floats(*shape, seed=1),),
                {"axes": axes, "norm": norm, "size": size},
            )
            for norm in OPPOSITE
            for shape, axes, size in (((4,), (0,), 6), ((2, 3), (1,), 5), ((3, 4), (0, 1), 7))
        ),
        doc="the real numbers whose Fourier transform has this half", **_SHARED,
    )
)  # fmt: skip

__all__ = ["OPPOSITE", "fft_c2c", "fft_c2r", "fft_r2c"]
