"""Checkpoints: nested structures, what they keep, what they refuse, damaged ones."""

import io as streams
import json
import os
import re
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import io
from treadle.io.state import STRUCTURE


def back(value: Any) -> Any:
    file = streams.BytesIO()
    io.save(value, file)
    file.seek(0)
    return io.load(file)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -(1 << 70), 1.5, 1e-320, float("inf"), "text", "\ud800", "", [], {}, (),
        b"\x00\xff", 1 + 2j, complex("nan-infj"), {1, "a"}, frozenset({2}), np.float32(0.1),
        [1, [2, (3,)]], {"a": {"b": [None]}}, {0: "int", None: 1, 2.5: 2, (1, "a"): 3, True: 4},
        {"tensor": "not a tensor"}, treadle.float16, treadle.device("cpu"),
    ],
    ids=repr,
)  # fmt: skip
def test_plain_values(value: Any) -> None:
    loaded = back(value)
    assert repr(loaded) == repr(value)
    assert type(loaded) is type(value)


def test_nan_and_ordered_dicts() -> None:
    assert np.isnan(back([float("nan")])[0])
    ordered = back(OrderedDict(b=1, a=2))
    assert type(ordered) is OrderedDict
    assert list(ordered.items()) == [("b", 1), ("a", 2)]


def test_a_checkpoint(tmp_path: Path) -> None:
    weight = treadle.randn(2, 3)
    checkpoint = {
        "model": OrderedDict([("fc.weight", weight), ("fc.bias", treadle.zeros(2))]),
        "optimizer": {
            "state": {0: {"step": treadle.tensor(3.0), "m": weight * 2}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}],
        },
        "history": np.arange(4.0),
        "shape": weight.shape,
    }
    path = tmp_path / "last.safetensors"
    io.save(checkpoint, path)
    loaded = io.load(path, map_location="cpu", weights_only=True)
    assert loaded["model"]["fc.weight"].tolist() == weight.tolist()
    assert loaded["optimizer"]["state"][0]["m"].tolist() == (weight * 2).tolist()
    assert loaded["optimizer"]["param_groups"] == checkpoint["optimizer"]["param_groups"]
    assert type(loaded["history"]) is np.ndarray
    loaded["history"][0] = 5  # one's own array
    assert loaded["shape"] == (2, 3)
    names = set(io.load_file(path))
    assert {"model.fc.weight", "optimizer.state.0.step", "history"} <= names


def test_one_tensor_stays_one() -> None:
    w = treadle.ones(2, requires_grad=True)
    loaded = back({"encoder": w, "decoder": w, "other": treadle.ones(2)})
    assert loaded["encoder"] is loaded["decoder"]
    assert loaded["encoder"].requires_grad
    assert not loaded["other"].requires_grad
    (loaded["encoder"] * 2).sum().backward()
    assert loaded["decoder"].grad.tolist() == [2, 2]


def test_names_that_meet() -> None:
    a, b, c = (treadle.tensor(i) for i in range(3))
    loaded = back({"x": {"y": a}, "x.y": b, "__metadata__": c})
    assert loaded["x"]["y"].item() == 0
    assert loaded["x.y"].item() == 1
    assert loaded["__metadata__"].item() == 2
    assert back(treadle.ones(1)).tolist() == [1]


def test_any_safetensors_file_can_be_loaded(tmp_path: Path) -> None:
    io.save_file({"a": treadle.ones(2)}, tmp_path / "x")
    assert io.load(tmp_path / "x")["a"].tolist() == [1, 1]


class Thing:
    def __reduce__(self) -> Any:
        raise AssertionError("nothing may be pickled")


def circle() -> list[Any]:
    x: list[Any] = []
    x.append(x)
    return x


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"a": [0, Thing()]}, TypeError, r"save: obj['a'][1] is a Thing; it takes tensors, None"),
        ({"a": Counter()}, TypeError, r"save: obj['a'] is a Counter; it takes"),
        ({"a": len}, TypeError, r"save: obj['a'] is a builtin_function_or_method"),
        (
            {"a": {treadle.float16: 1}},
            TypeError,
            r"save: obj['a'] has the key treadle.float16; keys",
        ),
        (circle(), ValueError, r"save: obj[0][0][0][0][0]... is nested deeper than 100 levels, or"),
    ],
)
def test_what_is_refused(value: Any, error: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=re.escape(message)):
        io.save(value, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "structure",
    [
        "", "{", '{"tensor": "absent"}', '{"tensor": []}', '{"tensor": {}}', '{"parameter": "i"}',
        '{"unknown": 1}', '{"tensor": "a", "dict": []}', "{}", '{"dict": [1]}', '{"dict": 5}',
        '{"dict": [[[1], 2]]}', '{"tuple": 1}', '{"float": "x"}', '{"dtype": "x"}',
        '{"device": "x"}', "[" * 100_000,
    ],
    ids=lambda s: s[:20],
)  # fmt: skip
def test_damaged_structures(structure: str) -> None:
    tensors = {"a": treadle.ones(1), "i": treadle.arange(2)}
    file = streams.BytesIO(io.save_bytes(tensors, {STRUCTURE: structure}))
    with pytest.raises(io.SafetensorsError, match=r"the text 'treadle\.structure' of its metadata"):
        io.load(file)


def test_no_code_can_be_asked_for(tmp_path: Path) -> None:
    io.save({"a": 1}, tmp_path / "x")
    assert io.load(tmp_path / "x", weights_only=False) == {"a": 1}  # data, whatever was allowed
    (tmp_path / "x").write_bytes(b"\x80\4cos\nsystem\n.")
    with pytest.raises(io.CheckpointError, match=r"it asks for os\.system, which is not among"):
        io.load(tmp_path / "x")
    with pytest.raises(io.SafetensorsError, match="is a zip or pickle file, such as PyTorch's"):
        io.load_file(tmp_path / "x")
    with pytest.raises(ValueError, match="Treadle's files hold no pickles; leave it out"):
        io.save(1, tmp_path / "y", pickle_protocol=2)


def test_what_shares_memory_is_saved_once_and_shares_it_again() -> None:
    w = treadle.nn.Parameter(treadle.ones(2, 3))
    x = treadle.arange(6.0)
    state = {"a": w.detach(), "b": w.detach()}
    saved = {"state": state, "x": x, "view": x.view(2, 3), "own": x.clone()}
    file = streams.BytesIO()
    io.save(saved, file)
    assert set(io.load_bytes(file.getvalue())) == {"state.a", "x", "view", "own"}
    file.seek(0)
    loaded = io.load(file)
    loaded["state"]["a"][0, 0] = 5
    assert loaded["state"]["b"][0, 0].item() == 5
    loaded["x"][0] = 7
    assert loaded["view"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded["own"].tolist() == [0, 1, 2, 3, 4, 5]


def test_parameters_are_parameters_again() -> None:
    w = treadle.nn.Parameter(treadle.ones(2))
    frozen = treadle.nn.Parameter(treadle.ones(1), requires_grad=False)
    loaded = back([w, frozen, w, treadle.nn.Parameter(w)])
    assert [type(x) for x in loaded] == [treadle.nn.Parameter] * 4
    assert [x.requires_grad for x in loaded] == [True, False, True, True]
    assert loaded[0] is loaded[2] is not loaded[3]
    with treadle.no_grad():
        loaded[0].fill_(3)
    assert loaded[3].tolist() == [1, 1]


def test_an_optimizer_goes_on_from_a_file() -> None:
    def steps(model: Any, optimizer: Any, count: int) -> list[float]:
        losses = []
        for _ in range(count):
            loss = (model(treadle.ones(3, 2)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    treadle.manual_seed(0)
    model = treadle.nn.Linear(2, 2)
    optimizer = treadle.optim.AdamW(model.parameters(), lr=0.1, amsgrad=True)
    steps(model, optimizer, 3)
    saved = back({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    expected = steps(model, optimizer, 3)
    again = treadle.nn.Linear(2, 2)
    optimizer = treadle.optim.AdamW(again.parameters())
    again.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    assert steps(again, optimizer, 3) == expected


def test_copies_of_one_array_are_charged() -> None:
    structure = json.dumps([{"array": "a"}] * 200)
    big = io.save_bytes({"a": treadle.zeros(1 << 18)}, {STRUCTURE: structure})
    with pytest.raises(io.SafetensorsError, match="takes more than"):
        io.load(streams.BytesIO(big))


def test_the_structure_is_a_short_json_text(tmp_path: Path) -> None:
    io.save({"lr": 0.1, "w": treadle.ones(1)}, os.fspath(tmp_path / "x"))
    text = io.load_metadata(tmp_path / "x")[STRUCTURE]
    assert json.loads(text) == {"dict": [["lr", 0.1], ["w", {"tensor": "w"}]]}
