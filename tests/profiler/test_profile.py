"""The profiler: schedules, tables by operation, layer, line and label, and the trace file."""

from __future__ import annotations

import gzip
import json
import re
import threading

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.flags import flags
from treadle.ir.node import Marks
from treadle.profiler import (
    ProfilerAction,
    ProfilerActivity,
    memory_report,
    profile,
    record_function,
    recording,
    schedule,
    tensorboard_trace_handler,
)


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x):
        return treadle.tanh(self.linear(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(24), Block(24))
        self.head = nn.Linear(24, 3)

    def forward(self, x):
        return self.head(self.blocks(x))


@pytest.fixture
def step():
    treadle.manual_seed(0)
    net = Net()
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x = treadle.from_numpy(np.ones((8, 24), "float32"))

    def step():
        with record_function("forward"):
            loss = (net(x) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def rows(averages):
    return {row.key: row for row in averages}


def test_a_training_step_by_operation(step):
    with flags.context(programs="wait"):
        for _ in range(6):
            step()
        with profile() as prof:
            for _ in range(4):
                step()
                prof.step()
    averages = prof.key_averages()
    found = rows(averages)
    assert found["ProfilerStep*"].count == 4
    assert found["Optimizer.step#SGD.step"].count == 4
    assert found["backward"].count == 4
    assert found["forward"].count == 4
    assert found["Net.blocks.1.linear"].count == 4
    assert found["evaluate (program)"].count == 4
    products = [row for key, row in found.items() if "matmul" in key]
    assert sum(row.count for row in products) == 4 * 8
    # The gradient with respect to the data is not asked for.
    least = 4 * 2 * 8 * 24 * (24 * 5 + 3 * 3)
    assert least <= sum(row.flops for row in products) < 2 * least
    for row in products:
        assert row.kernel_time_total == row.cpu_time_total == row.self_cpu_time_total > 0
    inside = found["ProfilerStep*"].kernel_time_total
    kernels = [e for e in prof.events() if e.category == "kernel"]
    assert inside == pytest.approx(sum(e.cpu_time_total for e in kernels))
    # Every moment is somebody's, and nobody's twice.
    assert averages.self_cpu_time_total == pytest.approx(averages.whole, rel=1e-2)


def test_by_layer_by_line_and_by_label_the_kernels_are_all_there(step):
    with flags.context(programs="wait"):
        for _ in range(6):
            step()
        with profile() as prof:
            step()
    whole = sum(e.cpu_time_total for e in prof.events() if e.category == "kernel")
    for group in ("layer", "line", "label"):
        averages = prof.key_averages(group_by=group)
        assert sum(row.kernel_time_total for row in averages) == pytest.approx(whole)
    layers = rows(prof.key_averages(group_by="layer"))
    assert {"Net.blocks.0", "Net.blocks.0.linear", "Net.blocks.1.linear", "Net.head"} <= set(layers)
    linear, block, net = (layers[f"Net{path}"] for path in (".blocks.0.linear", ".blocks.0", ""))
    assert linear.kernel_time_total > 0
    assert net.cpu_time_total > block.cpu_time_total > linear.cpu_time_total
    assert "(outside of layers)" in layers  # the loss and the optimizer
    # Forward and backward of a layer count as its own: one product forwards, one or two back.
    assert layers["Net.head"].flops >= 2 * 8 * 24 * 3 * 3
    lines = rows(prof.key_averages(group_by_stack_n=1))
    assert all(re.fullmatch(r"test_profile\.py:\d+", key) for key in lines)
    labels = rows(prof.key_averages(group_by="label"))
    assert set(labels) == {"forward", "(outside of record_function)"}


def test_what_is_pending_is_evaluated_at_the_end():
    x = treadle.from_numpy(np.ones((32, 32), "float32"))
    with profile() as prof:
        y = x @ x
    (event,) = [e for e in prof.events() if e.category == "kernel"]
    assert event.name == "matmul"
    assert event.flops == 2 * 32**3
    assert event.shape.endswith("32,32]")
    assert y.numpy()[0, 0] == 32


def test_shapes_can_be_rows_of_their_own():
    with profile() as prof:
        for size in (16, 32):
            x = treadle.ones(size, size)
            (x @ x).numpy()
    found = rows(prof.key_averages(group_by_input_shape=True))
    assert sorted(row.count for key, row in found.items() if key.startswith("matmul f32")) == [1, 1]
    assert rows(prof.key_averages())["matmul"].count == 2


def test_the_table():
    with profile() as prof, record_function("a name that is longer than the column for it"):
        x = treadle.ones(64, 64)
        (x @ x).numpy()
    averages = prof.key_averages()
    text = averages.table(
        sort_by="kernel_time_total", row_limit=2, max_name_column_width=20, header="one product"
    )
    lines = text.splitlines()
    assert lines[0] == "one product"
    assert re.split(r"\s{2,}", lines[2]) == [
        "Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg", "# of Calls",
        "Kernels", "Gflop/s", "GB/s", "of limit",
    ]  # fmt: skip
    assert len({len(line) for line in (lines[1], lines[3])}) == 1
    assert any(line.startswith("a name that is lo...") for line in averages.table(
        max_name_column_width=20).splitlines())  # fmt: skip
    assert re.fullmatch(r"\d+ more rows", lines[-2])
    assert re.fullmatch(r"Self CPU time total: [\d.]+(us|ms|s)", lines[-1])
    with pytest.raises(
        ValueError, match=r"table: got sort_by='cuda'; it takes cpu_time_total, self"
    ):
        averages.table(sort_by="cuda")
    with pytest.raises(ValueError, match=r"key_averages: got group_by='lines'; it takes 'op', 'la"):
        prof.key_averages(group_by="lines")


# --- schedule -------------------------------------------------------------------------------------


def test_a_schedule():
    action = schedule(wait=1, warmup=1, active=2, repeat=2, skip_first=1)
    letters = "".join({"NONE": ".", "WARMUP": "w", "RECORD": "r", "RECORD_AND_SAVE": "s"}[
        action(step).name] for step in range(11))  # fmt: skip
    assert letters == "..wrs.wrs.."
    with pytest.raises(
        ValueError, match=r"schedule: got active=0; active must be 1 or more, the ot"
    ):
        schedule(wait=1, warmup=1, active=0)
    with pytest.raises(ValueError, match=r"schedule: got wait=-1, repeat=-2; active must be"):
        schedule(wait=-1, warmup=1, active=1, repeat=-2)


def test_only_the_active_steps_are_recorded_and_each_cycle_is_told(step):
    seen = []

    def ready(prof):
        seen.append((prof.step_num, rows(prof.key_averages())["ProfilerStep*"].count))

    plan = schedule(wait=1, warmup=1, active=2, repeat=2)
    with profile(schedule=plan, on_trace_ready=ready) as prof:
        for _ in range(10):
            step()
            prof.step()
    assert seen == [(4, 2), (8, 2)]


def test_a_block_left_early_is_told_too(step):
    seen = []
    with profile(on_trace_ready=seen.append) as prof:
        step()
    assert seen == [prof]
    assert prof.current_action is ProfilerAction.RECORD


def test_results_before_there_are_any(step):
    with profile(schedule=schedule(wait=5, warmup=0, active=1)) as prof:
        step()
        prof.step()
    with pytest.raises(
        RuntimeError, match=r"profile: nothing has been recorded yet; read results af"
    ):
        prof.key_averages()


def test_one_recording_at_a_time_and_everything_is_put_back(step):
    before = nn.Module.__call__, treadle.Tensor.backward, optim.Optimizer.step
    with profile():
        assert nn.Module.__call__ is not before[0]
        with pytest.raises(RuntimeError, match="a profiler is recording already; end it"):
            profile().start()
    with pytest.raises(ZeroDivisionError), profile():
        step()
        raise ZeroDivisionError
    assert (nn.Module.__call__, treadle.Tensor.backward, optim.Optimizer.step) == before
    assert Marks.mark is None


def test_activities():
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]):
        pass
    with pytest.raises(ValueError, match=r"profile: got the activities \['CUDA'\]; ProfilerActivi"):
        profile(activities=[ProfilerActivity.CUDA])


def test_recording_changes_no_bit():
    def losses():
        treadle.manual_seed(1)
        net = Net()
        optimizer = optim.Adam(net.parameters())
        x = treadle.randn(8, 24)
        found = []
        for _ in range(6):
            loss = (net(x) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    plain = losses()
    with profile(profile_memory=True):
        assert losses() == plain


def test_record_function_decorates():
    @record_function("square")
    def square(x):
        return x * x

    with profile() as prof:
        assert square(treadle.ones(3)).sum().item() == 3
    found = rows(prof.key_averages())
    assert found["square"].count == 1
    assert rows(prof.key_averages(group_by="label"))["square"].count == 1


# --- the trace ------------------------------------------------------------------------------------


def spans(trace):
    return [event for event in trace["traceEvents"] if event["ph"] == "X"]


def test_the_trace_file(step, tmp_path):
    with profile() as prof:
        for _ in range(2):
            step()
            prof.step()
    prof.export_chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    names = {e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert "kernels" in names and len(names) == 2
    kernels = [e for e in spans(trace) if e["cat"] == "kernel"]
    assert kernels and {e["tid"] for e in kernels} == {0}
    assert all(e["dur"] >= 0 and e["args"]["lines"] for e in kernels)
    (update,) = {e["args"]["forced by"] for e in spans(trace) if e["cat"] == "evaluation"}
    assert re.fullmatch(r"Optimizer\.step\(\) at test_profile\.py:\d+", update)
    # Kernels run inside of the evaluations, to a tenth of a millisecond.
    around = [e for e in spans(trace) if e["cat"] == "evaluation"]
    for e in kernels:
        assert any(
            a["ts"] <= e["ts"] + 100 and e["ts"] + e["dur"] <= a["ts"] + a["dur"] + 100
            for a in around
        )
    counters = [e["args"]["bytes"] for e in trace["traceEvents"] if e["ph"] == "C"]
    assert len(counters) == 2 and all(n > 0 for n in counters)
    prof.export_chrome_trace(tmp_path / "trace.json.gz")
    with gzip.open(tmp_path / "trace.json.gz") as file:
        assert len(spans(json.load(file))) == len(spans(trace))


def test_traces_for_tensorboard(step, tmp_path):
    handler = tensorboard_trace_handler(str(tmp_path / "logs"), "worker")
    plan = schedule(wait=0, warmup=0, active=1)
    with profile(schedule=plan, on_trace_ready=handler) as prof:
        for _ in range(2):
            step()
            prof.step()
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) >= 2
    assert all(re.fullmatch(r"worker\.\d+\.pt\.trace\.json", file.name) for file in files)


def test_a_recording_is_bounded(step, monkeypatch, tmp_path):
    monkeypatch.setattr(recording, "_MOST_SPANS", 20)
    monkeypatch.setattr(recording, "_MOST_CALLS", 200)
    with profile() as prof:
        for _ in range(30):
            step()
    prof.export_chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text())
    assert len(spans(trace)) <= 20 + 200
    dropped = trace["otherData"]["dropped_events"]
    assert dropped > 0
    assert f"{dropped} events found no room; record fewer steps" in prof.key_averages().table()


def test_threads_have_tracks_of_their_own(tmp_path):
    def work():
        with record_function("beside"):
            (treadle.ones(100) * 2).numpy()

    with profile() as prof:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with record_function("here"):
            pass
    tracks = {e.name: e.thread for e in prof.events() if e.category == "user"}
    assert tracks["beside"] != tracks["here"]


# --- memory ---------------------------------------------------------------------------------------


def test_memory_by_layer_and_tensor():
    treadle.manual_seed(0)
    net = Net()
    optimizer = optim.Adam(net.parameters())
    net(treadle.ones(8, 24)).sum().backward()
    optimizer.step()
    report = memory_report()
    found = {row.name: row for row in report.rows}
    names = ("", ".grad", ".exp_avg", ".exp_avg_sq")
    weight = [found[f"Net.blocks.0.linear.weight{suffix}"] for suffix in names]
    owners = ["parameters", "gradients", "optimizer state", "optimizer state"]
    assert [row.owner for row in weight] == owners
    assert {row.layer for row in weight} == {"Net.blocks.0.linear"}
    assert {row.type for row in weight} == {"f32[24,24]"}
    assert report.by_layer()["Net.blocks.0.linear"]["optimizer state"] >= 2 * 4 * 24 * 25
    assert report.nbytes == sum(treadle.memory_by_owner().values())
    text = str(report)
    assert text.startswith("memory in use now: ")
    assert re.search(
        r"parameters +f32\[24,24\] +Net\.blocks\.0\.linear\.weight", report.table(1000)
    )


def test_memory_at_the_peak():
    treadle.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 1))
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    x = treadle.from_numpy(np.ones((256, 64), "float32"))
    with flags.context(programs="wait"), profile(profile_memory=True) as prof:
        for _ in range(4):
            loss = net(x).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    report = prof.memory()
    assert re.match(r"memory at the peak, test_profile\.py:\d+: ", str(report))
    assert report.nbytes >= memory_report().nbytes
