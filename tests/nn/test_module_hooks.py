"""Hooks of modules: of one and of all, forward and backward, and of registration."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn.modules import module as of_all


class Scaled(nn.Module):
    def forward(self, x, factor=2.0):
        return x * factor


def test_forward_hooks_with_names_in_order_and_after_errors():
    layer, seen = Scaled(), []
    layer.register_forward_hook(lambda m, args, out: seen.append("last"))
    layer.register_forward_hook(lambda m, args, out: seen.append("first"), prepend=True)
    layer.register_forward_pre_hook(
        lambda m, args, kwargs: (args, {"factor": kwargs["factor"] + 1}), with_kwargs=True
    )
    layer.register_forward_hook(
        lambda m, args, kwargs, out: seen.append(kwargs), with_kwargs=True, always_call=True
    )
    assert layer(treadle.ones(1), factor=4.0).tolist() == [5.0]
    assert seen == ["first", "last", {"factor": 5.0}]
    seen.clear()
    with pytest.raises(TypeError):
        layer(None, factor=1.0)
    assert seen == [{"factor": 2.0}]


def test_backward_hooks_see_the_gradients_of_inputs_and_outputs():
    layer, seen = nn.Linear(2, 1, bias=False), []
    handle = layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, go)))
    x = treadle.ones(3, 2, requires_grad=True)
    (layer(x) * 2).sum().backward()
    ((grad_input,), (grad_output,)) = seen[0]
    assert grad_output.tolist() == [[2.0]] * 3
    np.testing.assert_allclose(
        grad_input.numpy(), np.tile(2 * layer.weight.detach().numpy(), (3, 1))
    )
    handle.remove()
    (layer(x) * 2).sum().backward()
    assert len(seen) == 1


def test_backward_hooks_replace_gradients():
    layer = nn.Linear(1, 1, bias=False)
    layer.register_full_backward_pre_hook(lambda m, go: (go[0] * 10,))
    layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 0 + 7,))
    x = treadle.ones(1, 1, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.tolist() == [[7.0]]
    assert layer.weight.grad.tolist() == [[10.0]]


def test_a_backward_hook_without_differentiable_inputs_is_called_with_none():
    layer, seen = nn.Linear(2, 1), []
    layer.register_full_backward_hook(lambda m, gi, go: seen.append((gi, len(go))))
    layer(treadle.ones(1, 2)).sum().backward()
    assert seen == [((None,), 1)]


def test_hooks_of_all_modules():
    seen = []
    handles = [
        of_all.register_module_forward_pre_hook(lambda m, args: seen.append(("pre", m))),
        of_all.register_module_forward_hook(lambda m, args, out: seen.append(("post", m))),
        of_all.register_module_full_backward_hook(lambda m, gi, go: seen.append(("back", m))),
        of_all.register_module_parameter_registration_hook(
            lambda m, name, p: seen.append(("parameter", name))
        ),
    ]
    layer = nn.Linear(1, 1, bias=False)
    layer(treadle.ones(1, 1)).sum().backward()
    assert seen == [("parameter", "weight"), ("parameter", "bias"), ("pre", layer),
                    ("post", layer), ("back", layer)]  # fmt: skip
    for handle in handles:
        handle.remove()
    nn.Linear(1, 1)(treadle.ones(1, 1)).sum().backward()
    assert len(seen) == 5
