"""Complex numbers against NumPy's, their gradients against finite differences."""

from __future__ import annotations

import cmath
import copy
import pickle

import numpy as np
import pytest

import treadle
from treadle.testing.gradients import check_grads

ARRAY = (np.random.default_rng(0).normal(size=(3, 4, 2)) @ [1, 1j]).astype(np.complex128)
OTHER = (np.random.default_rng(1).normal(size=(3, 4, 2)) @ [1, 1j]).astype(np.complex128)
FUNCTIONS = [
    "exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan",
    "arcsinh", "arccosh", "arctanh", "log1p", "expm1", "log2", "log10", "exp2", "abs", "angle",
    "conj", "sinc", "reciprocal", "square",
]  # fmt: skip


def z(array: np.ndarray = ARRAY) -> treadle.Tensor:
    return treadle.tensor(array)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    np.testing.assert_allclose(
        getattr(treadle, name)(z()).numpy(), getattr(np, name)(ARRAY), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("name", ["sqrt", "log", "asin", "acos", "atan", "asinh", "acosh", "atanh"])
@pytest.mark.parametrize("x", [-2.0, -0.5, 0.5, 2.0])
@pytest.mark.parametrize("y", [0.0, -0.0])
def test_both_sides_of_a_cut(name: str, x: float, y: float) -> None:
    """Where the imaginary part is a zero, its sign tells the side."""
    got = getattr(treadle, name)(treadle.tensor(complex(x, y), dtype=treadle.complex128)).item()
    assert cmath.isclose(got, getattr(cmath, name)(complex(x, y)), rel_tol=1e-13, abs_tol=1e-13)


def test_arithmetic() -> None:
    for function in (lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b,
                     lambda a, b: a / b, lambda a, b: a**b, lambda a, b: a == b):  # fmt: skip
        got = function(z(), z(OTHER)).numpy()
        np.testing.assert_allclose(got, function(ARRAY, OTHER), rtol=1e-12)
    np.testing.assert_allclose((2j * z() - 1).numpy(), 2j * ARRAY - 1)
    np.testing.assert_allclose((z() ** 3).numpy(), ARRAY**3, rtol=1e-12)
    np.testing.assert_allclose((z() @ z(OTHER).H).numpy(), ARRAY @ OTHER.conj().T, rtol=1e-12)


def test_a_quotient_does_not_overflow() -> None:
    big = treadle.tensor(complex(1e200, 1e200), dtype=treadle.complex128)
    assert (big / big).item() == 1
    assert cmath.isnan((treadle.tensor(0j) / 0).item())


def test_movement_indexing_and_reductions() -> None:
    x = z()
    pairs = (
        (x.T[1:], ARRAY.T[1:]), (x.flip(0), ARRAY[::-1]), (x.reshape(2, 6), ARRAY.reshape(2, 6)),
        (x[treadle.tensor([2, 0])], ARRAY[[2, 0]]), (x[x.real > 0], ARRAY[ARRAY.real > 0]),
        (treadle.cat([x, x], 1), np.concatenate([ARRAY, ARRAY], 1)), (x.sum(0), ARRAY.sum(0)),
        (x.mean(), ARRAY.mean()), (x.prod(1), ARRAY.prod(1)), (x.var(), ARRAY.var(ddof=1)),
        (x.cumsum(1), ARRAY.cumsum(1)), (x.cumprod(0), ARRAY.cumprod(0)),
        (x.norm(), np.linalg.norm(ARRAY)), (x.roll(1, 0), np.roll(ARRAY, 1, 0)),
        (treadle.where(x.real > 0, x, 0), np.where(ARRAY.real > 0, ARRAY, 0)),
        (treadle.vdot(x[0], x[1]), np.vdot(ARRAY[0], ARRAY[1])),
    )  # fmt: skip
    for got, expected in pairs:
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


def test_dtypes() -> None:
    assert treadle.tensor(1j).dtype is treadle.complex64
    assert (treadle.ones(2, dtype=treadle.float64) * 1j).dtype is treadle.complex128
    assert (treadle.ones(2, dtype=treadle.int32) + 1j).dtype is treadle.complex64
    assert treadle.promote_types(treadle.float64, treadle.complex64) is treadle.complex128
    assert treadle.promote_types(treadle.float16, treadle.complex64) is treadle.complex64
    x = z()
    assert (x.abs().dtype, x.real.dtype) == (treadle.float64, treadle.float64)
    assert x.to(treadle.complex64).numpy().dtype == np.complex64
    assert not x.is_floating_point() and x.is_complex()


def test_parts_share_memory() -> None:
    x = treadle.zeros(2, dtype=treadle.complex64)
    x.real = 3.0
    x.imag[1] = -1
    treadle.view_as_real(x)[0, 1] = 5
    assert x.tolist() == [3 + 5j, 3 - 1j]
    y = treadle.arange(4.0)
    treadle.view_as_complex(y.view(2, 2)).mul_(1j)
    assert y.tolist() == [-1, 0, -3, 2]


def test_made_of_parts() -> None:
    assert treadle.complex(treadle.tensor([1.0]), treadle.tensor([2.0])).tolist() == [1 + 2j]
    polar = treadle.polar(treadle.tensor(2.0), treadle.tensor(np.pi / 2, dtype=treadle.float32))
    assert abs(polar.item() - 2j) < 1e-6


def test_printing() -> None:
    assert repr(treadle.tensor([1 + 2j, -3.5j])) == "tensor([1.+2.0000j, -0.-3.5000j])"
    assert repr(treadle.tensor([1j], dtype=treadle.complex128)).endswith("treadle.complex128)")


def test_copies_and_pickles() -> None:
    for made in (copy.deepcopy(z()), pickle.loads(pickle.dumps(z())), treadle.from_dlpack(z())):
        assert treadle.equal(made, z())


def _loss(x: treadle.Tensor, y: treadle.Tensor, function: object) -> treadle.Tensor:
    out = function(treadle.complex(x, y))
    return out.real * 1.5 - out.imag if out.is_complex() else out


GRADIENTS = {
    "mul": lambda w: w * w.conj() * (1 + 2j), "div": lambda w: (1 - 1j) / w, "exp": treadle.exp,
    "log": treadle.log, "sqrt": treadle.sqrt, "tanh": treadle.tanh, "asin": treadle.asin,
    "acosh": treadle.acosh, "atan": treadle.atan, "abs": treadle.abs, "angle": treadle.angle,
    "pow": lambda w: w ** (0.5 + 1j), "prod": lambda w: w.prod(), "cumprod": lambda w: w.cumprod(0),
    "matmul": lambda w: w @ w, "sgn": treadle.sgn, "log1p": treadle.log1p,
    "logsumexp": lambda w: w.logsumexp(0),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    parts = [treadle.tensor(p[:3, :3], requires_grad=True) for p in (ARRAY.real, ARRAY.imag)]
    check_grads(lambda x, y: _loss(x, y, GRADIENTS[name]), parts)


def test_the_gradient_is_by_the_conjugate() -> None:
    """As in PyTorch: dL/dx + i dL/dy."""
    w = treadle.tensor([1 + 2j, 3 - 1j], requires_grad=True)
    (w * w.conj()).real.sum().backward()
    assert w.grad.tolist() == [2 + 4j, 6 - 2j]
    r = treadle.tensor([1.0, 2.0], requires_grad=True)
    (r * (3 + 4j)).abs().sum().backward()
    assert r.grad.tolist() == [5, 5]
    at_zero = treadle.zeros(1, dtype=treadle.complex64, requires_grad=True)
    at_zero.abs().sum().backward()
    assert at_zero.grad.tolist() == [0]


def test_fused_and_op_by_op_give_the_same_bits() -> None:
    x = treadle.randn(64, 64, dtype=treadle.complex64)
    first = None
    for _ in range(6):
        out = ((x * x + 1j).exp() / (x.abs() + 2)).sum(0).flip(0).numpy().copy()
        first = out if first is None else first
        assert out.tobytes() == first.tobytes()


@pytest.mark.parametrize(("what", "error", "text"), [
    (lambda: z() < z(), TypeError, "lt: got a complex tensor, of which it has no value"),
    (lambda: z().sort(), TypeError, "sort: got a complex tensor"),
    (lambda: treadle.ones(2).imag, TypeError, "imag: got a tensor of dtype float32"),
    (lambda: treadle.view_as_real(treadle.ones(2)), TypeError, "view_as_real: got a tensor of"),
    (lambda: treadle.view_as_complex(treadle.ones(3)), ValueError, "the last size must be 2"),
    (lambda: treadle.view_as_complex(treadle.ones(5)[1:3]), ValueError, "begin at even numbers"),
    (lambda: z().requires_grad_().sum().backward(), RuntimeError, "got a complex tensor, which"),
    (lambda: treadle.ones(2).add_(1j), TypeError, "cannot hold it"),
    (lambda: treadle.complex(treadle.ones(1), treadle.ones(1).double()), TypeError, "both must be"),
])  # fmt: skip
def test_errors(what: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        what()
