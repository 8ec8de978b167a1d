"""Mixed precision: which functions run in which dtype, and scaled losses."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import amp, nn
from treadle.nn import functional as F

BF16, F32 = treadle.bfloat16, treadle.float32


def rand(*shape):
    return treadle.tensor(np.random.default_rng(0).random(shape, np.float32))


X, B = rand(4, 4), rand(2, 4, 4)
IMAGE = rand(1, 2, 8, 8)
HALF = X.bfloat16()
CASES = [
    ("matmul", lambda: X @ X, BF16), ("bmm", lambda: treadle.bmm(B, B), BF16),
    ("addmm", lambda: treadle.addmm(X, X, X), BF16), ("linear", lambda: nn.Linear(4, 4)(X), BF16),
    ("conv2d", lambda: nn.Conv2d(2, 3, 3)(IMAGE), BF16),
    ("attention", lambda: F.scaled_dot_product_attention(B, B, B), BF16),
    ("mha", lambda: nn.MultiheadAttention(4, 2)(B, B, B)[0], BF16),
    ("lstm", lambda: nn.LSTM(4, 4)(B)[0], BF16),
    ("mse_loss", lambda: F.mse_loss(HALF, HALF), F32),
    ("cross_entropy", lambda: F.cross_entropy(HALF, treadle.tensor([0, 1, 2, 3])), F32),
    ("prod", lambda: HALF.prod(), F32), ("quantile", lambda: treadle.quantile(HALF, 0.5), F32),
    ("softmax", lambda: HALF.softmax(-1), BF16), ("exp", lambda: X.exp(), F32),
    ("layer_norm", lambda: nn.LayerNorm(4)(HALF), BF16), ("add", lambda: X + HALF, F32),
    ("float64", lambda: X.double() @ X.double(), treadle.float64),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "dtype"), CASES, ids=[c[0] for c in CASES])
def test_functions_run_in_their_dtype(name, function, dtype):
    with treadle.autocast("cpu"):
        assert function().dtype is dtype
    if dtype is BF16 and name not in ("softmax", "layer_norm"):
        assert function().dtype is F32


def test_the_result_is_that_of_converted_operands():
    with treadle.autocast("cpu"):
        found = X @ X
    assert found.tolist() == (X.bfloat16() @ X.bfloat16()).tolist()


def test_training_in_mixed_precision_keeps_float32_parameters():
    treadle.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = treadle.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        with treadle.autocast("cpu", dtype=BF16):
            loss = F.mse_loss(net(X), treadle.ones(4, 1))
        loss.backward()
        assert net[0].weight.grad.dtype is F32
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_blocks_nest_and_decorate():
    assert not treadle.is_autocast_enabled()
    with treadle.autocast("cpu"):
        assert treadle.is_autocast_enabled("cpu")
        with treadle.autocast("cpu", enabled=False):
            assert (X @ X).dtype is F32
        assert (X @ X).dtype is BF16
    with pytest.raises(ZeroDivisionError), treadle.autocast("cpu", dtype=treadle.float16):
        assert treadle.get_autocast_dtype("cpu") is treadle.float16
        _ = 1 / 0
    assert not treadle.is_autocast_enabled()

    @treadle.autocast("cpu")
    def product():
        return X @ X

    assert product().dtype is BF16


def test_what_is_not_there_warns_and_does_nothing():
    with pytest.warns(UserWarning, match="autocast: the device 'cuda' is not there"):
        context = treadle.cuda.amp.autocast()
    with context:
        assert (X @ X).dtype is F32
    with pytest.warns(UserWarning, match="autocast: got dtype float64, so it does nothing"):
        amp.autocast("cpu", dtype=treadle.float64)
    with pytest.raises(ValueError, match="autocast: got the device 'gpu'; it is one of 'cpu'"):
        amp.autocast("gpu")
    with pytest.warns(UserWarning, match="GradScaler: the device 'cuda' is not there"):
        scaler = treadle.cuda.amp.GradScaler()
    assert scaler.scale(3.0) == 3.0
    assert not scaler.is_enabled()


def test_functions_of_users_own():
    class Product(treadle.autograd.Function):
        @staticmethod
        @amp.custom_fwd(cast_inputs=F32)
        def forward(ctx, x, y):
            ctx.save_for_backward(x, y)
            return x @ y

        @staticmethod
        @amp.custom_bwd
        def backward(ctx, g):
            x, y = ctx.saved_tensors
            return g @ y.t(), x.t() @ g

    x = X.clone().requires_grad_()
    with treadle.autocast("cpu"):
        y = Product.apply(x, X)
        assert y.dtype is F32
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), (treadle.ones(4, 4) @ X.t()).numpy(), rtol=1e-6)


def test_scaler():
    p = nn.Parameter([1.0])
    optimizer = treadle.optim.SGD([p], lr=0.5)
    scaler = amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(p.sum()).backward()
        assert p.grad.item() == 8.0
        scaler.unscale_(optimizer)
        assert p.grad.item() == 1.0
        scaler.step(optimizer)
        scaler.update()
    assert p.item() == 0.0
    assert scaler.get_scale() == 16.0
    p.grad = treadle.tensor([np.inf])
    scaler.step(optimizer)  # skipped
    assert p.item() == 0.0
    with pytest.raises(RuntimeError, match=r"step\(\) was called for this optimizer since the"):
        scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 8.0
    other = amp.GradScaler("cpu")
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    with pytest.raises(AssertionError, match="no gradients were looked at"):
        scaler.update()
    with pytest.raises(RuntimeError, match="got a closure, which would have to scale"):
        scaler.step(optimizer, lambda: 1)
