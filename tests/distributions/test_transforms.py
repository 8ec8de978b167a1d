"""Transforms: inverses, slopes by differences, shapes, and the sets they lead to."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import distributions as D
from treadle.distributions import constraints

F64 = treadle.float64
VECTOR = np.linspace(-1.2, 1.5, 6)
ELEMENTWISE = [
    D.ExpTransform(), D.SigmoidTransform(), D.TanhTransform(), D.SoftplusTransform(),
    D.AffineTransform(1.0, -2.0), D.ExpTransform().inv, D.PowerTransform(1.7),
    D.ComposeTransform([D.AffineTransform(0.5, 2.0), D.SigmoidTransform()]),
    D.CumulativeDistributionTransform(D.Normal(treadle.tensor(0.0, dtype=F64), 1.0)),
]  # fmt: skip


def t(x):
    return treadle.tensor(x, dtype=F64)


@pytest.mark.parametrize("transform", ELEMENTWISE, ids=lambda f: repr(f)[:30])
def test_elementwise(transform):
    x = VECTOR if transform.domain is constraints.real else np.abs(VECTOR) + 0.3
    y = transform(t(x))
    np.testing.assert_allclose(transform.inv(y).numpy(), x, atol=1e-9)
    step = 1e-6
    slope = (transform(t(x + step)) - transform(t(x - step))).numpy() / (2 * step)
    found = transform.log_abs_det_jacobian(t(x), y).numpy()
    np.testing.assert_allclose(found, np.log(np.abs(slope)), atol=1e-6)
    assert bool(transform.codomain.check(y).all())


@pytest.mark.parametrize(
    ("transform", "pick"),
    [
        (D.StickBreakingTransform(), lambda y: y[:-1]),
        (D.CorrCholeskyTransform(), lambda y: y[np.tril_indices(y.shape[0], -1)]),
    ],
    ids=["stick", "corr"],
)
def test_vectors(transform, pick):
    x = VECTOR
    y = transform(t(x))
    assert bool(transform.codomain.check(y).all())
    assert tuple(y.shape) == tuple(transform.forward_shape((6,)))
    np.testing.assert_allclose(transform.inv(y).numpy(), x, atol=1e-7)
    step, columns = 1e-6, []
    for i in range(len(x)):
        e = np.eye(len(x))[i] * step
        columns.append(pick((transform(t(x + e)) - transform(t(x - e))).numpy()) / (2 * step))
    wanted = np.linalg.slogdet(np.array(columns))[1]
    found = transform.log_abs_det_jacobian(t(x), y).item()
    assert found == pytest.approx(wanted, abs=1e-5)


def test_combinations():
    x = t(VECTOR.reshape(2, 3))
    joined = D.CatTransform([D.ExpTransform(), D.TanhTransform()], dim=0, lengths=[1, 1])
    np.testing.assert_allclose(joined.inv(joined(x)).numpy(), x.numpy(), atol=1e-12)
    assert tuple(joined.log_abs_det_jacobian(x, joined(x)).shape) == (2, 3)
    stacked = D.StackTransform([D.ExpTransform(), D.TanhTransform()], dim=0)
    np.testing.assert_allclose(stacked(x).numpy(), joined(x).numpy())
    together = D.IndependentTransform(D.ExpTransform(), 1)
    assert together.log_abs_det_jacobian(x, together(x)).tolist() == x.sum(-1).tolist()
    shaped = D.ReshapeTransform((3,), (3, 1))
    assert tuple(shaped(x).shape) == (2, 3, 1)
    assert shaped.forward_shape((2, 3)) == (2, 3, 1)
    with pytest.raises(ValueError, match=r"ReshapeTransform: got the shape \(4,\); it must end in"):
        shaped.forward_shape((4,))
    cached = D.ExpTransform(cache_size=1)
    y = cached(x)
    assert cached.inv(y) is x
    assert D.ExpTransform() == D.ExpTransform()
    assert D.AffineTransform(0.0, 1.0) != D.AffineTransform(0.0, 2.0)


@pytest.mark.parametrize(
    "constraint",
    [constraints.real, constraints.positive, constraints.unit_interval, constraints.simplex,
     constraints.interval(-1.0, 2.0), constraints.greater_than(1.0), constraints.less_than(1.0),
     constraints.corr_cholesky, constraints.independent(constraints.positive, 1)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("registry", [D.biject_to, D.transform_to])
def test_ways_onto_a_set(constraint, registry):
    transform = registry(constraint)
    y = transform(t(VECTOR))
    assert bool(constraint.check(y).all())
    again = transform(transform.inv(y))
    np.testing.assert_allclose(again.numpy(), y.numpy(), atol=1e-7)


def test_a_set_without_a_way():
    with pytest.raises(NotImplementedError, match="no transform onto _Boolean is known"):
        D.biject_to(constraints.boolean)


@pytest.mark.parametrize(
    ("constraint", "inside", "outside"),
    [
        (constraints.boolean, 1.0, 0.5), (constraints.nonnegative_integer, 3.0, -1.0),
        (constraints.integer_interval(1, 3), 3.0, 4.0), (constraints.one_hot, [0.0, 1], [1.0, 1]),
        (constraints.half_open_interval(0.0, 1.0), 0.0, 1.0), (constraints.real, 1.0, np.nan),
        (constraints.simplex, [0.5, 0.5], [0.5, 0.6]),
        (constraints.multinomial(3), [1.0, 2], [-1.0, 2]),
        (constraints.lower_triangular, [[1.0, 0], [2, 3]], [[1.0, 1], [2, 3]]),
        (constraints.positive_definite, [[2.0, 1], [1, 2]], [[1.0, 2], [2, 1]]),
        (constraints.positive_semidefinite, [[1.0, 1], [1, 1]], [[1.0, 2], [2, 1]]),
        (constraints.symmetric, [[1.0, 2], [2, 1]], [[1.0, 2], [3, 1]]),
        (constraints.square, [[1.0]], [[1.0, 2.0]]),
        (constraints.cat([constraints.positive, constraints.real], 0, [1, 1]), [1.0, -1],
         [-1.0, 1]),
        (constraints.stack([constraints.positive, constraints.real]), [1.0, -1], [-1.0, 1]),
    ],
    ids=lambda c: repr(c)[:24],
)  # fmt: skip
def test_sets(constraint, inside, outside):
    assert bool(constraint.check(t(inside)).all())
    assert not bool(constraint.check(t(outside)).all())
