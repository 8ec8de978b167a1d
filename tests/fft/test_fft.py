"""``treadle.fft`` against NumPy's; gradients against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import fft
from treadle.testing.gradients import check_grads

REAL = np.random.default_rng(0).normal(size=(4, 6))
COMPLEX = REAL + 1j * np.random.default_rng(1).normal(size=(4, 6))
OF_REAL = ("rfft", "ihfft", "rfft2", "rfftn")
OF_COMPLEX = ("fft", "ifft", "irfft", "hfft", "fft2", "ifft2", "irfft2", "fftn", "ifftn", "irfftn")


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("name", [*OF_REAL, *OF_COMPLEX])
def test_values(name: str, norm: str | None) -> None:
    array = REAL if name in OF_REAL else COMPLEX
    got = getattr(fft, name)(treadle.tensor(array), norm=norm)
    np.testing.assert_allclose(got.numpy(), getattr(np.fft, name)(array, norm=norm), atol=1e-12)


@pytest.mark.parametrize("n", [3, 6, 9])
def test_sizes_and_strides(n: int) -> None:
    for array in (COMPLEX, COMPLEX.T, COMPLEX[::-1, ::2]):
        x = treadle.tensor(COMPLEX)
        x = {0: x, 1: x.T}.get(int(array is not COMPLEX) + int(array.shape == (4, 3)),
                               x.flip(0)[:, ::2])  # fmt: skip
        np.testing.assert_allclose(fft.fft(x, n, 0).numpy(), np.fft.fft(array, n, 0), atol=1e-12)
    shaped = fft.fftn(treadle.tensor(COMPLEX), s=(n,)).numpy()
    np.testing.assert_allclose(shaped, np.fft.fft(COMPLEX, n), atol=1e-12)


def test_hfftn_and_its_inverse() -> None:
    half = fft.ihfftn(treadle.tensor(REAL))
    np.testing.assert_allclose(fft.hfftn(half, s=REAL.shape).numpy(), REAL, atol=1e-12)


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("name", [*OF_REAL, *OF_COMPLEX])
def test_gradients(name: str, norm: str) -> None:
    def function(x: treadle.Tensor, y: treadle.Tensor) -> treadle.Tensor:
        out = getattr(fft, name)(x if name in OF_REAL else treadle.complex(x, y), norm=norm)
        out = out.real - 2 * out.imag if out.is_complex() else out
        return out + y.sum() * 0.1

    arrays = REAL[:2, :5], COMPLEX.imag[:2, :5]
    parts = [treadle.tensor(a, requires_grad=True) for a in arrays]
    check_grads(function, parts, order=1)


def test_float32_stays() -> None:
    assert fft.fft(treadle.ones(4)).dtype is treadle.complex64
    assert fft.irfft(treadle.ones(3, dtype=treadle.complex64)).dtype is treadle.float32
    assert fft.fft(treadle.arange(4)).dtype is treadle.complex64


def test_frequencies() -> None:
    for n in (1, 4, 5):
        np.testing.assert_allclose(fft.fftfreq(n, 0.5).numpy(), np.fft.fftfreq(n, 0.5))
        np.testing.assert_allclose(fft.rfftfreq(n, 0.5).numpy(), np.fft.rfftfreq(n, 0.5))
        x = np.arange(n * 3).reshape(n, 3)
        for name in ("fftshift", "ifftshift"):
            got = getattr(fft, name)(treadle.tensor(x)).numpy()
            assert (got == getattr(np.fft, name)(x)).all()


def test_a_spectrogram_and_back() -> None:
    signal = treadle.tensor(np.random.default_rng(2).normal(size=(2, 60)))
    window = treadle.hann_window(16, dtype=treadle.float64)
    for options in ({}, {"normalized": True}, {"onesided": False}):
        spectrum = treadle.stft(signal, 16, 4, window=window, return_complex=True, **options)
        back = treadle.istft(spectrum, 16, 4, window=window, length=60, **options)
        np.testing.assert_allclose(back.numpy(), signal.numpy(), atol=1e-12)
    frame = signal[0, 20:36].numpy() * window.numpy()
    plain = treadle.stft(signal[0], 16, 4, window=window, center=False, return_complex=True)
    np.testing.assert_allclose(plain[:, 5].numpy(), np.fft.rfft(frame), atol=1e-12)


@pytest.mark.parametrize(("what", "error", "text"), [
    (lambda: fft.fft(treadle.ones(3), 0), ValueError, "fft: got 0 elements along dimension 0"),
    (lambda: fft.rfft(treadle.ones(3) * 1j), TypeError, "rfft: got a tensor of dtype complex64"),
    (lambda: fft.fft(treadle.ones(3), norm="x"), ValueError, "it is 'backward', 'ortho'"),
    (lambda: fft.fft(treadle.ones(3).half()), TypeError, "fft: got a tensor of dtype float16"),
    (lambda: fft.fftn(treadle.ones(3), dim=(0, 0)), ValueError, "may be named once"),
    (lambda: treadle.stft(treadle.ones(8), 4), ValueError, "say return_complex=True"),
    (lambda: treadle.stft(treadle.ones(2), 8, center=False, return_complex=True), ValueError,
     "got a signal of 2 samples and n_fft=8"),
])  # fmt: skip
def test_errors(what: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        what()
