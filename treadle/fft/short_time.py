"""Spectrograms: ``stft`` and its inverse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.base.errors import ShapeError
from treadle.fft.transforms import fft, ifft, irfft, rfft
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.assembly import unfold
from treadle.tensor.complex_numbers import view_as_real
from treadle.tensor.creation import arange, ones, zeros
from treadle.tensor.handle import Handle
from treadle.tensor.joining import pad
from treadle.tensor.movement import node_of, transpose
from treadle.tensor.reduction import any as any_of
from treadle.tensor.selection import index_add

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor


def _window(name: str, window: Tensor | None, n_fft: int, win_length: int, like: Tensor) -> Tensor:
    """The window in the middle of ``n_fft`` samples."""
    if not 0 < win_length <= n_fft:
        raise located(ValueError(
            f"{name}: got win_length={win_length} and n_fft={n_fft}; it must lie in 1 to n_fft"
        ))  # fmt: skip
    real = like.dtype.to_real()
    weights = ones(win_length, dtype=real) if window is None else window
    if tuple(weights.shape) != (win_length,):
        raise located(ShapeError(
            f"{name}: got a window of shape {tuple(weights.shape)}; it must have win_length = "
            f"{win_length} elements"
        ))  # fmt: skip
    left = (n_fft - win_length) // 2
    return pad(weights, (left, n_fft - win_length - left))


def stft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, pad_mode: str = "reflect",
    normalized: bool = False, onesided: bool | None = None, return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:  # fmt: skip
    """The transforms of windows of a signal: (..., time) -> (..., frequencies, frames).

    Frames of ``n_fft`` samples begin every ``hop_length`` (``n_fft // 4``) samples, are weighed by
    ``window`` and transformed; with ``center`` frame t is centred at t * hop_length, the signal
    being continued by ``pad_mode``. ``onesided`` keeps half (the default for real signals),
    ``normalized`` divides by sqrt(n_fft). With ``return_complex=False`` the parts are a last
    dimension.
    """
    shape = node_of("stft", input).shape
    hop = n_fft // 4 if hop_length is None else hop_length
    x = input if len(shape) == 2 else input.unsqueeze(0)
    if len(shape) not in (1, 2) or n_fft < 1 or hop < 1:
        raise located(ShapeError(
            f"stft: got a tensor of shape {shape}, n_fft={n_fft} and hop_length={hop}; it takes "
            f"one signal or a batch, and positive numbers"
        ))  # fmt: skip
    weights = _window("stft", window, n_fft, n_fft if win_length is None else win_length, x)
    is_complex = x.dtype.kind == "c" or weights.dtype.kind == "c"
    if return_complex is None and not is_complex:
        raise located(ValueError(
            "stft: say return_complex=True (or False, for real and imaginary parts as a last "
            "dimension)"
        ))  # fmt: skip
    if center:
        x = _padded(x, n_fft // 2, pad_mode)
    if x.shape[-1] < n_fft:
        raise located(ShapeError(
            f"stft: got a signal of {shape[-1]} samples and n_fft={n_fft}; it must have at least "
            f"as many"
        ))  # fmt: skip
    frames = a.mul(unfold(x, -1, n_fft, hop), weights)
    half = not is_complex if onesided is None else onesided
    norm = "ortho" if normalized else None
    out = transpose((rfft if half else fft)(frames, norm=norm), -1, -2)
    out = out if len(shape) == 2 else out.squeeze(0)
    return out if return_complex or return_complex is None else view_as_real(out)


def _padded(x: Tensor, width: int, mode: str) -> Tensor:
    """A batch of signals continued at both ends."""
    if x.dtype.kind == "c":
        from treadle.tensor.complex_numbers import complex as join

        return join(_padded(x.real, width, mode), _padded(x.imag, width, mode))
    return pad(x.unsqueeze(0), (width, width), mode=mode).squeeze(0)


def istft(
    input: Tensor, n_fft: int, hop_length: int | None = None, win_length: int | None = None,
    window: Tensor | None = None, center: bool = True, normalized: bool = False,
    onesided: bool | None = None, length: int | None = None, return_complex: bool = False,
) -> Tensor:  # fmt: skip
    """The signal whose ``stft`` is nearest to ``input``.

    That is the sum of the frames times the window over the sum of the windows' squares.

    Shapes: (..., frequencies, frames) -> (..., time). Raises where the windows leave a sample
    uncovered.
    """
    shape = node_of("istft", input).shape
    hop = n_fft // 4 if hop_length is None else hop_length
    x = input if len(shape) == 3 else input.unsqueeze(0)
    half = (x.shape[-2] != n_fft) if onesided is None else onesided
    wanted = n_fft // 2 + 1 if half else n_fft
    if len(shape) not in (2, 3) or input.dtype.kind != "c" or shape[-2] != wanted:
        raise located(ShapeError(
            f"istft: got a tensor of shape {shape} and dtype {input.dtype.name} with n_fft="
            f"{n_fft}; it takes complex (..., {wanted}, frames)"
        ))  # fmt: skip
    weights = _window("istft", window, n_fft, n_fft if win_length is None else win_length, x)
    norm = "ortho" if normalized else None
    spectra = transpose(x, -1, -2)
    frames = ifft(spectra, norm=norm) if return_complex else irfft(spectra, n_fft, norm=norm)
    batch, count = frames.shape[0], frames.shape[1]
    total = n_fft + hop * (count - 1)
    at = (arange(count).unsqueeze(1) * hop + arange(n_fft)).reshape(-1)
    flat = a.mul(frames, weights).reshape(batch, -1)
    signal = index_add(zeros(batch, total, dtype=flat.dtype), 1, at, flat)
    squares = a.mul(weights, weights).expand(count, n_fft).reshape(-1)
    cover = index_add(zeros(total, dtype=squares.dtype), 0, at, squares)
    begin = n_fft // 2 if center else 0
    end = begin + length if length is not None else total - begin if center else total
    signal, cover = signal[:, begin : min(end, total)], cover[begin : min(end, total)]
    if _uncovered(cover):
        raise located(ValueError(
            "istft: got a window and a hop_length that leave samples uncovered; take a shorter "
            "hop_length or another window"
        ))  # fmt: skip
    out = a.div(signal, cover)
    if end > total:
        out = pad(out, (0, end - total))
    return out if len(shape) == 3 else out.squeeze(0)


def _uncovered(cover: Tensor) -> bool:
    return bool(any_of(a.lt(cover.detach().abs(), 1e-11)).item())


class Methods(Handle):
    """The functions of this module as methods of tensors."""

    __slots__ = ()

    stft, istft = stft, istft


__all__ = ["istft", "stft"]
