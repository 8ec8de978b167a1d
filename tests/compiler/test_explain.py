"""What ``treadle.explain`` tells: tiers, fusions, lines, what is new and why, what forced it."""

from __future__ import annotations

import io
import pdb
import re
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.flags import flags
from treadle.compiler import tier0, watch
from treadle.compiler.drawing import place
from treadle.compiler.explain import difference, who
from treadle.compiler.programs import wait_for_programs


@pytest.fixture(autouse=True)
def fresh():
    watch.forget()
    programs = tier0.evaluator().programs
    programs.clear()
    programs._seen.clear()


def line_of(text: str) -> str:
    """``test_explain.py:12`` for the line of this file that ends in the comment ``# text``."""
    with open(__file__, encoding="utf-8") as file:
        numbers = [n for n, line in enumerate(file, 1) if line.rstrip().endswith(f"# {text}")]
    (number,) = numbers
    return f"test_explain.py:{number}"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 5)

    def forward(self, x):
        return self.last(treadle.relu(self.first(x)))  # forward


class Training:
    def __init__(self, seed: int = 0):
        treadle.manual_seed(seed)
        self.net = Net()
        self.optimizer = optim.Adam(self.net.parameters())
        self.rng = np.random.default_rng(seed)

    def step(self, batch: int = 16, look=None):
        x = treadle.from_numpy(self.rng.standard_normal((batch, 12), dtype="float32"))
        y = treadle.from_numpy(self.rng.integers(0, 5, batch))
        loss = nn.functional.cross_entropy(self.net(x), y)  # loss
        if look is not None:
            look(loss)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()  # update
        return loss

    def steps(self, batch: int = 16):
        """As many as it takes to have a program."""
        for _ in range(6):
            self.step(batch)


def test_nothing_yet():
    assert str(treadle.explain()) == "nothing has been evaluated yet"


def test_a_step_that_repeats_is_a_fused_program():
    training = Training()
    with flags.context(programs="wait"):
        training.steps()
    told = treadle.explain()
    text = str(told)
    assert re.match(r"the last step: 1 evaluation, [\d.]+ [mu]s, of it [\d.]+ [mu]s in \d+ ", text)
    assert "Gflop/s" in text.splitlines()[1]
    assert f"evaluation forced by Optimizer.step() at {line_of('update')}: " in text
    assert re.search(r"ran as a program \(run \d+, times are of run \d+\): fused", text)
    assert re.search(r"\d+ operations in \d+ kernels: \d+ are fused into \d+ of them; ", text)
    assert "alone: " in text and "contractions" in text
    assert re.search(r"memory: .* while it runs, .* kept", text)
    kernels = told.kernels()
    assert all(k.seconds > 0 for k in kernels)
    assert sum(k.seconds for k in kernels) < 10
    products = [k for k in kernels if "matmul" in k.name]
    least = 2 * 16 * (12 * 32 * 2 + 32 * 5 * 3)
    assert least <= sum(k.flops for k in products) < 1.2 * least  # with what rides on them
    fused = [k for k in kernels if k.kind in ("map", "batch") and len(k.uses) > 5]
    assert any(k.by_line().startswith(f"{line_of('update')} ") for k in fused)
    assert any(line_of("loss") in k.lines for k in kernels)
    assert any(line_of("forward") in k.lines for k in kernels)


def test_op_by_op_says_why():
    training = Training()
    training.step(6)
    assert "seen for the first time" in str(treadle.explain())
    with flags.context(programs="off"):
        training.step()
    text = str(treadle.explain())
    assert "ran operation by operation: TREADLE_PROGRAMS is off" in text
    assert all(k.seconds > 0 and len(k.uses) == 1 for k in treadle.explain().kernels())
    watch.forget()
    (treadle.from_numpy(np.ones(3, "float32")) + 1).numpy()
    assert "it is too small for a program" in str(treadle.explain())


def test_a_program_of_single_kernels_says_when_it_is_fused():
    training = Training()
    training.steps(7)
    assert re.search(
        r"not fused yet, after 0\.\d+ of the 0\.1 s in kernels that make", str(treadle.explain())
    )


def test_another_shape_is_named_as_what_is_new():
    training = Training()
    training.steps()
    training.step(8)
    found = treadle.explain().differences()[-1]
    assert found.text == (
        f"Optimizer.step() at {line_of('update')} evaluated something new: reshape at "
        f"{line_of('forward')} got f32[8,12], before that f32[16,12]"
    )
    assert f"compiled again:\n  {found.text}" in str(treadle.explain())


def evaluated(function) -> watch.Evaluation:
    """The record of what evaluates on one line, whatever the function is."""
    function().numpy()  # evaluates
    return watch.recent[-1]


def test_differences():
    x = treadle.from_numpy(np.ones((4, 6), "float32"))
    held = []

    def keeping():
        y = x * 2
        held.append(y)
        return y + 1

    def new(before, after):
        watch.forget()
        with flags.context(programs="off"):
            found = difference(evaluated(before), evaluated(after))
        return found and found.text.partition("evaluated something new: ")[2]

    assert new(lambda: x * 2 + 1, lambda: x * 2 + 1) is None
    here = re.escape("test_explain.py:")
    assert re.fullmatch(
        rf"{here}\d+ did sub where there was add at {here}\d+",
        new(lambda: x * x + x,
            lambda: x * x - x),
    )  # fmt: skip
    assert re.fullmatch(
        rf"reduce_sum at {here}\d+ has axes=\(1,\), before that axes=\(0,\)",
        new(lambda: (x * x).sum(0), lambda: (x * x).sum(1)),
    )
    assert re.fullmatch(
        rf"2 operations more at the end, from {here}\d+ on",
        new(lambda: x * x, lambda: (x * x) ** 3),
    ) or re.fullmatch(
        rf"1 operation more at the end, from {here}\d+ on", new(lambda: x * x, lambda: (x * x) ** 3)
    )
    assert re.fullmatch(
        rf"the result of mul at {here}\d+ is held now, and was not before",
        new(lambda: x * 2 + 1, keeping),
    )


def test_print_in_the_middle_of_a_step_is_named(capsys):
    training = Training()
    training.step()
    training.step(look=lambda loss: print(loss))  # shown
    assert "tensor(" in capsys.readouterr().out
    text = str(treadle.explain())
    assert text.startswith("the last step: 2 evaluations")
    assert f"evaluation forced by print at {line_of('shown')}: " in text
    assert "in the middle of a step: what follows is a program of its own" in text


def test_a_look_at_a_breakpoint_is_named():
    training = Training()
    training.step()
    screen = io.StringIO()

    def look(loss):
        debugger = pdb.Pdb(stdin=io.StringIO("p loss\ncontinue\n"), stdout=screen, nosigint=True)
        debugger.set_trace()  # stopped
        return loss

    training.step(look=look)
    assert "tensor(" in screen.getvalue()
    text = str(treadle.explain())
    assert re.search(
        r"evaluation forced by a look \(print\) at a breakpoint at test_explain.py:\d+", text
    )
    stopped = int(line_of("stopped").partition(":")[2])
    number = int(re.search(r"breakpoint at test_explain.py:(\d+)", text)[1])
    assert number in (stopped, stopped + 1)


@pytest.mark.parametrize(
    ("use", "word"),
    [
        (bool, "bool(), as `if` asks for it"),
        (float, "float()"),
        (lambda x: x.item(), "Tensor.item()"),
        (lambda x: f"{x}", "print"),
        (lambda x: x.tolist(), "Tensor.tolist()"),
    ],
)
def test_who_wanted_a_value(use, word):
    x = treadle.ones(()) + 1
    use(x)
    assert who(watch.recent[-1].forced).startswith(f"{word} at test_explain.py:")


def test_the_budget_is_named():
    with flags.context(pending_nodes=16):
        from treadle.ir.node import Limits

        before, Limits.nodes = Limits.nodes, 16
        try:
            x = treadle.ones(4)
            for _ in range(20):
                x = x + 1
        finally:
            Limits.nodes = before
    assert who(watch.recent[0].forced).startswith(
        "the budget of operations (TREADLE_PENDING_NODES) at test_explain.py:"
    )


def test_equal_steps_of_other_lines_have_lines_of_their_own():
    x = treadle.from_numpy(np.ones((4, 6), "float32"))

    def one():
        return ((x * 2 + 1) * x - 3).numpy()  # one

    def two():
        return ((x * 2 + 1) * x - 3).numpy()  # two

    with flags.context(programs="wait"):
        for function, name in (
            (one, "one"),
            (one, "one"),
            (one, "one"),
            (two, "two"),
            (one, "one"),
        ):
            function()
            lines = {line for k in treadle.explain().kernels() for line in k.lines}
            assert lines == {line_of(name)}


def test_records_hold_no_values():
    x = treadle.from_numpy(np.ones(1 << 20, "float32"))
    in_use = treadle.memory_stats()["allocated.current"]
    for _ in range(3):
        ((x + 1) * 2 - x).numpy()
    assert treadle.memory_stats()["allocated.current"] == in_use


def test_records_are_bounded():
    with flags.context(programs="off"):
        x = treadle.from_numpy(np.ones(4, "float32"))
        for _ in range(100):
            (x + 1).numpy()
        assert len(watch.recent) == 64
        for _ in range(6):
            y = x
            for _ in range(16000):
                y = y + x
            y.numpy()
        assert sum(len(e.sigs) for e in watch.recent) <= 1 << 16


def test_debug_explain_prints_what_is_new_in_full_and_the_rest_in_a_line(capsys):
    training = Training()
    with flags.context(programs="wait", debug="explain"):
        training.steps()
        capsys.readouterr()
        training.step()
        assert re.fullmatch(
            r"\[treadle\] evaluation forced by Optimizer.step\(\) at .*; ran as a program "
            r"\(run \d+.*\n",
            capsys.readouterr().err,
        )
        training.step(8)
        error = capsys.readouterr().err
    assert "ran operation by operation: seen for the first time" in error
    assert "  new: Optimizer.step() at " in error
    assert all(line.startswith("[treadle]") for line in error.splitlines())
    assert not any(line.endswith(" ") for line in error.splitlines())


# --- the drawing ----------------------------------------------------------------------------------


def drawn():
    training = Training()
    with flags.context(programs="wait"):
        training.steps()
    return treadle.explain()


def test_the_drawing_has_a_box_for_each_kernel_and_an_arrow_for_each_reader(tmp_path):
    told = drawn()
    told.save(tmp_path / "step.svg")
    root = ET.fromstring((tmp_path / "step.svg").read_text())
    name = "{http://www.w3.org/2000/svg}"
    kernels = told.kernels()
    assert len(root.findall(f"{name}g")) == len(kernels)
    edges = [p for p in root.iter(f"{name}path") if p.get("class") == "edge"]
    assert len(edges) == sum(len(k.reads) for k in kernels) > len(kernels) / 2
    texts = [t.text for t in root.iter(f"{name}text")]
    assert any(line_of("forward") in t for t in texts)
    assert "contraction" in texts
    titles = "".join(t.text for t in root.iter(f"{name}title"))
    assert f"sqrt f32[12,32]  {line_of('update')}" in titles or "sqrt" in titles


def test_boxes_do_not_overlap_and_stand_below_what_they_read():
    kernels = drawn().kernels()
    boxes, bottom = place(kernels, 0)
    assert len(boxes) == len(kernels)
    for a, b in combinations(boxes, 2):
        assert a.x != b.x or a.y + a.height <= b.y or b.y + b.height <= a.y
    at = {box.kernel.number: box for box in boxes}
    for box in boxes:
        assert all(at[n].y + at[n].height <= box.y for n in box.kernel.reads)
        assert box.y + box.height <= bottom


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path):
    told = drawn()
    told.save(tmp_path / "step.html")
    page = (tmp_path / "step.html").read_text()
    assert page.startswith("<!doctype html>") and "<svg" in page
    addresses = re.findall(r"https?://[^\"'\s]+", page)
    assert set(addresses) == {"http://www.w3.org/2000/svg"}


def test_a_drawing_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"save got the path '.*\.png'; it must end in \.svg or"):
        treadle.explain().save(tmp_path / "step.png")


def test_a_step_that_cannot_be_fused_says_why(monkeypatch):
    def refuse(*args):
        raise ZeroDivisionError("a defect")

    training = Training()
    training.steps(5)
    known = watch.recent[-1].known
    programs = tier0.evaluator().programs
    monkeypatch.setattr("treadle.compiler.pipeline.build_program", refuse)
    monkeypatch.setattr(programs, "worth_compiling", 0.0)
    with pytest.warns(RuntimeWarning, match="cannot be fused"):
        training.step(5)
        assert wait_for_programs(10)
    assert known.program is not None
    training.step(5)
    assert "not fused: it cannot be fused: ZeroDivisionError: a defect" in str(treadle.explain())
