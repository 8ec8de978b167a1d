"""Numbers in a row against NumPy; PyTorch's switches."""

from __future__ import annotations

import numpy as np
import pytest

import treadle


@pytest.mark.parametrize("length", [0, 1, 2, 7, 12])
@pytest.mark.parametrize(
    "name, reference",
    [("hann", np.hanning), ("hamming", np.hamming), ("blackman", np.blackman),
     ("bartlett", np.bartlett), ("kaiser", lambda n: np.kaiser(n, 12.0))],
)  # fmt: skip
def test_windows(name, reference, length):
    make = getattr(treadle, f"{name}_window")
    found = make(length, periodic=False, dtype=treadle.float64).numpy()
    np.testing.assert_allclose(found, reference(length), atol=1e-12)
    found = make(length, dtype=treadle.float64).numpy()
    expected = reference(length + 1)[:-1] if length > 1 else np.ones(length)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_numbers_in_a_row():
    found = treadle.logspace(-1, 2, 5, base=2, dtype=treadle.float64).numpy()
    np.testing.assert_allclose(found, np.logspace(-1, 2, 5, base=2))
    assert treadle.range(1, 2.5, 0.5).tolist() == [1.0, 1.5, 2.0, 2.5]
    assert treadle.range(3, dtype=treadle.int32).tolist() == [0, 1, 2, 3]
    assert treadle.scalar_tensor(3).dtype is treadle.float32
    assert treadle.trapz(treadle.tensor([1.0, 3.0])).item() == 2.0


@pytest.mark.parametrize("edge_order", [1, 2])
def test_gradient_of_samples(edge_order):
    x = np.random.default_rng(0).normal(size=(4, 5))
    found = treadle.gradient(treadle.tensor(x), spacing=0.5, edge_order=edge_order)
    for f, e in zip(found, np.gradient(x, 0.5, edge_order=edge_order), strict=True):
        np.testing.assert_allclose(f.numpy(), e, rtol=1e-10)
    (found,) = treadle.gradient(treadle.tensor(x), dim=1)
    np.testing.assert_allclose(found.numpy(), np.gradient(x, axis=1), rtol=1e-10)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: treadle.logspace(0, 1, -1), ValueError, "logspace: got -1 steps"),
        (lambda: treadle.range(3, 1), ValueError, "range: got start 3, end 1 and step 1; the step"),
        (lambda: treadle.hann_window(-1), ValueError, "hann_window: got window_length -1; it must"),
        (lambda: treadle.hann_window(3, dtype=int), TypeError, "hann_window: got dtype int64"),
        (lambda: treadle.gradient(treadle.zeros(2), edge_order=2), ValueError, "got edge_order 2"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_switches_of_backends_are_accepted():
    treadle.backends.cudnn.benchmark = True
    treadle.backends.cuda.matmul.allow_tf32 = True
    assert not treadle.backends.mps.is_available()
    treadle.use_deterministic_algorithms(True)
    treadle.cuda.manual_seed_all(0)
    treadle.set_float32_matmul_precision("high")
    assert treadle.get_float32_matmul_precision() == "high"
    with pytest.raises(ValueError, match="got 'low'; it is one of 'highest', 'high', 'medium'"):
        treadle.set_float32_matmul_precision("low")
    x = treadle.ones(2, 3).t().contiguous(memory_format=treadle.contiguous_format)
    assert x.clone(memory_format=treadle.preserve_format).shape == (3, 2)
    assert treadle.zeros_like(x, device="cpu").tolist() == x.new_full((3, 2), 0).tolist()
