"""The programs of examples/: all of them run, learn, and agree where they do the same."""

import importlib.util
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
ALL = sorted(path.stem for path in FOLDER.glob("*.py"))
NAMES = [name for name in ALL if name < "10"]
STEPS = 500


@lru_cache(maxsize=None)
def example(name):
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=None)
def losses(name):
    """The losses of one run."""
    return np.array(example(name).main(STEPS))


def test_the_steps_are_there():
    assert [name[:2] for name in ALL] == [f"{n:02}" for n in range(1, 13)]


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name):
    found = losses(name)
    assert found.shape == (STEPS,)
    assert np.isfinite(found).all()
    assert np.median(found[-20:]) < 0.3 * np.median(found[:20])


@pytest.mark.parametrize("name", [
    "02_tensors", "03_autograd", "04_custom_function", "05_nn_sequential", "07_module",
])  # fmt: skip
def test_programs_that_should_agree_do(name):
    np.testing.assert_allclose(losses(name), losses("01_numpy"), rtol=1e-4)
    assert losses(name)[-1] < 1e-5 * losses(name)[0]


def test_both_forms_of_the_custom_function_have_the_same_bits():
    module = example("04_custom_function")
    assert module.main(100, relu=module.InstanceReLU()) == module.main(100)


def test_an_example_runs_as_a_program():
    run = subprocess.run(
        [sys.executable, str(FOLDER / "03_autograd.py")], capture_output=True, text=True, check=True
    )
    lines = run.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"step {n}00" for n in range(1, 6)]
    assert float(lines[-1].split()[-1]) == pytest.approx(losses("03_autograd")[-1], rel=1e-5)


def test_the_dynamic_net_uses_its_layer_zero_to_three_times():
    import treadle

    module = example("09_dynamic_net")
    model = module.DynamicNet(3, 4, 2)
    x = treadle.ones(5, 3)
    h = model.input(x).relu()
    for repeats in range(4):
        assert model(x, repeats).tolist() == model.output(h).tolist()
        h = model.middle(h).relu()
    model(x, 0).sum().backward()
    assert model.middle.weight.grad is None


# --- networks that differ from step to step -------------------------------------------------------


def test_a_network_learns_to_write():
    module = example("10_language_model")
    found = module.main(steps=250)
    letters = len(set(module.text()))
    assert found[0] == pytest.approx(np.log(letters), rel=0.05)  # it knows nothing
    assert np.median(found[-20:]) < 0.6 * found[0]


def test_a_network_in_the_shape_of_a_tree():
    module = example("11_tree_lstm")
    assert module.value(("-", 3, ("+", 1, 4))) == -2
    losses, share = module.main(steps=120, num_trees=4)
    assert np.median(losses[-40:]) < 0.8 * np.median(losses[:20])
    assert share > 0.7


def test_a_network_for_each_question():
    module = example("12_module_network")
    cells = [("red", "round"), ("red", "star"), ("blue", "round")]
    both = ("and", ("find", "red"), ("find", "round"))
    assert module.true_answer(("count", both), cells) == "1"
    assert module.true_answer(("exists", ("not", ("find", "red"))), cells) == "yes"
    losses, share = module.main(steps=150, num_questions=8)
    assert np.median(losses[-20:]) < 0.6 * np.median(losses[:20])
    assert share > 0.5
