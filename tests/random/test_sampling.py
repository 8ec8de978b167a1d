"""Random tensors: distributions, arguments, reproducibility, refusals."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle.runtime.cpu  # noqa: F401  (the device)
from treadle import random
from treadle.base import dtypes
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.flags import flags
from treadle.random import Generator
from treadle.tensor.creation import as_tensor
from treadle.tensor.handle import wrap
from treadle.tensor.storage import node_from_array
from treadle.tensor.tensor import Tensor

N = 20_000


def generator() -> Generator:
    return Generator().manual_seed(11)


def tensor(values: Any, dtype: Any = None) -> Tensor:
    return wrap(node_from_array(np.asarray(values), dtype))


def zeros(*shape: int, dtype: dtypes.DType = dtypes.float32) -> Tensor:
    return tensor(np.zeros(shape), dtype)


def doubles(x: Tensor) -> np.ndarray:
    return x.numpy().astype(np.float64)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=repr)
def test_rand_and_randn(dtype: dtypes.DType) -> None:
    u = random.rand(4, N // 4, dtype=dtype, generator=generator())
    z = random.randn((N,), dtype=dtype, generator=generator())
    assert (tuple(u.shape), tuple(z.shape)) == ((4, N // 4), (N,))
    assert u.dtype is z.dtype is dtype
    a, b = doubles(u), doubles(z)
    # bfloat16 numbers are those of a grid of 2^-8 from 0 on: their mean is half a step lower
    step = 2.0**-9 if dtype is dtypes.bfloat16 else 2.0**-12
    assert abs(a.mean() + step - 0.5) < 0.01
    assert abs(a.var() - 1 / 12) < 0.003
    assert abs(b.mean()) < 0.03
    assert abs(b.std() - 1) < 0.02


def test_the_default_dtype_and_shapes() -> None:
    assert random.rand().shape == ()
    assert random.rand(0, 3).tolist() == []
    assert random.rand(3).dtype is dtypes.float32
    like = random.rand_like(zeros(2, 3, dtype=dtypes.float64))
    assert (tuple(like.shape), like.dtype) == ((2, 3), dtypes.float64)
    assert random.randn_like(like, dtype=dtypes.float16).dtype is dtypes.float16
    assert random.rand(2, requires_grad=True).requires_grad


def draws() -> dict[str, Callable[[Generator], Tensor]]:
    return {
        "rand": lambda g: random.rand(100, generator=g),
        "randn": lambda g: random.randn(100, generator=g),
        "randint": lambda g: random.randint(1000, (100,), generator=g),
        "wide randint": lambda g: random.randint(1 << 50, (100,), generator=g),
        "randperm": lambda g: random.randperm(100, generator=g),
        "bernoulli": lambda g: random.bernoulli(zeros(100), 0.5, generator=g),
        "normal": lambda g: random.normal(1.0, 2.0, (100,), generator=g),
        "uniform_": lambda g: zeros(100).uniform_(-1, 1, generator=g),
        "exponential_": lambda g: zeros(100).exponential_(generator=g),
        "random_": lambda g: zeros(100).random_(generator=g),
    }


@pytest.mark.parametrize("name", draws())
def test_the_seed_decides_and_the_next_draw_differs(name: str) -> None:
    make = draws()[name]
    g = generator()
    first, second = make(g).tolist(), make(g).tolist()
    assert first != second
    assert make(generator()).tolist() == first
    assert make(Generator().manual_seed(12)).tolist() != first


def test_numbers_are_fixed_when_recorded() -> None:
    g = generator()
    a, b = random.rand(5, generator=g), random.rand(5, generator=g)
    late = b.tolist()
    early = a.tolist()
    g = generator()
    assert random.rand(5, generator=g).tolist() == early
    assert random.rand(5, generator=g).tolist() == late


def test_threads_do_not_change_the_bits() -> None:
    results = []
    for threads in (1, 2):
        with flags.context(num_threads=threads):
            x = random.randn(100_003, generator=generator())
            results.append(x.numpy().tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize(("low", "high"), [(0, 7), (-5, 5), (0, 1 << 31), (-(1 << 40), 1 << 40)])
def test_randint_is_even(low: int, high: int) -> None:
    x = random.randint(low, high, (N,), generator=generator()).numpy()
    assert x.dtype == np.int64
    assert x.min() >= low
    assert x.max() < high
    bins = min(high - low, 10)
    counts = np.histogram(x, bins, (low, high))[0]
    chi_squared = ((counts - N / bins) ** 2 / (N / bins)).sum()
    assert chi_squared < 30  # one in 2000 with 9 degrees of freedom


def test_randint_arguments() -> None:
    def values(*args: Any, **kwargs: Any) -> list[int]:
        return random.randint(*args, **kwargs, generator=generator()).tolist()

    expected = values(10, (6,))
    assert values(0, 10, (6,)) == expected
    assert values(0, 10, size=(6,)) == expected
    assert values(high=10, size=[6]) == expected
    assert values(0, high=10, size=(6,)) == expected
    assert random.randint(2, (3,), dtype=dtypes.uint8).dtype is dtypes.uint8
    whole = random.randint(5, (100,), dtype=dtypes.float32).numpy()
    assert set(whole.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    like = random.randint_like(zeros(2, 2, dtype=dtypes.int8), 3, 5)
    assert like.dtype is dtypes.int8
    assert set(like.numpy().ravel().tolist()) <= {3, 4}
    extremes = random.randint(-128, 128, (5000,), dtype=dtypes.int8).numpy()
    assert (extremes.min(), extremes.max()) == (-128, 127)


def test_randperm() -> None:
    g = generator()
    assert sorted(random.randperm(1000, generator=g).tolist()) == list(range(1000))
    assert random.randperm(0).tolist() == []
    assert random.randperm(3, dtype=dtypes.int32).dtype is dtypes.int32
    orders = [tuple(random.randperm(3, generator=g).tolist()) for _ in range(300)]
    counts = [orders.count(o) for o in set(orders)]
    assert len(counts) == 6
    assert min(counts) > 25


def test_bernoulli() -> None:
    p = np.linspace(0, 1, 5).repeat(N // 5).astype(np.float32)
    x = random.bernoulli(tensor(p), generator=generator()).numpy().reshape(5, -1)
    assert set(np.unique(x)) == {0.0, 1.0}
    assert np.abs(x.mean(1) - np.linspace(0, 1, 5)).max() < 0.03
    assert x[0].sum() == 0
    assert x[4].all()
    flips = zeros(N, dtype=dtypes.bool_).bernoulli_(0.25, generator=generator())
    assert flips.dtype is dtypes.bool_
    assert abs(flips.numpy().mean() - 0.25) < 0.015
    assert random.bernoulli(zeros(3), 1.0).tolist() == [1, 1, 1]


def test_normal_broadcasts() -> None:
    mean, std = tensor([[0.0], [100.0]], dtypes.float32), tensor([1.0, 10.0, 0.0], dtypes.float32)
    x = random.normal(mean, std, generator=generator())
    assert tuple(x.shape) == (2, 3)
    assert x.numpy()[:, 2].tolist() == [0, 100]
    z = random.randn(2, 3, generator=generator()).numpy()
    assert np.array_equal(x.numpy(), z * std.numpy() + mean.numpy())
    assert abs(doubles(random.normal(5.0, 2.0, (N,), generator=generator())).mean() - 5) < 0.06
    assert tuple(random.normal(0.0, std).shape) == (3,)


def test_in_place_methods() -> None:
    x = zeros(N, dtype=dtypes.bfloat16)
    assert x.uniform_(-3, 1, generator=generator()) is x
    a = doubles(x)
    assert (a.min() >= -3) & (a.max() <= 1)
    assert abs(a.mean() + 1) < 0.05
    a = doubles(x.normal_(2, 0.5, generator=generator()))
    assert abs(a.mean() - 2) < 0.02
    assert abs(a.std() - 0.5) < 0.02
    a = doubles(zeros(N).exponential_(4, generator=generator()))
    assert a.min() > 0
    assert abs(a.mean() - 0.25) < 0.01
    assert abs(a.var() - 1 / 16) < 0.005
    assert np.isfinite(a).all()


def test_random_fills_what_the_dtype_holds() -> None:
    for dtype, top in (
        (dtypes.uint8, 255), (dtypes.int16, (1 << 15) - 1), (dtypes.int64, (1 << 63) - 2),
        (dtypes.bool_, 1), (dtypes.float16, 1 << 11), (dtypes.bfloat16, 256),
        (dtypes.float32, 1 << 24),
    ):  # fmt: skip
        x = doubles(zeros(N, dtype=dtype).random_(generator=generator()))
        assert x.min() >= 0
        assert 0.99 * top < x.max() <= top
    x = zeros(N).random_(3, 5, generator=generator())
    assert set(x.tolist()) == {3.0, 4.0}
    assert set(zeros(N).random_(2, generator=generator()).tolist()) == {0.0, 1.0}


def test_a_view_is_filled_through() -> None:
    x = random.rand(6)
    view = x.detach()
    view.normal_(100, 1)
    assert (x.numpy() > 50).all()


def test_refusals() -> None:
    g, x = generator(), zeros(3)
    whole = zeros(3, dtype=dtypes.int64)
    cases: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: random.rand(2, dtype=dtypes.int64), DTypeError, "rand: got dtype int64; it makes"),
        (lambda: random.rand(2, -1), ShapeError, "got the shape (2, -1)"),
        (lambda: random.randint(3, 3, (2,)), ValueError, "randint: got low=3 and high=3; high"),
        (lambda: random.randint(-1, 300, (2,), dtype=dtypes.uint8), ValueError,
         "but uint8 holds 0 to 255; use a wider dtype"),
        (lambda: random.randint(-(1 << 63), 1 << 63, (2,)), ValueError, "at most 2**63 - 1"),
        (lambda: random.randint(3), TypeError, "randint: got no high or no size"),
        (lambda: random.randperm(-1), ValueError, "randperm: got n=-1; it must not be negative"),
        (lambda: random.normal(0.0, 1.0), TypeError, "normal: got numbers for mean and std"),
        (lambda: random.bernoulli(x, 1.5), ValueError, "bernoulli: got p=1.5; a probability"),
        (lambda: random.bernoulli(whole), DTypeError, "bernoulli: got dtype int64"),
        (lambda: x.bernoulli_(-0.1), ValueError, "got p=-0.1"),
        (lambda: x.uniform_(1, 0), ValueError, "uniform_: got from=1 and to=0"),
        (lambda: x.normal_(0, -1), ValueError, "normal_: got std=-1; it must not be negative"),
        (lambda: whole.normal_(), DTypeError, "normal_: got dtype int64"),
        (lambda: x.exponential_(0, generator=g), ValueError, "exponential_: got lambd=0"),
        (lambda: x.exponential_(math.inf), ValueError, "exponential_: got lambd=inf"),
    ]  # fmt: skip
    for call, error, text in cases:
        with pytest.raises(error) as caught:
            call()
        assert text in str(caught.value)
        assert "test_sampling.py" in str(caught.value)


# --- multinomial ----------------------------------------------------------------------------------


def test_multinomial_draws_by_weight():
    generator = Generator().manual_seed(0)
    weights = as_tensor([[1.0, 0.0, 3.0, 4.0], [5.0, 5.0, 0.0, 0.0]])
    drawn = random.multinomial(weights, 20000, replacement=True, generator=generator).numpy()
    shares = np.stack([np.bincount(row, minlength=4) for row in drawn]) / 20000
    assert np.allclose(shares, [[0.125, 0, 0.375, 0.5], [0.5, 0.5, 0, 0]], atol=0.015)


def test_multinomial_without_replacement_draws_each_once():
    generator = Generator().manual_seed(1)
    weights = as_tensor([1.0, 0.0, 2.0, 1e-3])
    firsts = []
    for _ in range(300):
        drawn = random.multinomial(weights, 3, generator=generator).tolist()
        assert sorted(drawn) == [0, 2, 3]
        firsts.append(drawn[0])
    assert 160 < firsts.count(2) < 240  # 200 expected


@pytest.mark.parametrize("weights", [[1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_multinomial_refuses_what_is_no_distribution(weights):
    with pytest.raises(ValueError, match=r"multinomial: got weights of shape \(2,\) that cannot"):
        random.multinomial(as_tensor(weights), 1)


def test_multinomial_needs_enough_positive_weights():
    with pytest.raises(ValueError, match="at least 2 of every row positive"):
        random.multinomial(as_tensor([1.0, 0.0]), 2)
    with pytest.raises(ShapeError, match="num_samples=0"):
        random.multinomial(as_tensor([1.0]), 0)
