"""vmap against a loop over the examples, bit by bit, and what it refuses."""

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import func


def draw(*shape, seed=0):
    random = np.random.default_rng(seed + sum(shape))
    return treadle.tensor(random.standard_normal(shape).astype(np.float32))


def whole(*shape, below=3, seed=0):
    return treadle.tensor(np.random.default_rng(seed).integers(0, below, shape))


def written(x):
    z = x.clone()
    z[0] = x[1]
    return z.mul_(2).add_(x)


CASES = {
    "linear": (F.linear, (draw(4, 5, 3), draw(4, 6, 3), draw(4, 6)), (0, 0, 0)),
    "same weight": (F.linear, (draw(4, 5, 3), draw(6, 3)), (0, None)),
    "same input": (F.linear, (draw(5, 3), draw(4, 6, 3)), (None, 0)),
    "matrix and vector": (treadle.matmul, (draw(4, 5, 3), draw(4, 3)), (0, 0)),
    "batches of matrices": (treadle.matmul, (draw(4, 2, 5, 3), draw(2, 3, 7)), (0, None)),
    "same batch of matrices": (treadle.matmul, (draw(2, 5, 3), draw(4, 2, 3, 7)), (None, 0)),
    "einsum": (lambda a, b: treadle.einsum("ij,jk->ki", a, b), (draw(4, 5, 3), draw(3, 2)),
               (0, None)),
    "image": (F.conv2d, (draw(4, 3, 6, 6), draw(5, 3, 3, 3)), (0, None)),
    "kernels": (lambda x, w: F.conv2d(x, w, stride=2), (draw(2, 3, 6, 6), draw(4, 5, 3, 3, 3)),
                (None, 0)),
    "images and kernels in groups": (
        lambda x, w: F.conv2d(x, w, groups=2), (draw(4, 2, 4, 6, 6), draw(4, 6, 2, 3, 3)), (0, 0)
    ),
    "kernels in groups": (
        lambda x, w: F.conv2d(x, w, groups=2), (draw(2, 4, 6, 6), draw(4, 6, 2, 3, 3)), (None, 0)
    ),
    "transposed convolution": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2), (draw(4, 2, 3, 6, 6), draw(3, 5, 3, 3)),
        (0, None),
    ),
    "pooling": (lambda x: F.max_pool2d(x, 2) + F.avg_pool2d(x, 2), (draw(4, 2, 3, 6, 6),), (0,)),
    "layer norm": (lambda x: F.layer_norm(x, (5,)), (draw(4, 2, 5),), (0,)),
    "batch norm": (lambda x: F.batch_norm(x, None, None, training=True), (draw(4, 6, 5),), (0,)),
    "softmax along another dim": (lambda x: F.softmax(x, 0), (draw(5, 4),), (1,)),
    "cross entropy": (F.cross_entropy, (draw(4, 6, 3), whole(4, 6)), (0, 0)),
    "cross entropy of one": (F.cross_entropy, (draw(4, 3), whole(4)), (0, 0)),
    "attention": (F.scaled_dot_product_attention,
                  (draw(4, 2, 5, 3), draw(4, 2, 6, 3), draw(4, 2, 6, 3, seed=1)), (0, 0, 0)),
    "embedding": (lambda w, i: F.embedding(i, w), (draw(9, 3), whole(4, 7, below=9)), (None, 0)),
    "tables": (lambda w, i: F.embedding(i, w), (draw(4, 9, 3), whole(4, 7, below=9)), (0, 0)),
    "index": (lambda x, i: x[i], (draw(4, 5, 2), whole(4, 3, below=5)), (0, 0)),
    "gather": (lambda x, i: x.gather(0, i), (draw(4, 5, 2), whole(4, 3, 2)), (0, 0)),
    "scatter": (lambda x, i: treadle.zeros(5).scatter_add(0, i, x),
                (draw(4, 7), whole(4, 7, below=5)), (0, 0)),
    "writes in place": (written, (draw(4, 5, 2),), (0,)),
    "cumprod": (lambda x: x.cumprod(0).cumsum(0), (draw(4, 5),), (0,)),
    "sort": (lambda x: x.sort(0, descending=True)[0] + x.max(), (draw(4, 5),), (0,)),
    "where": (lambda x: treadle.where(x > 0, x, -2 * x).clamp(-1, 1), (draw(4, 5),), (0,)),
    "statistics": (lambda x: x.var() + x.std(0) + x.norm() + x.logsumexp(0), (draw(4, 5),), (0,)),
    "joined": (lambda a, b: treadle.cat([a, b, a]).flip(0), (draw(4, 5), draw(5)), (0, None)),
    "a constant": (lambda x: treadle.arange(3.0), (draw(4, 5),), (0,)),
}  # fmt: skip


def rows(function, args, dims):
    """The function of one example after the other."""
    count = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    return treadle.stack([
        function(*(a if d is None else a.select(d, i) for a, d in zip(args, dims, strict=True)))
        for i in range(count)
    ])  # fmt: skip


def same(a, b):
    assert a.shape == b.shape
    assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()


@pytest.mark.parametrize("name", CASES)
def test_gives_the_bits_of_a_loop(name):
    function, args, dims = CASES[name]
    same(func.vmap(function, dims)(*args), rows(function, args, dims))


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_examples(name):
    function, args, dims = CASES[name]

    def loss(*xs):
        return (function(*xs) ** 2).sum()

    wanted = next(i for i, x in enumerate(args) if x.is_floating_point())
    gradient = func.grad(loss, wanted)
    close = np.testing.assert_allclose
    found, expected = func.vmap(gradient, dims)(*args), rows(gradient, args, dims)
    close(found.numpy(), expected.numpy(), 1e-5, 1e-5)

    def total(x):
        given = [*args[:wanted], x, *args[wanted + 1 :]]
        return func.vmap(loss, dims)(*given).sum()

    def total_of_rows(x):
        return rows(loss, [*args[:wanted], x, *args[wanted + 1 :]], dims).sum()

    through, expected = (func.grad(f)(args[wanted]) for f in (total, total_of_rows))
    close(through.numpy(), expected.numpy(), 1e-5, 1e-5)


def test_trees_and_dims():
    data = {"a": draw(3, 4), "b": [draw(4, 3), treadle.tensor(2.0)]}

    def function(tree, scale):
        return {"sum": tree["a"] + tree["b"][0] * scale, "same": tree["b"][1]}, tree["a"].sum()

    dims = ({"a": 1, "b": [0, None]}, None)
    out, total = func.vmap(function, dims, ({"sum": 1, "same": None}, 0))(data, 3.0)
    expected = (data["a"] + data["b"][0].t() * 3.0).numpy()
    np.testing.assert_array_equal(out["sum"].numpy(), expected)
    assert out["same"].item() == 2.0
    np.testing.assert_allclose(total.numpy(), data["a"].numpy().sum(0), 1e-6)
    assert func.vmap(lambda x: x, out_dims=-1)(draw(2, 3, 5)).shape == (3, 5, 2)


def test_chunks_give_the_same_bits():
    x = draw(7, 5)
    whole_, chunks = (func.vmap(lambda x: F.softmax(x, 0), chunk_size=c)(x) for c in (None, 3))
    same(whole_, chunks)


def test_nested():
    a, b = draw(3), draw(4)
    table = func.vmap(func.vmap(treadle.mul, (0, None)), (None, 0))(a, b)
    same(table, b[:, None] * a)


def test_random_numbers():
    x = treadle.zeros(1000, 2)
    with pytest.raises(RuntimeError, match=r"randomness='different'.*test_vmap.py"):
        func.vmap(lambda x: x + treadle.rand(2))(x)
    alike = func.vmap(lambda x: x + treadle.rand(2), randomness="same")(x)
    assert (alike == alike[0]).all()
    treadle.manual_seed(0)
    first = func.vmap(lambda x: x + treadle.rand(2), randomness="different")(x)
    following = treadle.rand(2000)
    drawn = treadle.cat([first.reshape(-1), following])
    assert len(treadle.unique(drawn)) > 3990  # no number is drawn twice, but by chance
    dropped = func.vmap(lambda x: F.dropout(x + 1), randomness="different")(x)
    assert 900 < (dropped == 0).sum().item() < 1100


def test_values_that_are_the_same_for_all_are_there():
    def function(x):
        scale = treadle.ones(2) * 3
        return x * scale.sum().item() if scale[0] > 2 else x

    assert func.vmap(function)(treadle.arange(3.0)).tolist() == [0.0, 6.0, 12.0]


def test_data_dependent_python_is_refused():
    def branches(x):
        if x.sum() > 0:
            return x
        return -x

    line = branches.__code__.co_firstlineno + 1
    with pytest.raises(RuntimeError, match=rf"vmap: .*treadle.where.*test_vmap.py:{line}\]"):
        func.vmap(branches)(draw(3, 2))
    with pytest.raises(RuntimeError, match=r"item\(\)"):
        func.vmap(lambda x: func.vmap(lambda y: y * x.item())(x.expand(2)))(draw(3))


def test_prints_what_is_known():
    texts = []
    func.vmap(lambda x: (texts.append(repr(x * 2)), x)[1])(draw(2, 3))
    assert texts == ["tensor(<one of many examples>, size=(3,), dtype=treadle.float32)"]


def test_tensors_do_not_leave():
    leaked = []
    func.vmap(lambda x: (leaked.append(x * 2), x)[1])(draw(3))
    with pytest.raises(RuntimeError, match="used outside of it"):
        (leaked[0] + 1).item()


def test_writes_into_tensors_from_outside():
    total, inside = treadle.zeros(2), []

    def adds(x):
        total.add_(x)
        return x

    line = adds.__code__.co_firstlineno + 1
    with pytest.raises(RuntimeError, match=rf"into a tensor of shape \(2,\).*test_vmap.py:{line}"):
        func.vmap(adds)(draw(3, 2))
    assert total.tolist() == [0.0, 0.0]

    def counts(x):
        total.add_(1)
        own = treadle.zeros(2)
        own[0] = x[1]
        inside.append(own[0].shape)
        return own

    x = draw(3, 2)
    assert (func.vmap(counts)(x)[:, 0] == x[:, 1]).all()
    assert total.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: func.vmap(treadle.add)(draw(2), draw(3)), ValueError, "got 2, 3 examples"),
        (lambda: func.vmap(treadle.sin, 1)(draw(2)), ValueError, "in_dims=1 for argument 0 of"),
        (lambda: func.vmap(treadle.add)(draw(2), 1.0), TypeError, "say None for it in in_dims"),
        (lambda: func.vmap(treadle.sin, None)(draw(2)), ValueError, "no argument with examples"),
        (lambda: func.vmap(lambda x: 1)(draw(2)), TypeError, "the function returned a int"),
        (lambda: func.vmap(treadle.sin, out_dims=2)(draw(2)), ValueError, "out_dims: dim out of"),
        (lambda: func.vmap(treadle.sin, out_dims=None)(draw(2)), ValueError, "say where the"),
        (lambda: func.vmap(treadle.add, (0,))(draw(2), draw(2)), ValueError, "of 2 parts"),
        (lambda: func.vmap(treadle.sin, randomness="no"), ValueError, "'error', 'same' or"),
        (lambda: func.vmap(treadle.sin, chunk_size=0), ValueError, "at least 1"),
        (
            lambda: func.vmap(lambda x: x.sum().backward())(draw(2, 2).requires_grad_()),
            RuntimeError, "use treadle.func.grad inside",
        ),
    ],
)  # fmt: skip
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        call()
