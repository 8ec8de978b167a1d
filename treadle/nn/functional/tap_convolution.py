"""Convolutions of integers and of complex numbers, as a sum over the kernel's taps.

The contraction kernels are for floats. Such convolutions are rare; they are a matrix product over
the channels for every tap, added in the order of the taps, with the gradients of those.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from treadle.base.errors import ShapeError
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.contraction import matmul
from treadle.tensor.creation import zeros
from treadle.tensor.joining import flip, pad
from treadle.tensor.tensor import Tensor

Numbers = Sequence[int]
Sides = Sequence[tuple[int, int]]


def by_taps(
    input: Tensor, weight: Tensor, stride: Numbers, sides: Sides, dilation: Numbers, groups: int
) -> Tensor:
    """(N, C, ...) with a weight (O, C / groups, ...) gives (N, O, ...)."""
    batch, channels, out_channels = input.shape[0], input.shape[1], weight.shape[0]
    if channels != weight.shape[1] * groups or out_channels % groups:
        raise located(ShapeError(
            f"conv: got an input of {channels} channels, a weight of shape {tuple(weight.shape)} "
            f"and groups={groups}; the weight must be (O, C / groups, ...), and O divisible by it"
        ))  # fmt: skip
    padded = pad(input, [width for pair in reversed(sides) for width in pair])
    window, sizes = tuple(weight.shape[2:]), tuple(padded.shape[2:])
    outs = tuple(
        max(n - d * (k - 1) - 1, -1) // s + 1
        for n, k, s, d in zip(sizes, window, stride, dilation, strict=True)
    )
    total = zeros(batch, groups, out_channels // groups, prod(outs), dtype=input.dtype)
    for tap in product(*map(range, window)):
        places = tuple(
            slice(at * d, at * d + s * (n - 1) + 1, s)
            for at, n, s, d in zip(tap, outs, stride, dilation, strict=True)
        )
        pixels = padded[(slice(None), slice(None), *places)]
        pixels = pixels.reshape(batch, groups, channels // groups, prod(outs))
        kernel = weight[(slice(None), slice(None), *tap)]
        kernel = kernel.reshape(groups, out_channels // groups, channels // groups)
        total = a.add(total, matmul(kernel, pixels))
    return total.reshape(batch, out_channels, *outs)


def transposed_by_taps(
    input: Tensor, weight: Tensor, stride: Numbers, padding: Numbers, extra: Numbers,
    dilation: Numbers, groups: int,
) -> Tensor:  # fmt: skip
    """The adjoint: (N, C, ...) with a weight (C, O / groups, ...) gives (N, O, ...).

    It is the convolution of the image, spread by the stride with zeros, with the turned kernel.
    """
    window = tuple(weight.shape[2:])
    rank, shape = len(window), tuple(input.shape)
    spread = zeros(
        *shape[:2], *((n - 1) * s + 1 for n, s in zip(shape[2:], stride, strict=True)),
        dtype=input.dtype,
    )  # fmt: skip
    spread[(slice(None), slice(None), *(slice(None, None, s) for s in stride))] = input
    kernel = weight.reshape(groups, shape[1] // groups, weight.shape[1], *window).transpose(1, 2)
    kernel = kernel.reshape(groups * weight.shape[1], shape[1] // groups, *window)
    sides = [
        (d * (k - 1) - p, d * (k - 1) - p + more)
        for d, k, p, more in zip(dilation, window, padding, extra, strict=True)
    ]
    turned = flip(kernel, list(range(2, rank + 2)))
    return by_taps(spread, turned, (1,) * rank, sides, dilation, groups)


__all__ = ["by_taps", "transposed_by_taps"]
