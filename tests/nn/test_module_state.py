"""What modules save and load: hooks, extra state, assignment, lazy members, what does not fit."""

from __future__ import annotations

import copy
import pickle

import pytest

import treadle
from treadle import nn


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.scale = nn.Buffer(treadle.ones(1))
        self.scratch = nn.Buffer(treadle.zeros(1), persistent=False)
        self.steps = 0

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]


def test_extra_state_and_buffers():
    model, other = Counted(), Counted()
    model.steps = 5
    state = model.state_dict()
    assert list(state) == ["scale", "_extra_state", "linear.weight", "linear.bias"]
    other.load_state_dict(state)
    assert other.steps == 5
    with pytest.raises(RuntimeError, match="missing: _extra_state"):
        other.load_state_dict({k: v for k, v in state.items() if k != "_extra_state"})


def test_state_hooks():
    model, seen = nn.Sequential(nn.Linear(1, 1)), []
    model.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append((prefix, keep)))

    def rename(module, state, prefix, metadata):
        state["old"] = state.pop("0.weight")

    def restore(module, state, prefix, metadata, strict, missing, unexpected, errors):
        state["0.weight"] = state.pop("old")

    model.register_state_dict_post_hook(rename)
    state = model.state_dict()
    assert sorted(state) == ["0.bias", "old"]
    assert seen == [("", False)]
    with pytest.raises(RuntimeError, match=r"missing: 0.weight \(1, 1\)"):
        model.load_state_dict(state)
    model.register_load_state_dict_pre_hook(restore)
    model.load_state_dict(state)
    handle = model.register_load_state_dict_post_hook(lambda m, r: r.missing_keys.clear())
    assert model.load_state_dict({"old": treadle.ones(1, 1)}).missing_keys == []
    handle.remove()


def test_overriding_what_is_saved_and_loaded():
    class Old(nn.Linear):
        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[prefix + "w"] = destination.pop(prefix + "weight")

        def _load_from_state_dict(self, state_dict, prefix, *rest):
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
            super()._load_from_state_dict(state_dict, prefix, *rest)

    net = nn.Sequential(Old(1, 1))
    state = copy.deepcopy(net.state_dict())
    assert list(state) == ["0.bias", "0.w"]
    other = nn.Sequential(Old(1, 1))
    other.load_state_dict(state)
    assert other[0].weight.item() == net[0].weight.item()


def test_assigning_takes_the_tensors_with_their_dtype():
    layer = nn.Linear(1, 1).requires_grad_(False)
    given = {"weight": treadle.ones(1, 1).double(), "bias": nn.Parameter([2.0])}
    layer.load_state_dict(given, assign=True)
    assert layer.weight.dtype is treadle.float64
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.bias is given["bias"]
    assert not layer.weight.requires_grad


@pytest.mark.parametrize(
    ("rename", "hint"),
    [
        (lambda name: f"module.{name}", r"every name of the state has 'module\.' in front"),
        (lambda name: name.removeprefix("0."), r"every missing name is there without '0\.'"),
    ],
)
def test_a_prefix_that_explains_wrong_names_is_told(rename, hint):
    net = nn.Sequential(nn.Linear(2, 3))
    state = {rename(name): value for name, value in net.state_dict().items()}
    with pytest.raises(RuntimeError, match=hint) as caught:
        net.load_state_dict(state)
    assert (
        f"missing: 0.weight (3, 2), 0.bias (3,)\n    unexpected: {rename('0.weight')} (3, 2)"
        in (str(caught.value))
    )


def test_the_suggested_expression_works():
    net = nn.Linear(2, 3)
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    with pytest.raises(RuntimeError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    net.load_state_dict(eval(text[text.index("{name") : text.index("}") + 1], {"state": state}))


def test_versions_are_saved_and_told():
    class Second(nn.Identity):
        _version = 2

    assert nn.Sequential(Second()).state_dict()._metadata == {
        "": {"version": 1}, "0": {"version": 2},
    }  # fmt: skip


def test_further_methods():
    net = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    net.set_submodule("1.0", nn.Tanh())
    assert isinstance(net[1][0], nn.Tanh)
    with pytest.raises(AttributeError, match=r"set_submodule: got the path '1\.5'"):
        net.set_submodule("1.5", nn.Tanh(), strict=True)
    assert net.type(treadle.float64)[0].weight.dtype is treadle.float64
    assert net.to_empty(device="cpu") is net
    with pytest.raises(RuntimeError, match="runs on the CPU only"):
        net.xpu()
    with pytest.raises(TypeError, match=r"Module.__init__\(\) got 0 arguments and the names"):
        nn.Module(size=3)
    assert pickle.loads(pickle.dumps(net))[0].weight.tolist() == net[0].weight.tolist()
