"""Functions composed of others, against NumPy: products, statistics, assembly, questions, names."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import treadle
from treadle.base.errors import ShapeError
from treadle.testing.gradients import check_grads

RNG = np.random.default_rng(0)
A, B, S = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 4)), RNG.normal(size=(4, 4))
V, W = RNG.normal(size=4), RNG.normal(size=4)
C, D = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 4, 5))
HOLES = np.where(RNG.random((3, 4)) < 0.4, np.nan, A)
COUNTS, SHARES = np.array([1, 2, 3, 1]), np.array([0.5, 0.2, 0.3, 1.0])


def windows(x, axis, size, step):
    return (
        np.lib.stride_tricks.sliding_window_view(x, size, axis)
        .swapaxes(0, axis)[::step]
        .swapaxes(0, axis)
    )


def blocks(*arrays):
    out = np.zeros((sum(len(x) for x in arrays), sum(x.shape[1] for x in arrays)))
    row = column = 0
    for x in arrays:
        out[row : row + len(x), column : column + x.shape[1]] = x
        row, column = row + len(x), column + x.shape[1]
    return out


def written(x, place, value):
    x = x.copy()
    x[place] = value
    return x


# (name, arguments, options, reference); arrays become tensors.
CASES = [
    ("addmv", (V[:3], A, W), {"beta": 0.5, "alpha": 2}, lambda x, m, v, **_: x / 2 + 2 * m @ v),
    ("addr", (A, V[:3], W), {"alpha": 2}, lambda x, v, w, **_: x + 2 * np.outer(v, w)),
    ("baddbmm", (np.ones((2, 3, 5)), C, D), {"beta": 3}, lambda x, c, d, **_: 3 * x + c @ d),
    ("addbmm", (np.ones((3, 5)), C, D), {"beta": 0}, lambda x, c, d, **_: (c @ d).sum(0)),
    ("vdot", (V, W), {}, np.vdot),
    ("chain_matmul", (A, S, S), {}, lambda *m: np.linalg.multi_dot(m)),
    ("cross", (A, B), {"dim": 0}, lambda x, y, **_: np.cross(x, y, axis=0)),
    ("nansum", (HOLES, 1), {}, lambda x, dim: np.nansum(x, dim)),
    ("nanmean", (HOLES, 0, True), {}, lambda x, dim, keep: np.nanmean(x, dim, keepdims=keep)),
    ("trace", (S,), {}, np.trace),
    ("cov", (A,), {}, np.cov),
    ("cov", (V,), {"correction": 0}, lambda x, correction: np.cov(x, ddof=0)),
    ("cov", (A,), {"fweights": COUNTS, "aweights": SHARES}, np.cov),
    ("corrcoef", (A,), {}, np.corrcoef),
    ("dist", (A, B, 3), {}, lambda x, y, p: (np.abs(x - y) ** p).sum() ** (1 / p)),
    ("cdist", (C, C[:1, :2]), {}, lambda x, y: np.linalg.norm(x[:, :, None] - y[:, None], axis=-1)),
    ("renorm", (A, 2, 0, 1.0), {},
     lambda x, p, dim, m: x * np.minimum(1, m / np.linalg.norm(x, axis=1, keepdims=True))),
    ("column_stack", ([V, W],), {}, np.column_stack),
    ("row_stack", ([V, A],), {}, np.vstack),
    ("block_diag", (A, S), {}, blocks),
    ("hsplit", (A, 2), {}, np.hsplit),
    ("vsplit", (S, [1, 3]), {}, np.vsplit),
    ("dsplit", (C, 2), {}, np.dsplit),
    ("diag_embed", (V, 1), {}, np.diag),
    ("diagflat", (A,), {}, np.diagflat),
    ("diagonal_scatter", (S, V[:3], 1), {},
     lambda x, v, k: written(x, (np.arange(3), np.arange(3) + k), v)),
    ("select_scatter", (A, V, 0, 1), {}, lambda x, v, dim, i: written(x, i, v)),
    ("slice_scatter", (A, B[:, :2], 1, 0, 4, 2), {},
     lambda x, v, *_: written(x, (slice(None), slice(0, 4, 2)), v)),
    ("put", (A, COUNTS[1:3], V[:2]), {}, lambda x, i, v: written(x.ravel(), i, v).reshape(3, 4)),
    ("cartesian_prod", (V, W), {},
     lambda x, y: np.stack([g.ravel() for g in np.meshgrid(x, y, indexing="ij")], 1)),
    ("combinations", (V, 3, True), {},
     lambda x, r, again: np.array(list(itertools.combinations_with_replacement(x, r)))),
    ("vander", (V, 3, True), {}, np.vander),
    ("kron", (A, V), {}, np.kron),
]  # fmt: skip


def tensors_of(x):
    if isinstance(x, np.ndarray):
        return treadle.tensor(x)
    return [tensors_of(y) for y in x] if isinstance(x, list) and not isinstance(x[0], int) else x


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_against_numpy(case):
    name, args, options, reference = case
    given = [tensors_of(x) for x in args]
    found = getattr(treadle, name)(*given, **{k: tensors_of(v) for k, v in options.items()})
    expected = reference(*args, **options)
    if not isinstance(expected, list):
        found, expected = [found], [expected]
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(f.numpy(), e, rtol=1e-6)
    method = getattr(given[0], name, None)  # the same as a method
    if method is not None:
        again = method(*given[1:], **{k: tensors_of(v) for k, v in options.items()})
        again = list(again) if len(expected) > 1 else [again]
        for f, g in zip(found, again, strict=True):
            np.testing.assert_array_equal(f.numpy(), g.numpy())


@pytest.mark.parametrize("name", ["cov", "corrcoef", "trace", "diag_embed", "vander"])
def test_gradients(name):
    x = treadle.tensor(V if name == "vander" else S, requires_grad=True)
    check_grads(getattr(treadle, name), [x])


def test_gradients_of_distances():
    x, y = (treadle.tensor(z, requires_grad=True) for z in (A, B))
    check_grads(treadle.cdist, [x, y])
    with treadle.no_grad():
        assert treadle.cdist(x, x).diagonal().tolist() == [0.0] * 3
    treadle.cdist(x, x).sum().backward()
    assert np.isfinite(x.grad.numpy()).all()


def test_windows():
    for axis, size, step in ((1, 2, 1), (1, 3, 2), (0, 3, 1), (0, 2, 2)):
        found = treadle.tensor(S).unfold(axis, size, step).numpy()
        np.testing.assert_array_equal(found, windows(S, axis, size, step))


def test_index_patterns():
    for row, column, offset in ((3, 4, 0), (4, 3, 1), (3, 3, -1), (0, 3, 0)):
        found = treadle.tril_indices(row, column, offset).numpy()
        np.testing.assert_array_equal(found, np.tril_indices(row, offset, column))
        found = treadle.triu_indices(row, column, offset).numpy()
        np.testing.assert_array_equal(found, np.triu_indices(row, offset, column))
    places = np.array([[1, 5], [7, 11]])
    for f, e in zip(
        treadle.unravel_index(treadle.tensor(places), (3, 4)),
        np.unravel_index(places, (3, 4)), strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(f.numpy(), e)


def test_in_place():
    x = treadle.tensor(S)
    y = x.clone()
    assert y.tril_() is y
    np.testing.assert_array_equal(y.numpy(), np.tril(S))
    assert x.clone().gt_(0).tolist() == (S > 0).astype(float).tolist()
    for wrap in (False, True):
        tall, expected = treadle.zeros(7, 3), np.zeros((7, 3))
        np.fill_diagonal(expected, 5, wrap)
        np.testing.assert_array_equal(tall.fill_diagonal_(5.0, wrap=wrap).numpy(), expected)
    assert treadle.zeros(2, 2, 2).fill_diagonal_(1).sum().item() == 2
    assert treadle.zeros(3).put_(treadle.tensor([1, 1]), treadle.ones(2), True).tolist() == [
        0,
        2,
        0,
    ]


def test_sum_to_size_undoes_broadcasting():
    x = treadle.tensor(C)
    assert x.sum_to_size(3, 1).tolist() == pytest.approx(C.sum((0, 2), keepdims=True)[0])
    with pytest.raises(ShapeError, match=r"sum_to_size: got the size \(2,\) for a tensor of shape"):
        x.sum_to_size(2)


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float16", "float32", "float64"])
def test_limits_of_floats(name):
    known, told = np.finfo(name), treadle.finfo(getattr(treadle, name))
    assert (told.bits, told.dtype) == (known.bits, name)
    for field in ("eps", "max", "min", "tiny", "smallest_normal", "resolution"):
        assert getattr(told, field) == pytest.approx(float(getattr(known, field)), rel=1e-3)
    assert told == treadle.finfo(name) != treadle.finfo(treadle.bfloat16)
    assert treadle.finfo(treadle.bfloat16).eps == 2**-7


def test_limits_of_integers():
    told = treadle.iinfo(treadle.int16)
    assert (told.min, told.max, told.bits) == (-(2**15), 2**15 - 1, 16)
    assert (treadle.iinfo(treadle.uint8).min, treadle.iinfo(treadle.uint8).max) == (0, 255)
    with pytest.raises(TypeError, match="iinfo: got float32; it takes integer dtypes"):
        treadle.iinfo(treadle.float32)
    with pytest.raises(TypeError, match="finfo: got int64; it takes floating dtypes"):
        treadle.finfo(treadle.int64)


def test_questions():
    x = treadle.tensor([[1, 2, 3]])
    assert treadle.isin(x, treadle.tensor([3, 1])).tolist() == [[True, False, True]]
    assert treadle.isin(x, 2, invert=True).tolist() == [[True, False, True]]
    assert treadle.result_type(x, 1.5) is treadle.float32
    assert (treadle.can_cast(treadle.int64, treadle.float16), treadle.can_cast(float, int)) == (
        1,
        0,
    )
    assert treadle.broadcast_shapes((2, 1), 3, (1, 1, 1)) == (1, 2, 3)
    assert treadle.is_nonzero(treadle.tensor([0.5]))
    assert not x.is_same_size(x.t())
    assert treadle.isreal(x).all()
    assert treadle.typename(x) == "treadle.LongTensor"
    assert treadle.typename(1) == "int"
    with pytest.raises(ShapeError, match=r"broadcast_shapes: .*\(2,\).*\(3,\)"):
        treadle.broadcast_shapes((2,), (3,))
    with pytest.raises(ShapeError, match="is_nonzero: got a tensor of shape"):
        treadle.is_nonzero(x)


def test_other_names():
    x = treadle.tensor([-1.0, 2.0])
    assert treadle.FloatTensor([1, 2]).dtype is treadle.float32
    assert treadle.LongTensor(2, 3).shape == (2, 3)
    assert x.new([3]).tolist() == [3.0]
    assert treadle.rsub(x, 1, alpha=2).tolist() == [3.0, -3.0]
    assert treadle.angle(x).tolist() == pytest.approx([np.pi, 0])
    assert x.conj() is x.real is x
    assert (x.is_cuda, x.is_cpu, x.get_device(), x.is_pinned()) == (False, True, -1, False)
    assert x.short().dtype is treadle.int16
    assert treadle.clone(x) is not x
    y = treadle.detach(x)
    y[0] = 5
    assert x.tolist() == [5.0, 2.0]
    assert x.data_ptr() == x.numpy().ctypes.data
    assert treadle.fill(x, 3).tolist() == [3.0, 3.0]
    assert treadle.tensor([1, 2]).apply_(lambda v: v * v).tolist() == [1, 4]
    assert (
        treadle.ones(2, 2).map_(treadle.tensor([1, 2]), lambda v, w: v + w).tolist() == [[2, 3]] * 2
    )
    assert reversed(treadle.arange(3)).tolist() == [2, 1, 0]
    assert treadle.adjoint(treadle.ones(2, 3)).shape == (3, 2)
    y = x.clone().requires_grad_() * 2
    assert not y.retains_grad
    y.retain_grad()
    assert y.retains_grad
    with pytest.raises(NotImplementedError, match="share_memory_: a tensor's memory belongs"):
        x.share_memory_()


@pytest.mark.parametrize(
    "call, text",
    [
        (lambda x: treadle.trace(x[0]), r"trace: got a tensor of shape \(4,\); it takes a matrix"),
        (lambda x: treadle.cov(x[None]), r"cov: got a tensor of shape \(1, 3, 4\); it takes at"),
        (lambda x: treadle.cov(x, fweights=x[0, :2]), r"cov: got weights of shape \(2,\) for 4 o"),
        (lambda x: treadle.cross(x, x, dim=1), r"cross: .* and dim=1; the dimension must have the"),
        (lambda x: treadle.cdist(x, x.t()), r"cdist: got shapes \(3, 4\) and \(4, 3\) and p"),
        (lambda x: treadle.chain_matmul(x, x[0]), r"chain_matmul: got a tensor of shape \(4,\)"),
        (lambda x: treadle.hsplit(x, 3), r"hsplit: got 3 sections of dimension 1 .* must divide 4"),
        (lambda x: x.unfold(0, 4, 1), r"unfold: got size 4 and step 1 for dimension 0 of a tensor"),
        (lambda x: treadle.select_scatter(x, x, 0, 0), r"select_scatter: got a src of shape \(3, "),
        (lambda x: treadle.diag_embed(x, 0, 1, 1), "diag_embed: got dim1 1 and dim2 1; they"),
        (lambda x: treadle.combinations(x), r"combinations: got a tensor of shape \(3, 4\) and"),
        (lambda x: treadle.vander(x), r"vander: got a tensor of shape \(3, 4\); it takes a vector"),
        (lambda x: treadle.block_diag(x[None]), "block_diag: .* it takes at most 2 dimensions"),
    ],
)  # fmt: skip
def test_errors(call, text):
    with pytest.raises(ShapeError, match=text):
        call(treadle.tensor(A))
