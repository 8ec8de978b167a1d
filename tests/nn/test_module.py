"""Modules: registration, the tree, state, modes, hooks, text, errors with paths."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.base.errors import DTypeError, ShapeError


class Block(nn.Module):
    def __init__(self, inputs=4, outputs=3):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.register_buffer("scale", treadle.ones(outputs))
        self.register_buffer("scratch", treadle.zeros(1), persistent=False)

    def forward(self, x):
        return self.linear(x) * self.scale


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleList([Block(), nn.Sequential(nn.ReLU(), Block(5, 2))])
        self.gain = nn.Parameter([2.0])

    def forward(self, x):
        for part in self.encoder:
            x = part(x)
        return x * self.gain


def test_members_are_found_by_path():
    model = Model()
    assert [name for name, _ in model.named_parameters()] == [
        "gain", "encoder.0.linear.weight", "encoder.0.linear.bias",
        "encoder.1.1.linear.weight", "encoder.1.1.linear.bias",
    ]  # fmt: skip
    assert [name for name, _ in model.named_buffers()] == [
        "encoder.0.scale", "encoder.0.scratch", "encoder.1.1.scale", "encoder.1.1.scratch",
    ]  # fmt: skip
    assert [name for name, _ in model.named_modules()] == [
        "", "encoder", "encoder.0", "encoder.0.linear", "encoder.1", "encoder.1.0", "encoder.1.1",
        "encoder.1.1.linear",
    ]  # fmt: skip
    assert model.get_submodule("encoder.1.1") is model.encoder[1][1]
    assert model.get_parameter("encoder.0.linear.bias") is model.encoder[0].linear.bias
    assert model.get_buffer("encoder.0.scale") is model.encoder[0].scale
    assert model.num_parameters() == sum(p.numel() for p in model.parameters()) == 1 + 15 + 12
    model.encoder.requires_grad_(False)
    assert model.num_parameters(only_trainable=True) == 1


def test_a_module_used_twice_counts_once_but_is_saved_under_both_names():
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert len(list(net.parameters())) == 2
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    twin = copy.deepcopy(net)
    assert twin[0] is twin[2]
    assert twin[0] is not shared


def test_assignment_moves_a_name_between_kinds():
    block = Block()
    block.linear = nn.Identity()
    assert list(block.parameters()) == []
    assert list(block._modules) == ["linear"]
    block.linear = nn.Parameter([1.0])
    assert [n for n, _ in block.named_parameters()] == ["linear"]
    assert not list(block.children())
    block.linear = None
    assert list(block.parameters()) == []
    del block.scale
    with pytest.raises(AttributeError, match="'Block' has no attribute 'scale'"):
        _ = block.scale


def test_replacing_a_module_keeps_its_place():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    net[0] = nn.Identity()
    assert repr(net) == "Sequential(\n  (0): Identity()\n  (1): ReLU()\n)"


def test_registration_errors():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Identity()

    with pytest.raises(AttributeError, match=r"Early.layer: got a module before Module.__init__"):
        Early()
    block = Block()
    with pytest.raises(TypeError, match=r"Block.weight: got a Tensor for a parameter; wrap it in"):
        block.register_parameter("weight", treadle.ones(1))
    with pytest.raises(KeyError, match="a name is a string that is not empty and has no dot"):
        block.register_buffer("a.b", treadle.ones(1))
    with pytest.raises(TypeError, match=r"Block.x: got a list for a buffer"):
        block.register_buffer("x", [1.0])
    with pytest.raises(TypeError, match=r"Linear.weight: got a Tensor for a parameter; assign"):
        block.linear.weight = treadle.ones(3, 4)
    with pytest.raises(AttributeError, match=r"got the path 'linear.x', but Linear has no module"):
        block.get_submodule("linear.x")
    with pytest.raises(NotImplementedError, match=r"Module has no forward\(\)"):
        nn.Module()()


# --- modes and conversions ----------------------------------------------------------------------


def test_train_and_eval_reach_all_and_call_overrides():
    class Frozen(nn.Module):
        def train(self, mode=True):
            return super().train(False)

    net = nn.Sequential(nn.Dropout(), Frozen())
    net.eval()
    assert not any(m.training for m in net.modules())
    net.train()
    assert [m.training for m in net.modules()] == [True, True, False]
    with pytest.raises(TypeError, match="train: got 'yes' for mode"):
        net.train("yes")


def test_conversion_keeps_leaves_and_integers():
    norm = nn.BatchNorm1d(2)
    norm(treadle.randn(4, 2)).sum().backward()
    weight = norm.weight
    assert norm.double() is norm
    assert norm.weight is weight
    assert weight.dtype is treadle.float64
    assert weight.grad.dtype is treadle.float64
    assert weight.is_leaf
    assert weight.requires_grad
    assert norm.running_mean.dtype is treadle.float64
    assert norm.num_batches_tracked.dtype is treadle.int64
    assert norm.to("cpu", dtype=treadle.float32).weight.dtype is treadle.float32
    with pytest.raises(TypeError, match=r"to: got dtype int64; a module's parameters"):
        norm.to(treadle.int64)
    with pytest.raises(treadle.base.errors.DeviceError, match="'cuda' is not there"):
        norm.cuda()


def test_apply_visits_children_first():
    seen = []
    Model().apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Block", "ReLU", "Linear", "Block", "Sequential", "ModuleList",
                    "Model"]  # fmt: skip


def test_zero_grad():
    layer = nn.Linear(2, 1)
    layer(treadle.ones(1, 2)).sum().backward()
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.tolist() == [[0.0, 0.0]]
    layer.zero_grad()
    assert layer.weight.grad is None


# --- state --------------------------------------------------------------------------------------


def test_state_is_saved_and_loaded():
    model, other = Model(), Model()
    state = model.state_dict()
    assert "encoder.0.scale" in state
    assert "encoder.0.scratch" not in state
    assert repr(other.load_state_dict(state)) == "<All keys matched successfully>"
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert p.tolist() == q.tolist()
        assert q.requires_grad
        assert q.is_leaf


def test_saved_state_shows_the_module_and_a_copy_does_not():
    layer = nn.Linear(1, 1)
    state = layer.state_dict()
    kept = copy.deepcopy(state)
    nn.init.constant_(layer.weight, 7.0)
    assert state["weight"].item() == 7.0
    assert kept["weight"].item() != 7.0
    layer.load_state_dict(kept)
    assert state["weight"].item() == kept["weight"].item()


def test_loading_converts_and_takes_arrays():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.array([[1.0, 2.0]]), "bias": np.array([3])})
    assert layer.weight.dtype is treadle.float32
    assert (layer.weight.tolist(), layer.bias.tolist()) == ([[1.0, 2.0]], [3.0])


def test_a_state_that_does_not_fit_changes_nothing():
    layer = nn.Linear(2, 1)
    before = layer.weight.tolist()
    state = {"weight": treadle.zeros(1, 2), "bias": treadle.zeros(2), "extra": treadle.zeros(1)}
    with pytest.raises(RuntimeError) as caught:
        layer.load_state_dict(state)
    text = str(caught.value)
    assert "the state does not fit Linear" in text
    assert "unexpected: extra" in text
    assert "size mismatch for bias: got (2,), the module has (1,)" in text
    with pytest.raises(RuntimeError, match="missing: weight"):
        layer.load_state_dict({"bias": treadle.zeros(1)})
    assert layer.weight.tolist() == before
    result = layer.load_state_dict({"bias": treadle.ones(1), "extra": 0}, strict=False)
    assert result == (["weight"], ["extra"])
    assert layer.bias.tolist() == [1.0]


# --- hooks --------------------------------------------------------------------------------------


def test_hooks_see_and_replace():
    layer = nn.Identity()
    seen = []
    first = layer.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
    second = layer.register_forward_hook(lambda m, args, out: seen.append(out.item()))
    third = layer.register_forward_hook(lambda m, args, out: out * 10)
    assert layer(treadle.tensor(1.0)).item() == 20.0
    assert seen == [2.0]
    first.remove()
    second.remove()
    with third:
        assert layer(treadle.tensor(1.0)).item() == 10.0
    third.remove()  # a second time: nothing happens
    assert layer(treadle.tensor(1.0)).item() == 1.0
    assert seen == [2.0]


# --- text ---------------------------------------------------------------------------------------


def test_text_form_is_pytorch_s():
    assert repr(Model()) == (
        "Model(\n"
        "  (encoder): ModuleList(\n"
        "    (0): Block(\n"
        "      (linear): Linear(in_features=4, out_features=3, bias=True)\n"
        "    )\n"
        "    (1): Sequential(\n"
        "      (0): ReLU()\n"
        "      (1): Block(\n"
        "        (linear): Linear(in_features=5, out_features=2, bias=True)\n"
        "      )\n"
        "    )\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Conv2d(1, 2, 3, padding=1, groups=1, bias=False)) == (
        "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)"
    )
    assert repr(nn.Parameter([1.0])) == ("Parameter containing:\ntensor([1.], requires_grad=True)")


# --- errors -------------------------------------------------------------------------------------


def test_errors_name_the_path_once():
    with pytest.raises(ShapeError) as caught:
        Model()(treadle.zeros(2, 4))
    text = str(caught.value)
    assert text.startswith(
        "model.encoder.1.1.linear > linear: got an input of shape (2, 3) and a weight of shape "
        "(2, 5)"
    )
    assert text.count("[test_module.py:") == 1
    assert text.count(" > ") == 1


def test_an_error_raised_twice_keeps_its_path():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 2)

        def forward(self, x):
            out = self.table(x).sum()
            for _ in range(2):
                with pytest.raises(IndexError):
                    out.item()
            return out.item()

    with pytest.raises(IndexError) as caught:
        Reader()(treadle.tensor([3]))
    assert str(caught.value).startswith("reader > embedding: index 3 is out of range for 3 rows")
    assert str(caught.value).count("reader") == 1


def test_other_errors_pass_untouched():
    class Fails(nn.Module):
        def forward(self):
            raise KeyError("mine")

    with pytest.raises(KeyError, match=r"^'mine'$"):
        nn.Sequential(Fails()).get_submodule("0")()


def test_dtype_errors_have_paths_too():
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    with pytest.raises(DTypeError, match=r"^sequential.0 > conv2d: got an input of dtype float64"):
        net(treadle.zeros(1, 1, 2, 2, dtype=treadle.float64))


# --- parameters and containers ------------------------------------------------------------------


def test_parameter():
    source = treadle.tensor([1.0, 2.0])
    p = nn.Parameter(source)
    assert p.requires_grad
    assert p.is_leaf
    assert not nn.Parameter(source, requires_grad=False).requires_grad
    assert nn.Parameter(source * p).is_leaf
    twin = copy.deepcopy(p)
    assert isinstance(twin, nn.Parameter)
    assert twin.tolist() == [1.0, 2.0]
    assert nn.Parameter().shape == (0,)


def test_containers():
    a, b, c = nn.Linear(1, 1), nn.ReLU(), nn.Tanh()
    net = nn.Sequential(a, b)
    assert net.append(c) is net
    assert list(net) == [a, b, c]
    assert list(net[1:]) == [b, c]
    assert net[-1] is c
    net.insert(0, nn.Identity())
    assert net[1] is a
    assert net.pop(0).extra_repr() == ""
    del net[:2]
    assert list(net.named_children()) == [("0", c)]
    with pytest.raises(IndexError, match="Sequential: got the index 3, but there are 1"):
        net[3]
    layers = nn.ModuleList([a]) + [b]  # noqa: RUF005 - the operator is tried
    layers += [c]
    assert list(layers) == [a, b, c]
    named = nn.ModuleDict({"a": a, "b": b})
    assert (list(named), list(named.values()), named["a"]) == (["a", "b"], [a, b], a)
    assert named.pop("a") is a
    assert dict(named.items()) == {"b": b}
    with pytest.raises(KeyError, match="ModuleDict: got the name 'a'; there are b"):
        named["a"]
    parts = nn.ParameterList([treadle.zeros(2)])
    parts.append(nn.Parameter([1.0]))
    parts[0] = treadle.ones(3)
    assert [tuple(p.shape) for p in parts] == [(3,), (1,)]
    assert len(list(parts.parameters())) == 2
    by_name = nn.ParameterDict({"u": treadle.zeros(2)})
    assert list(by_name.keys()) == ["u"]
    assert by_name["u"].requires_grad


def test_load_state_dict_takes_a_dictionary():
    with pytest.raises(TypeError, match=r"load_state_dict: got a str; it takes a dictionary"):
        nn.Linear(2, 2).load_state_dict("file.safetensors")


def test_a_training_step_ends_no_with_block(monkeypatch):
    """Ctrl-C on entering ``__exit__`` would leave gradients off for the rest of the process."""

    def interrupted(*args):
        raise KeyboardInterrupt

    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = treadle.optim.AdamW(net.parameters())
    monkeypatch.setattr(treadle.no_grad, "__exit__", interrupted)
    for _ in range(2):
        optimizer.zero_grad()
        net(treadle.ones(5, 3)).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        nn.utils.clip_grad_value_(net.parameters(), 1.0)
        optimizer.step()
    assert treadle.is_grad_enabled()
