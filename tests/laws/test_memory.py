"""The law of memory: what nobody can read takes no memory, however long a program runs.

Bytes are those of ``treadle.memory_stats()``; the size of the process is looked at too, because
recorded operations are Python objects. ``python -m bench memory`` runs 10,000 steps.
"""

from __future__ import annotations

import copy
import gc
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.errors import GradientError
from treadle.compiler import programs
from treadle.ir.node import Limits, recorder
from treadle.ops import source

WARM_UP, STEPS = 50, 600
NUMBERS = 64 * source._RECENT
DEPTH = 10_000  # more than a stack of 256 KiB takes by any recursion
DATA = np.random.default_rng(0).normal(size=(16, 12)).astype(np.float32)


def _resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")


class Training:
    """A small net; ``step`` gives the loss, which is not read."""

    def __init__(self) -> None:
        treadle.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
        self.optimizer = optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9)

    def loss(self) -> treadle.Tensor:
        return self.net(treadle.from_numpy(DATA)).square().mean()

    def warm(self) -> Training:
        """Itself after a few steps, with all its state made."""
        for _ in range(3):
            self.step()
        return self

    def step(self) -> treadle.Tensor:
        loss = self.loss()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def _in_use() -> int:
    """Bytes handed out, without the table of numbers, which remembers some (at most NUMBERS)."""
    source._scalars.clear()
    gc.collect()
    return treadle.memory_stats()["allocated.current"]


def _growth(step: Callable[[], object], read: Callable[[], object] = lambda: None) -> int:
    """How much more is in use after STEPS steps than after a few; ``read`` evaluates the rest.

    The peak may not rise either, but for the numbers and for where in a step a budget ends.
    """
    for _ in range(WARM_UP):
        step()
    read()
    before = _in_use()
    for _ in range(WARM_UP):
        step()
    peak = treadle.memory_stats()["allocated.peak"]
    for _ in range(STEPS):
        step()
    assert treadle.memory_stats()["allocated.peak"] - peak <= NUMBERS + (16 << 10)
    read()
    return _in_use() - before


@pytest.fixture
def small_budget(monkeypatch):
    """So that what is never read is evaluated a few times within the steps of a test."""
    monkeypatch.setattr(Limits, "nodes", 500)


def test_a_training_is_flat():
    assert _growth(Training().step) == 0


def test_the_forgotten_accumulation_is_flat(small_budget):
    """``total = total + loss``, which keeps every loss alive until it is evaluated."""
    training = Training()
    total = treadle.zeros(())

    def step() -> None:
        nonlocal total
        total = total + training.step()

    assert _growth(step, lambda: total.item()) == 0
    assert np.isfinite(total.item())
    with pytest.raises(GradientError, match="released by an earlier backward"):
        total.backward()


def test_the_accumulation_before_backward_is_flat():
    training = Training()
    total = treadle.zeros(())

    def step() -> None:
        nonlocal total
        loss = training.loss()
        total = total + loss
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()

    assert _growth(step, lambda: total.item()) == 0


def test_the_accumulation_with_its_history_is_flat(small_budget):
    """A forward pass whose gradient nobody asks for, added up under no_grad."""
    training = Training()
    total = treadle.zeros(())

    def step() -> None:
        nonlocal total
        with treadle.no_grad():
            total += training.loss()

    assert _growth(step, lambda: total.item()) == 0
    assert np.isfinite(total.item())


def test_a_loop_that_never_reads_is_flat(small_budget):
    x = treadle.ones(64, 64)

    def step() -> None:
        nonlocal x
        x = (x * 0.99 + 0.01).tanh()

    assert _growth(step, lambda: x.tolist()) == 0
    assert len(recorder.state.pending) < Limits.nodes


def test_values_that_nobody_holds_are_never_computed():
    before = treadle.memory_stats()["allocated.current"]
    for _ in range(50):
        big = treadle.zeros(1 << 20).exp()  # 4 MB each
        del big
    x = treadle.ones(3) + 1
    treadle.reset_peak_memory_stats()
    x.tolist()
    assert treadle.memory_stats()["allocated.peak"] - before < 1 << 20


def test_graphs_dropped_without_evaluation_leave_nothing():
    training = Training().warm()
    before = _in_use()
    for _ in range(100):
        training.loss()
    (treadle.ones(1) * 1).tolist()
    assert _in_use() <= before


def test_an_exception_in_the_middle_leaves_nothing():
    training = Training().warm()
    before = _in_use()

    def failing() -> None:
        hidden = training.net[0](treadle.from_numpy(DATA))
        hidden @ treadle.ones(5, 5)

    for _ in range(100):
        with pytest.raises(RuntimeError, match=r"inner sizes|sizes 8 and 5"):
            failing()
    table = treadle.ones(4)
    for _ in range(100):
        picked = table[treadle.tensor([1, 9]) * 1]  # checked when it is used
        with pytest.raises(IndexError):
            picked.tolist()
    del picked, table
    training.step()
    assert _in_use() <= before


@needs_proc
def test_the_process_does_not_grow():
    """No table, cache or cycle of Python objects grows with the steps."""
    training = Training()
    for _ in range(WARM_UP):
        training.step()
    programs.wait_for_programs()  # compiling takes memory, once
    training.step()
    _in_use()
    objects, resident = len(gc.get_objects()), _resident()
    for _ in range(STEPS):
        training.step()
    _in_use()
    assert len(gc.get_objects()) - objects < 100
    assert _resident() - resident < 4 << 20


def test_memory_is_freed_by_reference_counts_alone():
    """A step leaves nothing that holds memory until the cyclic collector comes."""
    training = Training().warm()
    before = _in_use()
    gc.disable()
    try:
        for _ in range(50):
            training.step()
        source._scalars.clear()
        assert treadle.memory_stats()["allocated.current"] == before
    finally:
        gc.enable()


# --- depth --------------------------------------------------------------------------------------

# Each in a process of its own with a small stack for C, so that recursion in destructors, which
# Python cannot catch, is seen as a crash and nothing else dies with it.
_DEEP = """
import copy, pickle, resource, threading
import treadle
from treadle.ir.node import Limits
Limits.nodes = Limits.nbytes = 1 << 60
treadle.set_num_threads(1)
def run():
    x = treadle.ones(2, requires_grad={grad})
    y = x * 1
    for _ in range({depth}):
        y = y + x
{body}
threading.stack_size(256 << 10)
thread = threading.Thread(target=run)
thread.start()
thread.join()
print("done")
"""


def _deep(body: str, grad: bool = True, depth: int = DEPTH) -> None:
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    code = _DEEP.format(body=indented, grad=grad, depth=depth)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


@pytest.mark.parametrize("grad", [False, True])
def test_a_deep_chain_is_dropped(grad):
    _deep("del y", grad)


@pytest.mark.parametrize("grad", [False, True])
def test_a_deep_chain_is_evaluated_and_dropped(grad):
    _deep(f"assert y.tolist() == [{DEPTH + 1}.0] * 2\ndel y", grad)


def test_a_deeper_chain_backward():
    depth = 100_000
    _deep(f"y.sum().backward()\nassert x.grad.tolist() == [{depth + 1}.0] * 2", depth=depth)


def test_a_deep_chain_backward_after_evaluation():
    _deep(f"y.tolist()\ny.sum().backward()\ndel y\nassert x.grad.tolist() == [{DEPTH + 1}.0] * 2")


def test_a_deep_chain_with_its_graph_retained():
    _deep("y.sum().backward(create_graph=True)\ndel y\nx.grad = None")


def test_a_deep_chain_copied_and_pickled():
    body = "z = y.detach()\ncopy.deepcopy(z)\nassert pickle.loads(pickle.dumps(z)).tolist()[0] > 9"
    _deep(body)


def test_views_of_views():
    """A chain of view handles, then a write through the last of them."""
    _deep(
        "v = y.detach().clone()\nbase = v\n"
        "for _ in range(2000):\n    v = v.view(2)\n"
        "v[0] = 7\nassert base.tolist()[0] == 7",
        grad=False, depth=10,
    )  # fmt: skip


def test_copies_have_memory_of_their_own():
    x = treadle.ones(3, requires_grad=True)
    for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        with treadle.no_grad():
            y.add_(1)
        assert (x.tolist(), y.tolist()) == ([1.0] * 3, [2.0] * 3)
        assert y.requires_grad
