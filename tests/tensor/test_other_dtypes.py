"""Masks, integers and complex numbers where functions of floats take them too, as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.nn import functional as F

MASK = treadle.tensor([True, False, False])
AT = treadle.tensor([0, 0, 2])


def test_masks_are_added_as_or():
    more = treadle.tensor([False, True, True])
    assert MASK.index_add(0, AT, more).tolist() == [True, False, True]
    assert MASK.scatter_add(0, AT, more).tolist() == [True, False, True]
    assert MASK.scatter_reduce(0, AT, more, "sum").tolist() == [True, False, True]
    assert MASK.index_put((AT,), more, accumulate=True).tolist() == [True, False, True]
    assert MASK.index_add(0, AT, more, alpha=0).tolist() == MASK.tolist()
    view = MASK.clone()
    view.index_put_((treadle.tensor(1),), treadle.tensor(True), accumulate=True)
    assert view.tolist() == [True, True, False]


def test_elementwise_functions_of_masks():
    assert MASK.isfinite().all()
    assert not MASK.isinf().any()
    assert treadle.sign(MASK).tolist() == MASK.tolist()
    squared = treadle.square(MASK)
    assert (squared.dtype, squared.tolist()) == (treadle.int64, [1, 0, 0])


def test_weights_of_integer_products_are_whole():
    a, m, v = treadle.tensor([1, 2]), treadle.tensor([[1, 2], [3, 4]]), treadle.tensor([1, 1])
    assert treadle.addmv(a, m, v, beta=1.9, alpha=2.5).tolist() == [7, 16]
    ones = treadle.ones(2, dtype=treadle.bool)
    added = treadle.addr(treadle.zeros(2, 2, dtype=treadle.bool), ones, ones, beta=3, alpha=2)
    assert added.dtype is treadle.bool and added.all()


def test_arange_of_integers_cuts_its_bounds():
    assert treadle.arange(0.0, -8.5, -4.0, dtype=treadle.int64).tolist() == [0, -4]
    assert treadle.arange(0.5, 7.9, 1.5, dtype=treadle.int32).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="got start 0, end 2 and step 0"):
        treadle.arange(0, 2, 0.5, dtype=treadle.int64)


def test_integers_become_floats_in_activations_and_losses():
    i = treadle.tensor([[1, -2, 3]])
    assert F.softsign(i).tolist() == [[0.5, pytest.approx(-2 / 3), 0.75]]
    assert F.tanhshrink(i).dtype is treadle.float32
    assert F.hardtanh(i * 5, -1.5, 2.5).tolist() == [[2, -1, 2]]
    assert F.relu6(i).dtype is treadle.int64
    assert F.pairwise_distance(i, i + 3, eps=0.0).item() == pytest.approx(27**0.5)
    assert treadle.logsumexp(i, 1).item() == pytest.approx(np.log(np.exp([1, -2, 3]).sum()))


def test_complex_numbers_in_activations_and_losses():
    z = treadle.tensor([1 + 2j, -1j])
    np.testing.assert_allclose(F.silu(z).numpy(), z.numpy() / (1 + np.exp(-z.numpy())), rtol=1e-5)
    assert F.l1_loss(z, z + 3j).item() == pytest.approx(3.0)
    mean = (z.numpy() ** 2).mean()
    np.testing.assert_allclose(
        F.rms_norm(z, (2,), eps=0.5).numpy(), z.numpy() / np.sqrt(mean + 0.5), rtol=1e-5
    )
    assert F.feature_alpha_dropout(z, training=False) is z


def test_complex_draws():
    treadle.manual_seed(0)
    drawn = treadle.zeros(20_000, dtype=treadle.complex64).normal_(1.0, 2.0).numpy()
    assert drawn.mean() == pytest.approx(1.0, abs=0.05)
    assert np.abs(drawn - 1).std() > 0 and drawn.var() == pytest.approx(4.0, rel=0.05)
    parts = treadle.zeros(100, dtype=treadle.complex128).uniform_(2, 3).numpy()
    assert (parts.real >= 2).all() and (parts.imag < 3).all()


def test_casts_take_a_memory_format():
    x = treadle.ones(2)
    for name in ("float", "double", "half", "bool", "int", "long", "short", "byte", "cfloat"):
        assert getattr(x, name)(memory_format=treadle.contiguous_format).shape == (2,)


def test_an_index_without_elements_may_have_any_integer_dtype_and_shape():
    empty = treadle.zeros(2, 0, dtype=treadle.uint8)
    assert treadle.gather(treadle.ones(5), 0, empty).shape == (2, 0)
