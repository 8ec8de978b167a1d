"""``treadle.linalg`` against NumPy's; gradients against finite differences; errors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import treadle
from treadle import linalg
from treadle.testing.gradients import check_grads

RNG = np.random.default_rng(0)
SQUARE = RNG.normal(size=(2, 3, 3)) + np.diag([2.0, 4.0, 7.0])
COMPLEX = SQUARE + 1j * RNG.normal(size=(2, 3, 3))
TALL, WIDE = RNG.normal(size=(4, 2)), RNG.normal(size=(2, 4))
RIGHT = RNG.normal(size=(2, 3, 2))


def t(array: np.ndarray) -> treadle.Tensor:
    return treadle.tensor(array)


def positive(x: treadle.Tensor) -> treadle.Tensor:
    return x @ x.mH + treadle.eye(x.shape[-1], dtype=treadle.float64)


def close(got: treadle.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("A", [SQUARE, COMPLEX], ids=["real", "complex"])
def test_square_matrices(A: np.ndarray) -> None:
    close(linalg.inv(t(A)), np.linalg.inv(A))
    close(linalg.det(t(A)), np.linalg.det(A))
    for got, expected in zip(linalg.slogdet(t(A)), np.linalg.slogdet(A), strict=True):
        close(got, expected)
    close(linalg.solve(t(A), t(A[0, :, :2])), np.linalg.solve(A, A[0, :, :2]))
    close(linalg.solve(t(A), t(A[:, 0])), np.linalg.solve(A, A[:, 0, :, None])[..., 0])
    close(linalg.solve(t(A), t(A.mT), left=False) @ t(A), A.mT)
    close(linalg.matrix_power(t(A), -3), np.linalg.matrix_power(A, -3))
    values, vectors = linalg.eig(t(A))
    close(t(A).to(treadle.complex128) @ vectors, (vectors * values.unsqueeze(-2)).numpy())
    close(linalg.eigvals(t(A)).abs().sort().values, np.sort(np.abs(np.linalg.eigvals(A))))
    P, L, U = linalg.lu(t(A))
    close(P @ L @ U, A)
    packed, pivots = linalg.lu_factor(t(A))
    for adjoint, B in ((False, A), (True, A.mT.conj())):
        close(t(B) @ linalg.lu_solve(packed, pivots, t(RIGHT), adjoint=adjoint), RIGHT)
    close(linalg.matrix_exp(t(A) * 0), np.broadcast_to(np.eye(3), A.shape))
    close(linalg.matrix_exp(t(A)) @ linalg.matrix_exp(-t(A)), np.broadcast_to(np.eye(3), A.shape))


@pytest.mark.parametrize("A", [SQUARE, TALL, WIDE, COMPLEX], ids=["square", "tall", "wide", "c"])
def test_any_matrices(A: np.ndarray) -> None:
    for mode in ("reduced", "complete"):
        Q, R = linalg.qr(t(A), mode)
        close(Q @ R, A)
        close(Q.mH @ Q, np.broadcast_to(np.eye(Q.shape[-1]), (*A.shape[:-2], *Q.shape[-1:] * 2)))
    U, S, Vh = linalg.svd(t(A), full_matrices=False)
    close((U * S.unsqueeze(-2)) @ Vh, A)
    close(S, np.linalg.svd(A, compute_uv=False))
    close(linalg.svdvals(t(A)), np.linalg.svd(A, compute_uv=False))
    close(linalg.pinv(t(A)), np.linalg.pinv(A))
    P, L, U = linalg.lu(t(A))
    close(P @ L @ U, A)
    for ord in ("fro", "nuc", np.inf, -np.inf, 1, -1, 2, -2):
        expected = np.linalg.norm(A, ord, axis=(-2, -1))
        close(linalg.matrix_norm(t(A), ord), expected)
        kept = linalg.matrix_norm(t(A), ord, keepdim=True)
        assert kept.shape == (*A.shape[:-2], 1, 1)
    for ord in (2, 1, 0, 3, 0.5, -1, np.inf, -np.inf):
        close(linalg.vector_norm(t(A), ord, -1), np.linalg.norm(A, ord, axis=-1))
    assert (linalg.matrix_rank(t(A)).numpy() == np.linalg.matrix_rank(A)).all()
    close(linalg.cond(t(A)), np.linalg.cond(A))


def test_hermitian_matrices() -> None:
    A = COMPLEX @ COMPLEX.mT.conj()
    L = linalg.cholesky(t(A))
    close(L, np.linalg.cholesky(A))
    close(linalg.cholesky(t(A), upper=True), np.linalg.cholesky(A).mT.conj())
    values, vectors = linalg.eigh(t(A))
    close((vectors * values.unsqueeze(-2)) @ vectors.mH, A)
    close(linalg.eigvalsh(t(A)), np.linalg.eigvalsh(A))
    close(t(A) @ treadle.cholesky_solve(t(RIGHT), L), RIGHT)
    close(treadle.cholesky_inverse(L), np.linalg.inv(A))
    upper_only = t(np.triu(A))
    close(linalg.eigvalsh(upper_only, "U"), np.linalg.eigvalsh(A))


def test_triangular_systems() -> None:
    for upper in (True, False):
        A = (np.triu if upper else np.tril)(SQUARE)
        x = linalg.solve_triangular(t(SQUARE), t(RIGHT), upper=upper)
        close(t(A) @ x, RIGHT)
        x = linalg.solve_triangular(t(SQUARE), t(RIGHT.mT), upper=upper, left=False)
        close(x @ t(A), RIGHT.mT)


def test_least_squares() -> None:
    B = RNG.normal(size=(4, 3))
    solution, residuals, rank, values = linalg.lstsq(t(TALL), t(B), driver="gelsd")
    expected = np.linalg.lstsq(TALL, B)
    for got, want in zip((solution, residuals, rank, values), expected, strict=True):
        close(got, want)


def test_other_shapes() -> None:
    A = RNG.normal(size=(2, 3, 6))
    close(linalg.tensorsolve(t(A), t(np.ones((2, 3)))), np.linalg.tensorsolve(A, np.ones((2, 3))))
    close(linalg.tensorinv(t(A.reshape(6, 2, 3)), 1), np.linalg.tensorinv(A.reshape(6, 2, 3), 1))
    parts = [RNG.normal(size=s) for s in ((3,), (3, 5), (5, 2), (2,))]
    close(linalg.multi_dot([t(p) for p in parts]), np.linalg.multi_dot(parts))
    close(linalg.vander(t(np.arange(4.0)), 3), np.vander(np.arange(4.0), 3, increasing=True))
    row = SQUARE[:1, :1]
    close(linalg.cross(t(RIGHT.mT), t(row)), np.cross(RIGHT.mT, row))
    close(linalg.vecdot(t(COMPLEX), t(SQUARE)), np.linalg.vecdot(COMPLEX, SQUARE))
    raw, tau = treadle.geqrf(t(TALL))
    close(linalg.householder_product(raw, tau) @ raw[:2].triu(), TALL)
    close(treadle.ormqr(raw, tau, t(TALL), transpose=True)[:2], raw[:2].triu().numpy())
    for empty in ((0, 0), (0, 3, 3)):
        x = treadle.zeros(*empty)
        assert linalg.inv(x).shape == empty and linalg.svd(x).S.shape == empty[:-1]
        assert linalg.det(x).shape == empty[:-2]


GRADIENTS: dict[str, tuple[Callable[..., treadle.Tensor], np.ndarray]] = {
    "inv": (linalg.inv, SQUARE), "det": (linalg.det, SQUARE),
    "slogdet": (lambda x: linalg.slogdet(x).logabsdet, SQUARE),
    "solve": (lambda x: linalg.solve(x, x[..., :2] * 2), SQUARE),
    "triangular": (lambda x: linalg.solve_triangular(x, x * 2, upper=False), SQUARE),
    "cholesky": (lambda x: linalg.cholesky(positive(x)), SQUARE),
    "qr": (lambda x: linalg.qr(x).Q @ linalg.qr(x).R.exp(), TALL),
    "qr of wide": (lambda x: linalg.qr(x).Q.exp() @ linalg.qr(x).R.sin(), WIDE),
    "svd": (lambda x: linalg.svd(x, False).U.abs() * linalg.svd(x, False).S, TALL),
    "svd of wide": (lambda x: linalg.svd(x, False).Vh.abs(), WIDE),
    "svdvals": (linalg.svdvals, TALL),
    "eigh": (lambda x: linalg.eigh(positive(x)).eigenvectors.abs(), SQUARE),
    "eigvalsh": (lambda x: linalg.eigvalsh(positive(x)), SQUARE),
    "eig": (lambda x: linalg.eig(x).eigenvectors.abs(), SQUARE),
    "eigvals": (lambda x: linalg.eigvals(x).abs(), SQUARE),
    "pinv": (linalg.pinv, TALL), "lstsq": (lambda x: linalg.lstsq(x, x * x).solution, TALL),
    "lu": (lambda x: linalg.lu(x).L.exp() @ linalg.lu(x).U, SQUARE),
    "lu of tall": (lambda x: linalg.lu_factor(x).LU, TALL),
    "lu of wide": (lambda x: linalg.lu_factor(x).LU, WIDE),
    "matrix_exp": (lambda x: linalg.matrix_exp(x * 0.3), SQUARE),
    "nuclear norm": (lambda x: linalg.matrix_norm(x, "nuc"), TALL),
    "power": (lambda x: linalg.matrix_power(x, -2), SQUARE),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str) -> None:
    function, array = GRADIENTS[name]
    order = 1 if name in ("eig", "eigvals", "qr of wide") else 2
    check_grads(function, [treadle.tensor(array, requires_grad=True)], order, rtol=1e-4)


@pytest.mark.parametrize("name", ["inv", "det", "slogdet", "solve", "lu", "pinv", "matrix_exp",
                                  "svdvals", "eigvals", "svd"])  # fmt: skip
def test_gradients_of_complex_matrices(name: str) -> None:
    function = GRADIENTS[name][0]

    def real(x: treadle.Tensor, y: treadle.Tensor) -> treadle.Tensor:
        out = function(treadle.complex(x, y))
        return out.real - 2 * out.imag if out.is_complex() else out

    parts = [treadle.tensor(p, requires_grad=True) for p in (COMPLEX[0].real, COMPLEX[0].imag)]
    check_grads(real, parts, 1, rtol=1e-4)


def test_the_gradient_of_a_singular_determinant() -> None:
    x = treadle.tensor([[1.0, 2.0], [2.0, 4.0]], requires_grad=True)
    linalg.det(x).backward()
    np.testing.assert_allclose(x.grad.numpy(), [[4, -2], [-2, 1]], atol=1e-5)


def test_threads_change_no_bit() -> None:
    A = np.random.default_rng(3).normal(size=(200, 200)).astype(np.float32)
    results = set()
    before = treadle.get_num_threads()
    try:
        for threads in (1, 2):
            treadle.set_num_threads(threads)
            results.add(linalg.inv(t(A) @ t(A)).numpy().tobytes())
    finally:
        treadle.set_num_threads(before)
    assert len(results) == 1
    whole = linalg.inv(t(np.stack([A, A + 1]))).numpy()
    assert whole[0].tobytes() == linalg.inv(t(A)).numpy().tobytes()


SINGULAR = np.stack([np.eye(2), np.ones((2, 2))])


@pytest.mark.parametrize(("what", "text"), [
    (lambda: linalg.inv(t(SINGULAR)), r"linalg.inv: matrix \[1\] of the batch is singular"),
    (lambda: linalg.solve(t(SINGULAR[1]), t(RIGHT[0, :2])), r"linalg.solve: the matrix is singul"),
    (lambda: linalg.cholesky(t(-SINGULAR)), r"matrix \[0\] of the batch is not positive definite "
     r"\(its leading minor of order 1"),
    (lambda: linalg.eigvals(t(SINGULAR * np.nan)), "holds NaN or infinity"),
])  # fmt: skip
def test_matrices_without_an_answer(what: Callable[[], treadle.Tensor], text: str) -> None:
    with pytest.raises(linalg.LinAlgError, match=text):
        what().numpy()


def test_what_the_info_says() -> None:
    assert linalg.cholesky_ex(t(SINGULAR - np.eye(2) * 0.5)).info.tolist() == [0, 2]
    assert linalg.lu_factor_ex(t(SINGULAR)).info.tolist() == [0, 2]
    with pytest.raises(linalg.LinAlgError, match="a pivot is 0"):
        linalg.lu_factor_ex(t(SINGULAR), check_errors=True)


@pytest.mark.parametrize(("what", "error", "text"), [
    (lambda: linalg.inv(t(TALL)), ValueError, r"linalg.inv: got a tensor of shape \(4, 2\); it t"),
    (lambda: linalg.det(treadle.ones(2, 2, dtype=treadle.int64)), TypeError, "det: got a tensor o"),
    (lambda: linalg.solve(t(SQUARE), t(TALL)), ValueError, "B must have 3 numbers"),
    (lambda: linalg.qr(t(TALL), "x"), ValueError, "it is 'reduced', 'complete' or 'r'"),
    (lambda: linalg.eigh(t(SQUARE), "X"), ValueError, "it is 'L' or 'U'"),
    (lambda: linalg.matrix_norm(t(TALL), 3), ValueError, "got ord=3; it is 'fro'"),
    (lambda: linalg.lu(t(TALL), pivot=False), ValueError, "rows are always exchanged"),
    (lambda: linalg.multi_dot([t(TALL)]), ValueError, "it takes at least 2"),
])  # fmt: skip
def test_errors(what: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        what()


def test_ldl_factors() -> None:
    pytest.importorskip("scipy")
    A = COMPLEX + COMPLEX.mT
    factors = linalg.ldl_factor(t(A))
    close(t(A) @ linalg.ldl_solve(*factors, t(COMPLEX)), COMPLEX)
    with pytest.raises(ValueError, match="got pivots that ldl_factor does not give"):
        linalg.ldl_solve(factors.LD, factors.pivots + 9, t(COMPLEX))
