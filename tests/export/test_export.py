"""Programs: the bits of the code they were made from, in this process and in one without it."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.export import Dim, ExportError, dims, export, load, save
from treadle.nn import functional as F


def lenet():
    treadle.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.25), nn.Linear(4 * 12 * 12, 10),
    )  # fmt: skip


def digits(n=6):
    rng = np.random.default_rng(n)
    x = treadle.from_numpy(rng.standard_normal((n, 1, 28, 28), np.float32))
    return x, treadle.from_numpy(rng.integers(0, 10, n))


def trainer(make=lambda p: treadle.optim.Adam(p, lr=0.01), model=None):
    model = model or lenet()
    optimizer = make(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# --- inference ------------------------------------------------------------------------------------


def test_a_module_in_eval_mode_gives_the_same_bits():
    model = lenet().eval()
    x, _ = digits()
    program = export(model, (x,))
    assert same(program(x), model(x).detach())
    assert set(program.state_dict) <= set(model.state_dict())
    assert not program.graph.updates


def test_exporting_leaves_everything_as_it_was():
    model, optimizer, step = trainer()
    x, y = digits()
    before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    random = treadle.get_rng_state().numpy().copy()
    export(step, (x, y))
    assert {k: v.numpy().tobytes() for k, v in model.state_dict().items()} == {
        k: v.tobytes() for k, v in before.items()
    }
    assert same(treadle.get_rng_state(), random)
    assert not optimizer.state or all(s.get("step", 0) == 0 for s in optimizer.state.values())
    assert all(p.grad is None and p.requires_grad and p.is_leaf for p in model.parameters())


def test_later_changes_of_the_model_do_not_reach_the_program():
    model = nn.Linear(2, 2)
    x = treadle.ones(1, 2)
    program = export(model, (x,))
    before = program(x).numpy().copy()
    with treadle.no_grad():
        model.weight.add_(1)
    assert same(program(x), before)


def test_structures_of_arguments_and_results():
    def function(pair, table, scale=2.0, *, flag=False):
        a, b = pair
        return {"sum": (a + table["c"]) * scale, "more": [b, (a - b, None, "text", 3)]}

    a, b, c = treadle.ones(2), treadle.zeros(2), treadle.arange(2.0)
    program = export(function, ((a, b), {"c": c}), {"flag": True})
    found = program((a * 3, b), {"c": c}, flag=True)
    assert found["sum"].tolist() == [6.0, 8.0]
    assert found["more"][1][0].tolist() == [3.0, 3.0]
    assert found["more"][1][1:] == (None, "text", 3)
    assert [x.name for x in program.graph.inputs] == ["pair.0", "pair.1", "table.c"]
    with pytest.raises(
        ValueError, match=r"got False as keyword flag; the program was exported wit"
    ):
        program((a, b), {"c": c}, flag=False)
    with pytest.raises(TypeError, match="got 1 of them as argument; expected a tuple of 2"):
        program((a, b))


def test_wrong_inputs_are_told():
    program = export(lenet().eval(), (digits()[0],), dynamic_shapes=[{0: Dim("N", max=64)}])
    with pytest.raises(
        ValueError, match=r"got the shape \(6, 28, 28\) for the input 'input'; expe"
    ):
        program(treadle.zeros(6, 28, 28))
    with pytest.raises(
        TypeError, match=r"got float64 for the input 'input'; expected float32; con"
    ):
        program(treadle.zeros(6, 1, 28, 28, dtype=treadle.float64))
    with pytest.raises(
        ValueError, match="got 65 for the size N; the program was exported for 1 to"
    ):
        program(treadle.zeros(65, 1, 28, 28))
    with pytest.raises(ValueError, match="got the graph 'train'; the program has forward"):
        program.run("train")


def test_views_random_numbers_and_several_results_of_one_op():
    def function(x):
        values, places = x.t().topk(2)
        y = treadle.rand(3, 4) + F.dropout(x[:, ::2], 0.5)[:, :1]
        return values, places, y, x.detach().flip(0).sort(1)

    x = treadle.randn(3, 4)
    program = export(function, (x,))
    treadle.manual_seed(5)
    expected = function(x)
    treadle.manual_seed(5)
    found = program(x)
    for a, b in zip([*expected[:3], *expected[3]], [*found[:3], *found[3]], strict=True):
        assert same(a, b)
    assert not same(program(x)[2], found[2])  # drawn anew


# --- open sizes -----------------------------------------------------------------------------------


def test_open_sizes_of_a_convolutional_network():
    model = lenet().eval()
    program = export(model, (digits()[0],), dynamic_shapes={"input": {0: Dim("N")}})
    for n in (1, 6, 9, 40):
        x = digits(n)[0]
        assert same(program(x), model(x).detach())
    assert program.range_constraints == {"N": (1, 2**31)}


def test_two_open_sizes_of_a_transformer():
    treadle.manual_seed(1)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    batch, length = dims("batch", "length", max=100)
    program = export(layer, (treadle.randn(2, 5, 8),), dynamic_shapes=({0: batch, 1: length},))
    for shape in ((2, 5, 8), (1, 1, 8), (3, 17, 8), (7, 2, 8)):
        x = treadle.randn(*shape)
        assert same(program(x), layer(x).detach())


def test_numbers_that_follow_from_sizes():
    program = export(
        lambda x: (x.mean() * x.shape[0], treadle.arange(x.shape[0] * 2)), (treadle.ones(3),),
        dynamic_shapes={"x": {0: Dim("n")}},
    )  # fmt: skip
    mean, counted = program(treadle.full((5,), 2.0))
    assert mean.item() == 10.0
    assert counted.tolist() == list(range(10))


def test_python_that_decides_by_an_open_size_is_refused():
    def function(x):
        if x.shape[0] > 8:
            x = x * 2
        return x

    with pytest.raises(ExportError, match="Python decided by an open size"):
        export(function, (treadle.ones(3),), dynamic_shapes={"x": {0: Dim("n")}})
    with pytest.raises(ExportError, match=r"does not follow from the open sizes by multiplying"):
        export(
            lambda x: x[: x.shape[0] // 2], (treadle.ones(4),), dynamic_shapes={"x": {0: Dim("n")}}
        )
    with pytest.raises(ExportError, match="got dynamic_shapes for 'z'; the inputs are x"):
        export(lambda x: x, (treadle.ones(4),), dynamic_shapes={"z": {0: Dim("n")}})


# --- refusals -------------------------------------------------------------------------------------


def test_data_dependent_python_is_refused_with_its_line():
    def function(x):
        if x.sum() > 0:  # the line
            return x
        return -x

    line = function.__code__.co_firstlineno + 1
    with pytest.raises(ExportError, match=rf"test_export.py:{line} asks for the value of a tensor"):
        export(function, (treadle.ones(2),))
    assert (treadle.ones(2) + 1).tolist() == [2.0, 2.0]  # recording goes on as before


def test_what_a_step_may_not_do():
    x, y = digits()
    model, optimizer, step = trainer()

    def accumulating(x, y):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    with pytest.raises(ExportError, match=r"adds to the gradient of .*zero_grad"):
        export(accumulating, (x, y))

    scheduler = treadle.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    def scheduled(x, y):
        loss = step(x, y)
        scheduler.step()
        return loss

    with pytest.raises(
        ExportError, match=r"changes lr of .* from 0.01 to 0.005.*step the schedule"
    ):
        export(scheduled, (x, y))
    assert optimizer.param_groups[0]["lr"] == 0.01

    class Mine(treadle.optim.SGD):
        pass

    _, _, custom = trainer(lambda p: Mine(p, lr=0.1))
    with pytest.raises(ExportError, match="the optimizer Mine is a class of yours"):
        export(custom, (x, y))

    momentum = treadle.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def first(x, y):
        momentum.zero_grad()
        F.cross_entropy(model(x), y).backward()
        momentum.step()

    try:
        export(first, (x, y))
    except ExportError as error:
        assert "call it once before exporting" in str(error)
        first(x, y)
        assert export(first, (x, y)).graph.updates


# --- training -------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda p: treadle.optim.SGD(p, lr=0.1),
    "momentum": lambda p: treadle.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: treadle.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: treadle.optim.AdamW(p, lr=0.01),
    "nadam": lambda p: treadle.optim.NAdam(p, lr=0.01),
    "rmsprop": lambda p: treadle.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_saved_step_goes_on_training_with_the_same_bits(kind, tmp_path):
    x, y = digits()
    model, optimizer, step = trainer(OPTIMIZERS[kind])
    treadle.manual_seed(3)
    losses = [step(x, y).item() for _ in range(3)]
    state = treadle.get_rng_state()
    program = export({"train": step, "predict": model}, {"train": (x, y), "predict": (x,)})
    save(program, tmp_path / "step.treadle")
    losses += [step(x, y).item() for _ in range(4)]

    again = load(tmp_path / "step.treadle")
    treadle.set_rng_state(state)
    assert [again.run("train", x, y).item() for _ in range(2)] == losses[3:5]
    save(again, tmp_path / "step.treadle")  # over the file that it is mapped from
    third = load(tmp_path / "step.treadle")
    assert [third.run("train", x, y).item() for _ in range(2)] == losses[5:]
    assert third.optimizers[0].steps == (7 if optimizer.counts_steps else 4)
    for name, value in model.state_dict().items():
        if f"model.{name}" in third.weights:
            assert same(third.weights[f"model.{name}"], value)


def test_settings_of_a_saved_step_can_be_changed():
    x, y = digits()
    _, _, step = trainer(OPTIMIZERS["sgd"])
    program = export(step, (x, y))
    program.optimizers[0].settings["lr"] = 0.0
    before = program.weights["model.0.weight"].numpy().copy()
    program(x, y)
    assert same(program.weights["model.0.weight"], before)


def test_a_failing_call_changes_nothing():
    x, y = digits()
    _, _, step = trainer()
    program = export(step, (x, y))
    before = {k: v.numpy().copy() for k, v in program.weights.items()}
    with pytest.raises(IndexError):
        program(x, y + 100)
    assert all(same(program.weights[k], v) for k, v in before.items())
    assert program.optimizers[0].steps == 0


def test_many_threads_may_call_one_program():
    model = lenet().eval()
    program = export(model, (digits()[0],), dynamic_shapes=[{0: Dim("N")}])
    expected = {n: model(digits(n)[0]).detach().numpy() for n in range(1, 5)}
    failures = []

    def work(n):
        for _ in range(10):
            if not same(program(digits(n)[0]), expected[n]):
                failures.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in expected]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_a_file_runs_in_a_process_that_has_no_code(tmp_path):
    x, y = digits()
    model, _, step = trainer()
    program = export({"train": step, "predict": model.eval()}, {"train": (x, y), "predict": (x,)})
    save(program, tmp_path / "p.treadle")
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import sys, numpy as np, treadle.export\n"
        "p = treadle.export.load(sys.argv[1]); x = np.load(sys.argv[2])\n"
        "sys.stdout.buffer.write(p.run('predict', x).numpy().tobytes())"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "p.treadle", tmp_path / "x.npy"],
        check=True, capture_output=True,
    ).stdout  # fmt: skip
    assert found == model(x).detach().numpy().tobytes()
