"""Hooks of gradients."""

from __future__ import annotations

import pytest

import treadle
from treadle import nn, optim
from treadle.base.errors import GradientError, ShapeError


def leaf(*values):
    return treadle.tensor(list(values), requires_grad=True)


def test_a_hook_of_a_leaf_sees_and_replaces_the_gradient():
    x, seen = leaf(1.0, 2.0), []
    x.register_hook(lambda g: seen.append(g.tolist()))
    handle = x.register_hook(lambda g: g * 2)
    x.register_hook(lambda g: g + 1)
    (x * 3).sum().backward()
    assert seen == [[3.0, 3.0]]
    assert x.grad.tolist() == [7.0, 7.0]
    handle.remove()
    handle.remove()
    x.grad = None
    (x * 3 + x).sum().backward()  # once, with the sum over all uses
    assert seen[1:] == [[4.0, 4.0]]
    assert x.grad.tolist() == [5.0, 5.0]
    (gradient,) = treadle.autograd.grad((x * x).sum(), x)
    assert gradient.tolist() == [3.0, 5.0]


def test_a_hook_of_a_computed_tensor_is_called_before_the_gradient_flows_on():
    x = leaf(1.0, 2.0)
    y = x * x
    z = (y * 3).sum()  # used before the hook is registered
    with y.register_hook(lambda g: -g):
        z.backward()
    assert x.grad.tolist() == [-6.0, -12.0]


def test_hooks_of_parameters_outlive_steps_and_repeated_passes():
    treadle.manual_seed(0)
    layer, calls = nn.Linear(2, 1), []
    layer.weight.register_hook(lambda g: calls.append(1) or g * 0)
    before = layer.weight.tolist()
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        layer(treadle.ones(3, 2)).square().mean().backward()
        optimizer.step()
    assert len(calls) == 4
    assert layer.weight.tolist() == before


def test_second_order_goes_through_hooks():
    x = leaf(3.0)
    y = x * x
    y.register_hook(lambda g: g * x)
    (g,) = treadle.autograd.grad(y.sum(), x, create_graph=True)  # 2x * x
    (h,) = treadle.autograd.grad(g.sum(), x)
    assert (g.item(), h.item()) == (18.0, 12.0)


def test_hooks_after_accumulation():
    x, seen = leaf(1.0), []
    handle = x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.item()))
    for _ in range(3):
        (x * 2).sum().backward()
    handle.remove()
    (x * 2).sum().backward()
    assert seen == [2.0, 4.0, 6.0]


def test_errors():
    with pytest.raises(GradientError, match="register_hook: got a tensor that does not require"):
        treadle.zeros(2).register_hook(print)
    with pytest.raises(GradientError, match="post_accumulate_grad_hook: got a tensor that is no"):
        (leaf(1.0) * 2).register_post_accumulate_grad_hook(print)
    x = leaf(1.0, 2.0)
    with x.register_hook(lambda g: g.sum()), pytest.raises(ShapeError, match=r"shape \(\) for a g"):
        x.sum().backward()
    with x.register_hook(lambda g: 3), pytest.raises(TypeError, match="the hook returned a int;"):
        x.sum().backward()


# --- views taken in place -------------------------------------------------------------------------


def test_turning_changes_the_tensor_itself():
    x = treadle.arange(6).reshape(1, 2, 3).clone()
    row = x[0, 1]
    assert x.squeeze_() is x
    assert x.t_().tolist() == [[0, 3], [1, 4], [2, 5]]
    assert x.unsqueeze_(-1).shape == (3, 2, 1)
    assert x.transpose_(0, 1).swapaxes_(1, 2).shape == (2, 1, 3)
    x += 10
    assert row.tolist() == [13, 14, 15]  # a view from before still shows the same elements
    row[0] = 7
    assert x.tolist() == [[[10, 11, 12]], [[7, 14, 15]]]


def test_turning_a_view_leaves_its_base():
    base = treadle.arange(6).reshape(2, 3).clone()
    row = base[1]
    row.unsqueeze_(0)
    row.mul_(2)
    assert base.tolist() == [[0, 1, 2], [6, 8, 10]]
    again = base.detach()
    part = again[0]
    again.t_()
    again[0, 0] = 9
    base[0, 1] = 5
    assert again.shape == (3, 2)
    assert part.tolist() == [9, 5, 2]
    assert base.tolist() == [[9, 5, 2], [6, 8, 10]]


def test_gradients_flow_through_turned_tensors():
    x = leaf(1.0, 2.0)
    y = x * x
    y.unsqueeze_(0)
    y.mul_(2)
    y.sum().backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with pytest.raises(GradientError, match="an in-place operation on a leaf tensor"):
        x.unsqueeze_(0)
    with treadle.no_grad():
        x.unsqueeze_(0)
    assert x.is_leaf
    assert x.requires_grad
    assert x.shape == (1, 2)
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad.tolist() == [[3.0, 3.0]]
