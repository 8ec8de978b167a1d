"""The programs of examples/: all of them run, learn, and agree where they do the same."""

import importlib.util
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
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
    assert [name[:2] for name in NAMES] == [f"0{n}" for n in range(1, 10)]


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
