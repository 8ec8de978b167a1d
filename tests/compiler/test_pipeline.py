"""The passes, each as before -> expected, and the text of what they work on."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.compiler import pipeline, tier0
from treadle.compiler.device import get_device
from treadle.compiler.pipeline import PASSES, Draft
from treadle.compiler.schedule import Step
from treadle.compiler.trace_text import (
    TraceSyntaxError,
    parse_trace,
    print_trace,
    verify_trace,
)
from treadle.nn import functional as F


def text(lines: str) -> str:
    """Lines of a test as a trace's text."""
    return "".join(f"{line.strip()}\n" for line in lines.strip().splitlines())


def after(name: str, lines: str) -> Draft:
    """The draft of a trace when the pass of that name is done, everything verified."""
    draft = Draft(parse_trace(text(lines)), get_device("cpu"), 2)
    for p in PASSES:
        p.run(draft)
        p.verify(draft)
        if p.name == name:
            return draft
    raise KeyError(name)


def printed(name: str, lines: str) -> str:
    """What the pass of that name leaves, as text."""
    return next(p for p in PASSES if p.name == name).text(after(name, lines))


LAYER = """
    %0 = input f32[32,64]
    %1 = input f32[48,64]
    %2 = input f32[48]
    %3 = scalar f32[]
    %4 = permute(%1, axes=(1, 0)) : f32[64,48]
    %5 = matmul(%0, %4) : f32[32,48]
    %6 = expand(%2, shape=(32, 48)) : f32[32,48]
    %7 = add(%5, %6) : f32[32,48]
    %8 = expand(%3, shape=(32, 48)) : f32[32,48]
    %9 = le(%7, %8) : b1[32,48] kept
    %10 = where(%9, %8, %7) : f32[32,48] kept
"""


# --- the text -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        LAYER,
        """
        %0 = input f32[2,3] strides=(1, 2)
        %1 = input f32[4]; i64[4]
        %2 = project(%1, index=1) : i64[4]
        %3 = convert(%2, dtype=bf16) : bf16[4] kept
        %4 = moments(%0, axes=(1,)) : f32[2]; f32[2]
        %5 = project(%4, index=0) : f32[2] kept
        """,
    ],
)
def test_a_trace_prints_as_it_was_read(lines):
    trace = parse_trace(text(lines))
    verify_trace(trace)
    assert print_trace(trace) == text(lines)


def test_traces_of_real_steps_parse_back(monkeypatch):
    seen = []
    build = pipeline.build_program

    def watched(trace, *rest):
        seen.append(trace)
        return build(trace, *rest)

    monkeypatch.setattr(pipeline, "build_program", watched)
    x = treadle.tensor(np.random.default_rng(0).standard_normal((2, 3, 9, 9)).astype("float32"))
    net = treadle.nn.Sequential(
        treadle.nn.Conv2d(3, 4, 3), treadle.nn.BatchNorm2d(4), treadle.nn.ReLU(),
        treadle.nn.MaxPool2d(2), treadle.nn.Flatten(), treadle.nn.Dropout(0.5),
        treadle.nn.Linear(36, 5),
    )  # fmt: skip
    adam = treadle.optim.Adam(net.parameters())
    labels = treadle.tensor(np.array([1, 3]))
    with flags.context(programs="wait"):
        for _ in range(6):
            loss = F.cross_entropy(net(x), labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
    tier0.evaluator().programs.clear()
    assert max(len(trace.entries) for trace in seen) > 100
    for trace in seen:
        printed_ = print_trace(trace)
        assert print_trace(parse_trace(printed_)) == printed_
        assert parse_trace(printed_).entries == trace.entries


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("%0 = input f32[2]\n%2 = neg(%0) : f32[2]", "line 2: got '%2 = neg(%0) : f32[2]'"),
        ("%0 = input f32(2)", "line 1: got 'f32(2)'; expected a type such as f32[2,3]"),
        ("%0 = input f32[2]\n%1 = frob(%0) : f32[2]", "expected an op of the registry"),
        ("%0 = input f32[2]\n%1 = neg(%1) : f32[2]", "and values above"),
        ("%0 = input f32[2]\n%1 = neg(%0) : f32[3]", "got the type f32[3]; expected f32[2]"),
        ("%0 = input f32[2]\n%1 = neg of %0", "expected 'op(...) : type'"),
    ],
)
def test_text_that_is_no_trace(lines, message):
    with pytest.raises(TraceSyntaxError) as caught:
        parse_trace(lines)
    assert message in str(caught.value)


# --- simplify -------------------------------------------------------------------------------------


def test_what_was_computed_before_is_not_computed_again():
    found = printed("simplify", """
        %0 = input f32[4]
        %1 = input f32[4]
        %2 = mul(%0, %1) : f32[4]
        %3 = mul(%1, %0) : f32[4]
        %4 = exp(%2) : f32[4]
        %5 = exp(%3) : f32[4]
        %6 = sub(%4, %5) : f32[4] kept
        %7 = sub(%0, %1) : f32[4] kept
        %8 = sub(%1, %0) : f32[4] kept
    """)  # fmt: skip
    assert found == text("""
        %0 = input f32[4]
        %1 = input f32[4]
        %2 = mul(%0, %1) : f32[4]
        %3 = %2 : f32[4]
        %4 = exp(%2) : f32[4]
        %5 = %4 : f32[4]
        %6 = sub(%4, %4) : f32[4] kept
        %7 = sub(%0, %1) : f32[4] kept
        %8 = sub(%1, %0) : f32[4] kept
    """)


def test_there_and_back_again():
    found = printed("simplify", """
        %0 = input bf16[4]
        %1 = convert(%0, dtype=f32) : f32[4]
        %2 = convert(%1, dtype=bf16) : bf16[4]
        %3 = neg(%2) : bf16[4]
        %4 = neg(%3) : bf16[4]
        %5 = exp(%4) : bf16[4] kept
    """)  # fmt: skip
    assert found == text("""
        %0 = input bf16[4]
        %1 = convert(%0, dtype=f32) : f32[4] dead
        %2 = %0 : bf16[4]
        %3 = neg(%0) : bf16[4] dead
        %4 = %0 : bf16[4]
        %5 = exp(%0) : bf16[4] kept
    """)


def test_rounding_and_results_that_are_kept_stay():
    lines = """
        %0 = input f32[4]
        %1 = convert(%0, dtype=bf16) : bf16[4]
        %2 = convert(%1, dtype=f32) : f32[4]
        %3 = exp(%2) : f32[4] kept
        %4 = exp(%2) : f32[4] kept
        %5 = reshape(%4, shape=(2, 2)) : f32[2,2]
    """
    assert printed("simplify", lines) == text(lines).replace("[2,2]", "[2,2] dead")


# --- fuse, attach, schedule -----------------------------------------------------------------------


def test_groups():
    assert printed("fuse", LAYER) == "map (32, 48): %7 add, %9 le, %10 where\n"


def test_a_map_rides_on_the_contraction_that_it_reads():
    expected = "epilogue (32, 48): %5 matmul, %7 add, %9 le, %10 where\n"
    assert printed("attach", LAYER) == expected
    assert printed("schedule", LAYER) == f"0: %9, %10 = {expected}"


def test_a_map_that_waits_for_the_contraction_by_another_way_rides_not():
    found = printed("attach", """
        %0 = input f32[8,8]
        %1 = matmul(%0, %0) : f32[8,8]
        %2 = matmul(%1, %0) : f32[8,8]
        %3 = add(%1, %2) : f32[8,8] kept
    """)  # fmt: skip
    assert found == "epilogue (8, 8): %2 matmul, %3 add\n"


def test_of_streams_there_may_be_few():
    adds = "\n".join(
        f"%{9 + j} = add(%{8 + j}, %{1 + j}) : f32[8,8]{' kept' * (j == 5)}" for j in range(6)
    )
    inputs = "\n".join(f"%{j} = input f32[8,8]" for j in range(8))
    found = printed("attach", f"{inputs}\n%8 = matmul(%0, %0) : f32[8,8]\n{adds}")
    assert found.startswith("map (8, 8): %9 add")


# --- batch, memory, link --------------------------------------------------------------------------

UPDATE = """
    %0 = input f32[20,5]
    %1 = input f32[20,5]
    %2 = input f32[7]
    %3 = input f32[7]
    %4 = scalar f32[]
    %5 = expand(%4, shape=(20, 5)) : f32[20,5]
    %6 = mul(%5, %0) : f32[20,5]
    %7 = add(%1, %6) : f32[20,5] kept
    %8 = expand(%4, shape=(7,)) : f32[7]
    %9 = mul(%8, %2) : f32[7]
    %10 = add(%3, %9) : f32[7] kept
"""


def test_like_maps_become_one_launch():
    expected = "0: %7, %10 = batch (20, 5): %6 mul, %7 add, %9 mul, %10 add\n"
    assert printed("batch", UPDATE) == f"{expected}    batch_kernel units 3, work 214\n"
    assert printed("link", UPDATE).startswith("1 calls, an arena of 0 bytes, 2 results of 428")


def test_maps_that_wait_for_one_another_stay_apart():
    draft = after("batch", """
        %0 = input f32[20,5]
        %1 = exp(%0) : f32[20,5] kept
        %2 = permute(%1, axes=(1, 0)) : f32[5,20]
        %3 = matmul(%1, %2) : f32[20,20]
        %4 = neg(%3) : f32[20,20]
        %5 = reduce_max(%4, axes=(0, 1)) : f32[]
        %6 = expand(%5, shape=(20, 5)) : f32[20,5]
        %7 = matmul(%2, %1) : f32[5,5] kept
        %8 = exp(%6) : f32[20,5] kept
    """)  # fmt: skip
    assert all(step.group is None or step.group.kind != "batch" for step in draft.steps)


def test_the_verifier_of_the_steps():
    draft = after("schedule", UPDATE)
    draft.steps = draft.steps[1:]
    with pytest.raises(CompileError, match="no step computes %6"):
        PASSES[3].verify(draft)
    draft = after("schedule", LAYER)
    draft.steps = [Step(10, None), *draft.steps]
    with pytest.raises(CompileError, match="the step of %10 reads %9, which comes later"):
        PASSES[3].verify(draft)


def test_the_verifier_of_traces():
    trace = parse_trace(text(UPDATE))
    entries = list(trace.entries)
    entries[1] = entries[1]._replace(inputs=(5, 8))
    with pytest.raises(CompileError, match="%6 reads %8, which is not before it"):
        verify_trace(trace._replace(entries=tuple(entries)))
    entries[1] = entries[4]._replace(inputs=(5, 2))
    with pytest.raises(CompileError, match=r"%6 reads %5 as f32\[7\]; it is f32\[20,5\]"):
        verify_trace(trace._replace(entries=tuple(entries)))


def test_the_passes_are_printed(capfd):
    with flags.context(programs="wait", debug="passes"):
        for _ in range(3):
            x = treadle.ones(3, 4)
            ((x * 2).exp() - x).sum().item()
    tier0.evaluator().programs.clear()
    found = capfd.readouterr().err
    places = [found.index(f"--- {p.name}\n") for p in PASSES]
    assert places == sorted(places) and found.startswith("--- trace\n%0 = scalar f32[]\n")
