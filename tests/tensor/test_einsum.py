"""einsum and its relatives against NumPy: equations, order, gradients, errors."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.base.errors import ShapeError
from treadle.testing.gradients import check_grads

EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("i,j->ij", (2,), (3,)),
    ("i,i", (4,), (4,)),
    ("ii->i", (3, 3)),
    ("ii", (3, 3)),
    ("iij->ji", (3, 3, 2)),
    ("ij->ji", (2, 3)),
    ("ij->", (2, 3)),
    ("ba", (2, 3)),
    ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 6)),
    ("...i->...", (2, 3, 4)),
    ("i...j,j->...", (2, 5, 3), (3,)),
    ("ij,ij->ij", (2, 3), (2, 1)),
    ("ij,jk->ik", (2, 1), (4, 3)),
    ("ij,kl->", (2, 3), (4, 5)),
    ("ijk,jil,kl->", (2, 3, 4), (3, 2, 5), (4, 5)),
    ("ab,bc,cd,de->ae", (2, 9), (9, 3), (3, 8), (8, 2)),
    ("a,b,c,d,e,f,g,h,i->ai", (2,), (3,), (1,), (2,), (3,), (2,), (1,), (2,), (3,)),
    (",i,->i", (), (3,), ()),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda case: case[0])
def test_equations(case):
    equation, *shapes = case
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape) for shape in shapes]
    expected = np.einsum(equation, *arrays)
    result = treadle.einsum(equation, *map(treadle.tensor, arrays))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-12)
    tensors = [treadle.tensor(x, requires_grad=True) for x in arrays]
    check_grads(lambda *xs: treadle.einsum(equation, *xs), tensors)


def test_other_ways_of_writing():
    a, b = treadle.rand(2, 3), treadle.rand(3, 4)
    expected = (a @ b).tolist()
    assert treadle.einsum(" i j , j k -> i k ", [a, b]).tolist() == expected
    assert treadle.einsum(a, [0, 1], b, [1, 2], [0, 2]).tolist() == expected
    assert treadle.einsum(a, [..., 1], b, [1, 2], [..., 2]).tolist() == expected
    assert treadle.einsum(a, [30, 0], b, [0, 3]).shape == (4, 2)  # sorted, capitals first


def test_integers_stay():
    x = treadle.arange(6).reshape(2, 3)
    assert treadle.einsum("ij,kj->ik", x, x).tolist() == [[5, 14], [14, 50]]
    assert treadle.einsum("ij->", x).dtype is treadle.int64


def test_the_order_saves_work():
    """(64 x 2) (2 x 64) (64 x 2): 16384 multiplications from the left, 512 from the right."""
    from treadle.tensor.einsum import _next_pair

    sizes = {"a": 64, "b": 2, "c": 64, "d": 2}
    terms = [("a", "b"), ("b", "c"), ("c", "d")]
    assert _next_pair(terms, ("a", "d"), sizes) == (1, 2)


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        (("ij,jk", (2, 3)), ValueError, "indices for 2 operands, and 1 operands"),
        (("ij->ijk", (2, 3)), ValueError, "every index of the result must be there once"),
        (("ij->ii", (2, 3)), ValueError, "every index of the result must be there once"),
        (("i", (2, 3)), ShapeError, r"got 'i' in .* shape \(2, 3\); it must have an index for"),
        (("i1", (2, 3)), ValueError, "it takes letters, '...', ',' and '->'"),
        (("ij,jk", (2, 3), (4, 5)), ShapeError, "sizes 3 and 4 of the index 'j' must be equal, or"),
        (("...,...", (2, 3), (4, 3)), ShapeError, "sizes 2 and 4 of a dimension of '...' must be"),
    ],
)
def test_errors(arguments, error, text):
    equation, *shapes = arguments
    with pytest.raises(error, match=text):
        treadle.einsum(equation, *[treadle.zeros(shape) for shape in shapes])
    with pytest.raises(ValueError, match="got the index 52 in a list; it takes ints from 0 to 51"):
        treadle.einsum(treadle.zeros(2), [52])


@pytest.mark.parametrize("dims", [0, 1, 2, ([0, 2], [2, 0]), ([-1], [0])])
def test_tensordot(dims):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(4, 3, 4)), rng.normal(size=(4, 3, 4))
    if dims == 2:
        b = b.transpose(1, 2, 0)
    expected = np.tensordot(a, b, dims)
    result = treadle.tensordot(treadle.tensor(a), treadle.tensor(b), dims)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


def test_inner_and_kron():
    rng = np.random.default_rng(2)
    for shapes in (((3,), (3,)), ((2, 3), (4, 3)), ((2, 3), (3,)), ((), (3,))):
        a, b = (rng.normal(size=shape) for shape in shapes)
        found = treadle.tensor(a).inner(treadle.tensor(b)).numpy()
        np.testing.assert_allclose(found, np.inner(a, b), rtol=1e-12)
    for shapes in (((3,), (2,)), ((2, 3), (4, 5)), ((2,), (2, 3)), ((), (3,))):
        a, b = (rng.normal(size=shape) for shape in shapes)
        found = treadle.tensor(a).kron(treadle.tensor(b)).numpy()
        np.testing.assert_allclose(found, np.kron(a, b), rtol=1e-12)


def test_errors_of_tensordot_and_inner():
    a, b = treadle.zeros(2, 3), treadle.zeros(4, 3)
    with pytest.raises(ShapeError, match=r"tensordot: got shapes \(2, 3\) and \(4, 3\) and dims=1"):
        treadle.tensordot(a, b, 1)
    with pytest.raises(ShapeError, match=r"tensordot: .* it must name as many dimensions of both"):
        treadle.tensordot(a, b, ([0, 1], [0]))
    with pytest.raises(ShapeError, match=r"inner: .* the last sizes 3 and 2 must be equal"):
        treadle.inner(a, treadle.zeros(2))
