"""Decompositions of matrices and what comes from them, by NumPy's LAPACK.

Their gradients are those of PyTorch: of what does not change when the vectors of a decomposition
are multiplied by numbers of size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from treadle.base.errors import GradientError
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, Type, located, type_of
from treadle.ir.op import ErrorSample, Joint, Library, NoGradient, Op, Sample
from treadle.ops import elementwise as e
from treadle.ops import matrices as m
from treadle.ops.complex import part
from treadle.ops.linalg import (
    SHARED,
    check_matrix,
    one_by_one,
    solve,
    solve_triangular,
    square_errors,
    square_infer,
    square_samples,
)
from treadle.ops.project import project
from treadle.ops.registry import floats, refuses, register

Array: TypeAlias = "np.ndarray[Any, Any]"
_NO_NUMBER = "has no decomposition: it holds NaN or infinity, or the algorithm did not converge"


def _outs(n: Node) -> list[Node]:
    return [project(n, index=i) for i in range(len(n.type))]


def _skew(a: Node) -> Node:
    return e.sub(a, m.adjoint(a))


def _where_diagonal(a: Node, value: float) -> Node:
    return m.on_diagonal(a, e.full_like(a, value))


# --- QR -----------------------------------------------------------------------------------------


def _qr_call(a: Array, mode: Any) -> Any:
    q, r = np.linalg.qr(a, mode)
    return q, r


def _qr_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    kind = types[0]
    check_matrix("linalg.qr", kind, square=False)
    *batch, rows, columns = kind.shape
    inner = rows if attrs["mode"] == "complete" else min(rows, columns)
    return (
        type_of(kind.dtype, (*batch, rows, inner), kind.device),
        type_of(kind.dtype, (*batch, inner, columns), kind.device),
    )


def _tall_qr_back(q: Node, r: Node, g_q: Node, g_r: Node) -> Node:
    """(Q+ + Q syminvadj(triu(R+ R^H - Q^H Q+))) R^-H."""
    inner = m.triangle(e.sub(m.product(g_r, m.adjoint(r)), m.product(m.adjoint(q), g_q)), False)
    inner = e.add(inner, m.adjoint(inner))
    inner = m.on_diagonal(inner, m.scaled(inner, 0.5))
    left = e.add(g_q, m.product(q, inner))
    return m.adjoint(solve_triangular(r, m.adjoint(left), upper=True, unit=False))


def _qr_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    q, r = _outs(n)
    g_q, g_r = (e.full_like(x, 0) if a is None else a for x, a in zip((q, r), g, strict=True))
    rows, columns = n.inputs[0].shape[-2:]
    if n.attrs["mode"] == "complete" and rows > columns:
        raise located(GradientError(
            f"linalg.qr: got matrices of {rows} rows and {columns} columns in the mode 'complete', "
            f"which has no gradient then; use the mode 'reduced'"
        ))  # fmt: skip
    if rows >= columns:
        return (_tall_qr_back(q, r, g_q, g_r),)
    # A = (X, Y): X = Q U is square, and Y = Q V.
    square, rest = m.block(r, (0, 0), (rows, rows)), (rows, columns - rows)
    g_square, g_right = m.block(g_r, (0, 0), (rows, rows)), m.block(g_r, (0, rows), rest)
    right = m.block(n.inputs[0], (0, rows), rest)
    g_q = e.add(g_q, m.product(right, m.adjoint(g_right)))
    return (m.beside(_tall_qr_back(q, square, g_q, g_square), m.product(q, g_right)),)


def _any_matrices() -> list[Array]:
    shapes = ((3, 3), (4, 2), (2, 4), (2, 3, 2))
    return [
        floats(*s, low=-0.5, high=0.5, seed=i) + np.eye(*s[-2:], dtype=np.float32)
        * np.arange(2, 2 + s[-1], dtype=np.float32) for i, s in enumerate(shapes)
    ]  # fmt: skip


def _matrix_errors(name: str, **attrs: Any) -> Callable[[], Any]:
    return lambda: (
        ErrorSample((floats(2),), attrs, Exception, f"{name}: got a tensor of shape (2,)"),
    )


qr: Op = register(
    Op(
        name="linalg_qr", infer=_qr_infer, gradient=Joint(_qr_gradient), residuals=(0, "out"),
        lower=Library(_qr_call), reference=_qr_call,
        samples=lambda: (Sample((a,), {"mode": "reduced"}) for a in _any_matrices()),
        errors=_matrix_errors("linalg.qr", mode="reduced"),
        doc="A = Q R: Q with orthonormal columns, R an upper triangle", **SHARED,
    )
)  # fmt: skip


def _geqrf_call(a: Array) -> Any:
    packed, factors = np.linalg.qr(a, "raw")
    return packed.swapaxes(-1, -2), factors


def _geqrf_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    kind = types[0]
    check_matrix("geqrf", kind, square=False)
    return kind, type_of(kind.dtype, (*kind.shape[:-2], min(kind.shape[-2:])), kind.device)


geqrf: Op = register(
    Op(
        name="linalg_geqrf", infer=_geqrf_infer,
        gradient=NoGradient("PyTorch has none either; linalg.qr has one"), residuals=(),
        lower=Library(_geqrf_call), reference=_geqrf_call,
        samples=lambda: (Sample((a,)) for a in _any_matrices()), errors=_matrix_errors("geqrf"),
        doc="R, and below its diagonal Householder's vectors; and their factors", **SHARED,
    )
)  # fmt: skip

# --- singular values ----------------------------------------------------------------------------


def _svd_call(a: Array, full: bool) -> Any:
    return tuple(one_by_one("linalg.svd", _NO_NUMBER, lambda x: np.linalg.svd(x, full), a))


def _svd_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    kind = types[0]
    check_matrix("linalg.svd", kind, square=False)
    *batch, rows, columns = kind.shape
    k = min(rows, columns)
    left, right = (rows, columns) if attrs["full"] else (k, k)
    return (
        type_of(kind.dtype, (*batch, rows, left), kind.device),
        type_of(kind.dtype.to_real(), (*batch, k), kind.device),
        type_of(kind.dtype, (*batch, right, columns), kind.device),
    )


def _svd_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    u, s, vh = _outs(n)
    g_u, g_s, g_vh = g
    rows, columns = n.inputs[0].shape[-2:]
    k = min(rows, columns)
    if n.attrs["full"]:
        u, vh = m.block(u, (0, 0), (rows, k)), m.block(vh, (0, 0), (k, columns))
        g_u = None if g_u is None else m.block(g_u, (0, 0), (rows, k))
        g_vh = None if g_vh is None else m.block(g_vh, (0, 0), (k, columns))
    inner = None if g_s is None else e.cast(m.diagonal_matrix(g_s), u.dtype)
    if g_u is not None or g_vh is not None:
        inner = m.total([inner, _svd_core(u, s, vh, g_u, g_vh)])
    if inner is None:
        return (None,)
    out = m.product(u, inner, vh)
    if g_u is not None and rows > k:
        off = e.sub(g_u, m.product(u, m.adjoint(u), g_u))
        out = e.add(out, m.product(m.over(off, m.columns(s)), vh))
    if g_vh is not None and columns > k:
        off = e.sub(g_vh, m.product(g_vh, m.adjoint(vh), vh))
        out = e.add(out, m.product(u, m.over(off, m.rows(s))))
    return (out,)


def _svd_core(u: Node, s: Node, vh: Node, g_u: Node | None, g_vh: Node | None) -> Node:
    """What the gradients of the vectors give between these vectors."""
    squares = e.mul(s, s)
    shape = (*s.shape, s.shape[-1])
    gaps = e.sub(e.expand(m.columns(squares), shape=shape), e.expand(m.rows(squares), shape=shape))
    gaps = _where_diagonal(gaps, 1)
    left = None if g_u is None else _skew(m.product(m.adjoint(u), g_u))
    right = None if g_vh is None else _skew(m.product(vh, m.adjoint(g_vh)))
    inner = m.total([
        None if left is None else m.times(left, m.columns(s)),
        None if right is None else m.times(right, m.rows(s)),
    ])  # fmt: skip
    inner = m.over(inner, gaps)
    if left is not None and u.dtype.kind == "c":
        double = m.scaled(e.cast(m.columns(s), u.dtype), 2)
        turned = m.on_diagonal(e.full_like(left, 0), m.over(left, double))
        inner = e.add(_where_diagonal(inner, 0), turned)
    return inner


svd: Op = register(
    Op(
        name="linalg_svd", infer=_svd_infer, gradient=Joint(_svd_gradient), residuals=("out",),
        lower=Library(_svd_call), reference=_svd_call,
        samples=lambda: (
            Sample((a,), {"full": full}, smooth=not full)
            for a in _any_matrices() for full in (True, False)
        ),
        errors=_matrix_errors("linalg.svd", full=False),
        doc="A = U diag(S) V^H: orthonormal vectors and singular values, the largest first",
        **SHARED,
    )
)  # fmt: skip


def _svdvals_call(a: Array) -> Any:
    return one_by_one("linalg.svdvals", _NO_NUMBER, lambda x: np.linalg.svd(x, compute_uv=False), a)


def _svdvals_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    check_matrix("linalg.svdvals", types[0], square=False)
    return _svd_infer(types, {"full": False})[1]


def _svdvals_gradient(g: Node, n: Node) -> Node:
    u, _, vh = _outs(svd(n.inputs[0], full=False))
    return m.product(m.times(u, m.columns(g)), vh)


svdvals: Op = register(
    Op(
        name="linalg_svdvals", infer=_svdvals_infer, gradient=(_svdvals_gradient,), residuals=(0,),
        lower=Library(_svdvals_call), reference=_svdvals_call,
        samples=lambda: (Sample((a,)) for a in _any_matrices()),
        errors=_matrix_errors("linalg.svdvals"), doc="the singular values", **SHARED,
    )
)  # fmt: skip

# --- symmetric eigenvalues ----------------------------------------------------------------------


def _eigh_call(a: Array, lower: bool) -> Any:
    half: Any = "L" if lower else "U"
    return tuple(one_by_one("linalg.eigh", _NO_NUMBER, lambda x: np.linalg.eigh(x, half), a))


def _eigh_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    kind = types[0]
    check_matrix("linalg.eigh", kind)
    return type_of(kind.dtype.to_real(), kind.shape[:-1], kind.device), kind


def _gaps(values: Node) -> Node:
    """values[j] - values[i], and 1 on the diagonal."""
    shape = (*values.shape, values.shape[-1])
    gaps = e.sub(e.expand(m.columns(values), shape=shape), e.expand(m.rows(values), shape=shape))
    return _where_diagonal(gaps, 1)


def _eigh_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    values, vectors = _outs(n)
    g_values, g_vectors = g
    inner = None
    if g_vectors is not None:
        turned = m.scaled(_skew(m.product(m.adjoint(vectors), g_vectors)), 0.5)
        inner = _where_diagonal(m.over(turned, _gaps(values)), 0)
    there = None if g_values is None else e.cast(m.diagonal_matrix(g_values), vectors.dtype)
    inner = m.total([inner, there])
    return (None if inner is None else m.product(vectors, inner, m.adjoint(vectors)),)


def _symmetric(**attrs: Any) -> Any:
    for (a,), *_ in square_samples():
        yield Sample((a + a.swapaxes(-1, -2),), attrs, smooth=False)


eigh: Op = register(
    Op(
        name="linalg_eigh", infer=_eigh_infer, gradient=Joint(_eigh_gradient), residuals=("out",),
        lower=Library(_eigh_call), reference=_eigh_call,
        samples=lambda: [s for lower in (True, False) for s in _symmetric(lower=lower)],
        errors=_matrix_errors("linalg.eigh", lower=True),
        doc="eigenvalues, the smallest first, and orthonormal vectors of a Hermitian matrix",
        **SHARED,
    )
)  # fmt: skip


def _eigvalsh_call(a: Array, lower: bool) -> Any:
    half: Any = "L" if lower else "U"
    return one_by_one("linalg.eigvalsh", _NO_NUMBER, lambda x: np.linalg.eigvalsh(x, half), a)


def _eigvalsh_gradient(g: Node, n: Node) -> Node:
    vectors = _outs(eigh(n.inputs[0], lower=n.attrs["lower"]))[1]
    return m.product(m.times(vectors, m.columns(g)), m.adjoint(vectors))


eigvalsh: Op = register(
    Op(
        name="linalg_eigvalsh", infer=lambda types, attrs: _eigh_infer(types, attrs)[0],
        gradient=(_eigvalsh_gradient,), residuals=(0,), lower=Library(_eigvalsh_call),
        reference=_eigvalsh_call, samples=lambda: _symmetric(lower=True),
        errors=_matrix_errors("linalg.eigh", lower=True),
        doc="the eigenvalues of a Hermitian matrix", **SHARED,
    )
)  # fmt: skip

# --- general eigenvalues ------------------------------------------------------------------------


def _eig_call(a: Array) -> Any:
    return tuple(one_by_one("linalg.eig", _NO_NUMBER, np.linalg.eig, a))


def _eig_infer(types: Sequence[Type], attrs: dict[str, Any]) -> tuple[Type, ...]:
    kind = types[0]
    check_matrix("linalg.eig", kind)
    wide = kind.dtype.to_complex()
    return type_of(wide, kind.shape[:-1], kind.device), type_of(wide, kind.shape, kind.device)


def _as_input(out: Node, n: Node) -> Node:
    """The gradient of a real matrix is real."""
    return out if n.inputs[0].dtype.kind == "c" else part(out, 0)


def _eig_gradient(g: Any, n: Node) -> Sequence[Node | None]:
    values, vectors = _outs(n)
    g_values, g_vectors = g
    turned = m.adjoint(vectors)
    inner = None
    if g_vectors is not None:
        inner = m.product(turned, g_vectors)
        lengths = e.cast(part(m.diagonal(inner), 0), vectors.dtype)
        inner = e.sub(inner, m.product(turned, m.times(vectors, m.columns(lengths))))
        inner = _where_diagonal(m.over(inner, m.conj(_gaps(values))), 0)
    there = None if g_values is None else m.diagonal_matrix(g_values)
    inner = m.total([inner, there])
    if inner is None:
        return (None,)
    return (_as_input(solve(turned, m.product(inner, turned)), n),)


eig: Op = register(
    Op(
        name="linalg_eig", infer=_eig_infer, gradient=Joint(_eig_gradient), residuals=("out",),
        lower=Library(_eig_call), reference=_eig_call,
        samples=lambda: (Sample(s.args, smooth=False) for s in square_samples()),
        errors=square_errors("linalg.eig"), doc="complex eigenvalues and vectors", **SHARED,
    )
)  # fmt: skip


def _eigvals_call(a: Array) -> Any:
    return one_by_one("linalg.eigvals", _NO_NUMBER, np.linalg.eigvals, a)


def _eigvals_gradient(g: Node, n: Node) -> Node:
    turned = m.adjoint(_outs(eig(n.inputs[0]))[1])
    return _as_input(solve(turned, m.times(m.rows(g), turned)), n)


eigvals: Op = register(
    Op(
        name="linalg_eigvals", infer=lambda types, attrs: _eig_infer(types, attrs)[0],
        gradient=(_eigvals_gradient,), residuals=(0,), lower=Library(_eigvals_call),
        reference=_eigvals_call,
        samples=lambda: (Sample(s.args, smooth=False) for s in square_samples()),
        errors=square_errors("linalg.eig"), doc="the complex eigenvalues", **SHARED,
    )
)  # fmt: skip

# --- pseudoinverse and exponential --------------------------------------------------------------


def _pinv_call(a: Array, tol: Array, hermitian: bool) -> Array:
    """V diag(1/S) U^H of the singular values above ``tol``."""
    if 0 in a.shape[-2:]:
        return a.swapaxes(-1, -2)
    if hermitian:
        values, vectors = one_by_one("linalg.pinv", _NO_NUMBER, np.linalg.eigh, a)
        u, s, vh = vectors, values, vectors.conj().swapaxes(-1, -2)
    else:
        u, s, vh = one_by_one("linalg.pinv", _NO_NUMBER, lambda x: np.linalg.svd(x, False), a)
    kept = np.abs(s) > tol[..., None]
    inverse = np.where(kept, 1 / np.where(kept, s, 1), 0).astype(s.dtype)
    left = vh.conj().swapaxes(-1, -2) * inverse[..., None, :]
    return np.matmul(left, u.conj().swapaxes(-1, -2))


def _pinv_infer(types: Sequence[Type], attrs: dict[str, Any]) -> Type:
    kind = types[0]
    check_matrix("linalg.pinv", kind, square=attrs["hermitian"])
    *batch, rows, columns = kind.shape
    return type_of(kind.dtype, (*batch, columns, rows), kind.device)


def _pinv_gradient(g: Node, n: Node) -> Sequence[Node | None]:
    """G. H. Golub and V. Pereyra (1973): at a constant rank."""
    a, back = n.inputs[0], m.adjoint(g)
    inverse = m.adjoint(n)
    first = e.neg(m.product(inverse, g, inverse))
    right = m.product(back, n, inverse)
    right = e.sub(right, m.product(a, n, right))
    left = m.product(inverse, n, back)
    left = e.sub(left, m.product(left, n, a))
    return m.total([first, right, left]), None


pinv: Op = register(
    Op(
        name="linalg_pinv", infer=_pinv_infer, gradient=Joint(_pinv_gradient),
        residuals=(0, "out"), lower=Library(_pinv_call), reference=_pinv_call,
        samples=lambda: (
            Sample((a, np.full(a.shape[:-2], 1e-6, np.float32)), {"hermitian": False})
            for a in _any_matrices()
        ),
        errors=lambda: refuses(
            "linalg.pinv", np.ones((2, 2), np.int64), np.ones((), np.float32), hermitian=False
        ),
        doc="the pseudoinverse; singular values up to the second operand count as 0", **SHARED,
    )
)  # fmt: skip

_DEGREE = 18  # of Taylor's polynomial, below 1e-16 for norms up to 1


def _exponential_call(a: Array) -> Array:
    """Taylor's polynomial of A / 2^k, squared k times, with a k for every matrix."""
    if not a.size:
        return a
    wide = a.astype(np.complex128 if np.iscomplexobj(a) else np.float64)
    sizes = np.abs(wide).sum(-2).max(-1)
    sizes = np.where(np.isfinite(sizes) & (sizes > 1), sizes, 1)
    halvings = np.ceil(np.log2(sizes)).astype(int)[..., None, None]
    wide = wide / 2.0**halvings
    one = np.broadcast_to(np.eye(a.shape[-1], dtype=wide.dtype), a.shape)
    result = one
    for k in range(_DEGREE, 0, -1):
        result = one + np.matmul(wide, result) / k
    for squared in range(halvings.max()):
        result = np.where(squared < halvings, np.matmul(result, result), result)
    return result.astype(a.dtype)


def _exponential_gradient(g: Node, n: Node) -> Node:
    """The upper right block of the exponential of ((A^H, G), (0, A^H))."""
    turned = m.adjoint(n.inputs[0])
    size = turned.shape[-1]
    whole = m.above(m.beside(turned, g), m.beside(e.full_like(turned, 0), turned))
    return m.block(matrix_exp(whole), (0, size), (size, size))


matrix_exp: Op = register(
    Op(
        name="linalg_matrix_exp", infer=square_infer("linalg.matrix_exp"),
        gradient=(_exponential_gradient,), residuals=(0,), lower=Library(_exponential_call),
        reference=_exponential_call, samples=square_samples,
        errors=square_errors("linalg.matrix_exp"), doc="the exponential, I + A + A^2/2 + ...",
        **SHARED,
    )
)  # fmt: skip

__all__ = [
    "eig", "eigh", "eigvals", "eigvalsh", "geqrf", "matrix_exp", "pinv", "qr", "svd", "svdvals",
]  # fmt: skip
