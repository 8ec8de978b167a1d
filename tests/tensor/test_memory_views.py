"""``as_strided`` and its like, reductions into places, and functions that NumPy computes."""

from __future__ import annotations

import math

import numpy as np
import pytest

import treadle
from treadle import special
from treadle.testing.gradients import check_grads


def test_strides_of_ones_own() -> None:
    x = treadle.arange(12.0)
    treadle.as_strided(x, (3, 2), (4, 1), 1).fill_(-1)
    assert x.tolist() == [0, -1, -1, 3, 4, -1, -1, 7, 8, -1, -1, 11]
    inner = x.view(3, 4)[1:]
    assert (inner.storage_offset(), inner.stride()) == (4, (4, 1))
    assert treadle.as_strided(inner, (2,), (3,)).tolist() == [4, 7]
    windows = treadle.arange(4).as_strided((3, 2), (1, 1))
    assert windows.tolist() == [[0, 1], [1, 2], [2, 3]]
    with pytest.raises(RuntimeError, match="several elements share one place"):
        windows.fill_(0)
    with pytest.raises(ValueError, match="reach place 12 of a memory of 12 elements"):
        x.as_strided((13,), (1,))


def test_gradients_of_overlapping_views() -> None:
    x = treadle.randn(5, dtype=treadle.float64, requires_grad=True)
    check_grads(lambda x: (x * x).as_strided((4, 2), (1, 1)).sin(), [x])
    y = treadle.randn(2, dtype=treadle.float64, requires_grad=True)
    check_grads(lambda x, y: treadle.as_strided_scatter(x, y * y, (2,), (2,), 1), [x, y], order=1)


def test_tensors_that_become_others() -> None:
    x = treadle.arange(6)
    assert x.resize_(2, 2).tolist() == [[0, 1], [2, 3]]
    assert x.resize_(5).tolist() == [0, 1, 2, 3, 0]
    y = treadle.zeros(3)
    z = treadle.ones(1).set_(y)
    z.add_(2)
    assert y.tolist() == [2, 2, 2] and z.is_set_to(y) and not z.is_set_to(x)
    assert treadle.empty_permuted((2, 3), (1, 0)).shape == (2, 3)
    with pytest.raises(RuntimeError, match="resize_: got a tensor that requires a gradient"):
        treadle.ones(2, requires_grad=True).resize_(3)


def test_copies_share_nothing() -> None:
    x = treadle.arange(6.0).view(2, 3)
    for name, args in (
        ("t_copy", ()),
        ("unsqueeze_copy", (0,)),
        ("select_copy", (0, 1)),
        ("slice_copy", (1, 1)),
        ("view_copy", (6,)),
        ("diagonal_copy", ()),
    ):
        getattr(treadle, name)(x, *args).fill_(9)  # fmt: skip
    for part in treadle.split_copy(x, 1):
        part.fill_(9)
    assert x.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("how", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
def test_scatter_reduce(how: str, include_self: bool) -> None:
    rng = np.random.default_rng(0)
    base, src = rng.normal(size=(3, 2)), rng.normal(size=(4, 2))
    index = np.array([[0, 2], [0, 1], [2, 1], [0, 1]])
    expected = base.copy()
    reduce = {"sum": np.sum, "prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}[how]
    for row in range(3):
        for column in range(2):
            met = [base[row, column]] * include_self
            met += [src[i, column] for i in range(4) if index[i, column] == row]
            expected[row, column] = reduce(met) if met else base[row, column]
    x, y = (treadle.tensor(a, requires_grad=True) for a in (base, src))
    at = treadle.tensor(index)

    def function(x: treadle.Tensor, y: treadle.Tensor) -> treadle.Tensor:
        return x.scatter_reduce(0, at, y, how, include_self=include_self)

    np.testing.assert_allclose(function(x, y).detach().numpy(), expected)
    check_grads(function, [x, y], order=1)


def test_products_with_zeros_have_gradients() -> None:
    x = treadle.ones(2, requires_grad=True)
    y = treadle.tensor([0.0, 3.0, 0.0, 0.0], requires_grad=True)
    x.scatter_reduce(0, treadle.tensor([0, 0, 1, 1]), y, "prod").sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([0, 0], [3, 0, 0, 0])


def test_index_and_segment_reduce() -> None:
    x = treadle.ones(2, 2)
    rows = treadle.tensor([[2.0, 3.0], [4.0, 0.5]])
    assert x.index_reduce(0, treadle.tensor([1, 1]), rows, "prod").tolist() == [[1, 1], [8, 1.5]]
    data = treadle.tensor([1.0, 2.0, 4.0, 8.0])
    lengths = treadle.tensor([1, 0, 3])
    assert treadle.segment_reduce(data, "sum", lengths=lengths).tolist() == [1, 0, 14]
    assert treadle.segment_reduce(data, "max", lengths=lengths).tolist() == [1, -math.inf, 8]
    means = treadle.segment_reduce(data, "mean", offsets=treadle.tensor([0, 1, 1, 4])).tolist()
    assert means[0] == 1 and math.isnan(means[1]) and means[2] == pytest.approx(14 / 3)
    with pytest.raises(ValueError, match="must not be negative nor add up to more"):
        treadle.segment_reduce(data, "sum", lengths=treadle.tensor([5]))


def test_functions_on_the_host_are_accurate() -> None:
    import mpmath

    a, x = np.meshgrid([0.1, 1.0, 3.5, 40.0, 500.0], [1e-3, 0.5, 3.0, 42.0, 480.0])
    each = np.vectorize(lambda a, x: float(mpmath.gammainc(a, 0, x, regularized=True)))
    lower = treadle.igamma(treadle.tensor(a), treadle.tensor(x)).numpy()
    np.testing.assert_allclose(lower, each(a, x), rtol=1e-11, atol=1e-300)
    upper = special.gammaincc(treadle.tensor(a), treadle.tensor(x)).numpy()
    np.testing.assert_allclose(upper, 1 - each(a, x), rtol=1e-9, atol=1e-14)
    s, q = np.meshgrid([1.1, 2.0, 7.5, 30.0], [0.25, 1.0, 12.5])
    each = np.vectorize(lambda s, q: float(mpmath.zeta(s, q)))
    got = special.zeta(treadle.tensor(s), treadle.tensor(q)).numpy()
    np.testing.assert_allclose(got, each(s, q), rtol=1e-13)
    points = np.linspace(-12, 9, 43)
    airy = np.vectorize(lambda v: float(mpmath.airyai(v)))(points)
    np.testing.assert_allclose(special.airy_ai(treadle.tensor(points)).numpy(), airy, atol=2e-9)
    assert special.spherical_bessel_j0(treadle.tensor([0.0, math.pi / 2])).tolist() == (
        pytest.approx([1, 2 / math.pi])
    )
    parts = treadle.tensor(a[1:3, 1:4]), treadle.tensor(x[1:3, 1:4], requires_grad=True)
    check_grads(treadle.igamma, parts)
    check_grads(special.zeta, [parts[0] + 1, parts[1]])


@pytest.mark.parametrize(("name", "reference"), [
    ("chebyshev_polynomial_t", lambda x, n: math.cos(n * math.acos(x))),
    ("chebyshev_polynomial_u",
     lambda x, n: math.sin((n + 1) * math.acos(x)) / math.sin(math.acos(x))),
    ("hermite_polynomial_h", lambda x, n: np.polynomial.hermite.Hermite.basis(n)(x)),
    ("hermite_polynomial_he", lambda x, n: np.polynomial.hermite_e.HermiteE.basis(n)(x)),
    ("laguerre_polynomial_l", lambda x, n: np.polynomial.laguerre.Laguerre.basis(n)(x)),
    ("legendre_polynomial_p", lambda x, n: np.polynomial.legendre.Legendre.basis(n)(x)),
])  # fmt: skip
def test_polynomials(name: str, reference: object) -> None:
    x, n = np.meshgrid([-0.9, -0.2, 0.4, 0.8], [0, 1, 2, 7])
    got = getattr(special, name)(treadle.tensor(x), treadle.tensor(n)).numpy()
    np.testing.assert_allclose(got, np.vectorize(reference, otypes=[float])(x, n), rtol=1e-10)


def test_parts_of_floats_and_histograms() -> None:
    x = np.array([8.0, -3.0, 0.1, 0.0, 1e-310])
    for got, expected in zip(treadle.frexp(treadle.tensor(x)), np.frexp(x), strict=True):
        assert (got.numpy() == expected).all()
    values, weights = np.random.default_rng(0).normal(size=(2, 50))
    for options in ({}, {"density": True}, {"range": (-1.0, 1.0)}):
        hist, edges = np.histogram(values, 7, weights=weights, **options)
        x, w = treadle.tensor(values), treadle.tensor(weights)
        got = treadle.histogram(x, 7, weight=w, **options)
        np.testing.assert_allclose(got.hist.numpy(), hist)
        np.testing.assert_allclose(got.bin_edges.numpy(), edges)
    points = np.random.default_rng(1).normal(size=(50, 2))
    got = treadle.histogramdd(treadle.tensor(points), [3, 4])
    np.testing.assert_allclose(got.hist.numpy(), np.histogramdd(points, [3, 4])[0])


def test_old_spellings() -> None:
    x = treadle.ones(2)
    assert x.type() == "treadle.FloatTensor" and isinstance(x, treadle.FloatTensor)
    assert x.type("torch.DoubleTensor").dtype is treadle.float64
    assert x.type(treadle.LongTensor).dtype is treadle.int64
    assert treadle.frombuffer(bytearray([1, 2]), dtype=treadle.uint8).tolist() == [1, 2]
    assert treadle.nonzero_static(treadle.tensor([0, 3]), size=2).tolist() == [[1], [-1]]
    assert treadle.pdist(treadle.eye(3)).tolist() == pytest.approx([2**0.5] * 3)


def test_what_is_absent_says_what_to_use() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sparse_coo_tensor': there are no spar"):
        treadle.sparse_coo_tensor  # noqa: B018
    with pytest.raises(AttributeError, match="no quantised tensors: use a float dtype"):
        treadle.quantize_per_tensor  # noqa: B018
    with pytest.raises(NotImplementedError, match="to_sparse: there are no sparse tensors: use a"):
        treadle.ones(2).to_sparse()
    assert treadle.ones(2).to_dense().tolist() == [1, 1]


def test_slopes_between_uneven_samples() -> None:
    x = np.array([0.0, 0.5, 2.0, 2.5, 4.0])
    y = np.stack([x**2, np.sin(x)])
    for order in (1, 2):
        got = treadle.gradient(
            treadle.tensor(y), spacing=[treadle.tensor(x)], dim=1, edge_order=order
        )
        np.testing.assert_allclose(got[0].numpy(), np.gradient(y, x, axis=1, edge_order=order))
    assert treadle.tensor([1.26, -123.4]).round(decimals=1).tolist() == pytest.approx([1.3, -123.4])
    assert treadle.tensor([1.26, -123.4]).round(decimals=-1).tolist() == [0, -120]
