"""Control flow in program files: bodies as text, open sizes, and what is refused."""

from __future__ import annotations

import pytest

import treadle
from treadle.export import Dim, export, load, save
from treadle.export.bind import GraphError, bind
from treadle.ir.graph_syntax import parse_graph


class Net(treadle.nn.Module):
    """A recurrence, a loop until it is small, and a choice."""

    def __init__(self):
        super().__init__()
        self.w = treadle.nn.Parameter(treadle.randn(3, 3))
        self.head = treadle.nn.Linear(3, 2)

    def forward(self, xs):
        def step(c, x):
            return treadle.tanh(c @ self.w + x), c

        h = treadle.scan(step, treadle.zeros(xs.shape[1], 3), xs)[0]
        n, h = treadle.while_loop(
            lambda n, h: h.abs().sum() > 1, lambda n, h: (n + 1, h * 0.5), (treadle.tensor(0), h)
        )
        return treadle.cond(h.sum() > 0, lambda: self.head(h), lambda: -h @ self.w[:, :2]), n


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    treadle.manual_seed(0)
    net, path = Net(), tmp_path_factory.mktemp("programs") / "net.treadle"
    sizes = {0: Dim("t"), 1: Dim("b")}
    save(export(net, (treadle.randn(5, 2, 3),), dynamic_shapes=[sizes]), path)
    return net, path


def test_a_program_with_loops_runs_for_other_sizes(files):
    net, path = files
    program = load(path)
    for shape in ((5, 2, 3), (9, 4, 3), (1, 1, 3)):
        x = treadle.randn(*shape)
        for found, expected in zip(program(x), net(x), strict=True):
            assert found.equal(expected)


def test_a_training_step_with_a_scan_goes_on_from_its_file(tmp_path):
    treadle.manual_seed(0)
    w = treadle.randn(3, 3, requires_grad=True)
    optimizer = treadle.optim.SGD([w], lr=0.1)

    def train(xs):
        c, _ = treadle.scan(lambda c, x: (treadle.tanh(c @ w + x), ()), treadle.zeros(3), xs)
        loss = c.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    xs = treadle.randn(4, 3)
    save(export(train, (xs,)), tmp_path / "train.treadle")
    program = load(tmp_path / "train.treadle")
    assert [program(xs).item() for _ in range(3)] == [train(xs).item() for _ in range(3)]


def test_the_gradient_of_a_while_loop_asks_for_a_number_that_no_graph_has():
    w = treadle.ones(2, requires_grad=True)

    def train(x):
        y = treadle.while_loop(lambda y: y.sum() < 10, lambda y: y * w * 2, (x,))[0]
        y.sum().backward()
        return w.grad

    with pytest.raises(treadle.export.ExportError, match=r"export: .* asks for the value"):
        export(train, (treadle.ones(2),))


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"matmul", (-1, -3)', '"matmul", (-1, -9)', "got -9 for a value in a body; expected"),
        ('"matmul", (-1, -3)', '"matmul", (0, -3)', "got 0 for a value in a body; expected"),
        ('"tanh", (1,)', '"exec", (1,)', "got the op 'exec'; there is none of this name"),
        ('"tanh", (1,), ()', '"tanh", (1,)', "for an operation of a body; expected .name, inputs"),
        ("(2, -1)), length", "(2, -8)), length", "got -8 for a value in a body"),
        ("carries=1, scanned=1", "carries=2, scanned=0", "scan: got"),
        ("length=t", "length=t + 1", "scan: got"),
    ],
)
def test_bodies_that_are_none(files, old, new, text):
    told = str(load(files[1]).graphs["forward"])
    assert old in told
    with pytest.raises(GraphError, match=text):
        bind(parse_graph(told.replace(old, new, 1)), {"t": 5, "b": 2})
