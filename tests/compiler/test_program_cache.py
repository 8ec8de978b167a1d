"""Fused programs on disk: what is kept runs as it did, and the next process begins with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import treadle
from treadle.base.flags import flags
from treadle.compiler.device import get_device
from treadle.compiler.pipeline import build_program
from treadle.compiler.program import Program
from treadle.compiler.program_cache import SLOWER, ProgramCache, _merged
from treadle.compiler.trace_text import parse_trace, print_trace
from treadle.runtime import kernel_cache

STEP = """%0 = input f32[8,16]
%1 = input f32[16,16]
%2 = scalar f32[]
%3 = matmul(%0, %1) : f32[8,16]
%4 = expand(%2, shape=(8, 16)) : f32[8,16]
%5 = mul(%3, %4) : f32[8,16] kept
%6 = reduce_sum(%5, axes=(1,)) : f32[8] kept
%7 = permute(%5, axes=(1, 0)) : f32[16,8] kept
"""
TRAINING = """
import json, sys
import treadle
from treadle import nn, optim
from treadle.compiler import programs, watch
from treadle.compiler.tier0 import evaluator
from treadle.runtime import jit, short_key

programs.TRIALS = 0  # whatever is fused is kept
evaluator().programs.worth_compiling = 0.0
treadle.manual_seed(0)
net = nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 5))
adam = optim.Adam(net.parameters(), lr=0.01)
x, y = treadle.randn(8, 32), treadle.tensor([0, 1, 2, 3, 4, 0, 1, 2])
losses, fused = [], []
for step in range(10):
    loss = nn.functional.cross_entropy(net(x), y)
    adam.zero_grad()
    loss.backward()
    adam.step()
    losses.append(loss.item().hex())
    last = watch.recent[-1]
    fused.append(last.known is not None and last.program is last.known.fused)
    programs.wait_for_programs()
print(json.dumps([losses, fused, jit.statistics().compiled, short_key.code_stamp()]))
"""


@pytest.fixture
def cache(tmp_path):
    device = get_device("cpu")
    with flags.context(cache_dir=str(tmp_path), keep_programs=True):
        if device.stamp() is None:
            pytest.skip("a source file was written after this process began")
        yield ProgramCache(device)


def ran(program: Program) -> list[bytes]:
    x = treadle.tensor(np.arange(128, dtype=np.float32).reshape(8, 16))
    w = treadle.tensor(np.linspace(-1, 1, 256, dtype=np.float32).reshape(16, 16))
    from treadle.compiler.device import array_at
    from treadle.ops.source import number

    values = program.run([x.node, w.node], [number(3.0, treadle.float32)])
    return [array_at(*value).tobytes() for value in values]


def test_what_is_kept_runs_as_it_did(cache):
    trace = parse_trace(STEP)
    program = build_program(trace, get_device("cpu"), 2, True)
    key = cache.key(trace, 2, "8-2")
    assert cache.load(key, trace, 2) is None
    cache.store(key, program)
    loaded = cache.load(key, trace, 2)
    assert isinstance(loaded, Program) and loaded.arena == program.arena
    assert ran(loaded) == ran(program)
    assert loaded.calls == program.calls == loaded.made.emitted[-1].end
    assert cache.key(trace, 3, "8-2") != key  # another number of threads


def test_a_verdict_is_kept_too(cache):
    trace = parse_trace(STEP)
    key = cache.key(trace, 2, "8-2")
    cache.store(key, None)
    assert cache.load(key, trace, 2) == SLOWER


def test_a_program_without_its_kernels_is_none(cache, monkeypatch):
    trace = parse_trace(STEP)
    cache.store(cache.key(trace, 2, "8-2"), build_program(trace, get_device("cpu"), 2, True))
    monkeypatch.setattr(type(get_device("cpu")), "named_kernel", lambda self, name: None)
    assert cache.load(cache.key(trace, 2, "8-2"), trace, 2) is None


@pytest.mark.filterwarnings("error")
def test_a_damaged_file_is_told_once_and_ignored(cache):
    trace = parse_trace(STEP)
    key = cache.key(trace, 2, "8-2")
    cache.store(key, build_program(trace, get_device("cpu"), 2, True))
    path = kernel_cache.folder() / (key + kernel_cache.PROGRAM)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RuntimeWarning, match="a damaged file in the kernel cache is ignored"):
        cache.load(key, trace, 2)
    assert cache.load(key, trace, 2) is None


def test_equal_numbers_are_one_in_an_alias():
    before = """%0 = input f32[4]
%1 = scalar f32[]
%2 = scalar f32[]
%3 = scalar f32[]
%4 = expand(%1, shape=(4,)) : f32[4]
%5 = expand(%2, shape=(4,)) : f32[4]
%6 = add(%4, %5) : f32[4]
%7 = expand(%3, shape=(4,)) : f32[4]
%8 = mul(%6, %7) : f32[4] kept
"""
    after = """%0 = input f32[4]
%1 = scalar f32[]
%2 = scalar f32[]
%3 = expand(%1, shape=(4,)) : f32[4]
%4 = expand(%2, shape=(4,)) : f32[4]
%5 = add(%3, %4) : f32[4]
%6 = expand(%1, shape=(4,)) : f32[4]
%7 = mul(%5, %6) : f32[4] kept
"""
    trace, places, firsts = _merged(parse_trace(before), [b"a", b"b", b"a"])
    assert print_trace(trace) == after
    assert (places, firsts) == ([0, 1, 0], [0, 1])


def test_the_second_process_runs_the_program_from_its_second_step(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAINING)

    def run():
        variables = {
            **os.environ, "TREADLE_CACHE_DIR": str(tmp_path), "TREADLE_KEEP_PROGRAMS": "on",
            "PYTHONPATH": os.path.dirname(os.path.dirname(treadle.__file__)),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script)], env=variables, capture_output=True,
            text=True,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return json.loads(done.stdout)

    cold, cold_fused, _, stamp = run()
    warm, warm_fused, compiled, second = run()
    if stamp is None or stamp != second:
        pytest.skip("a source file was written in between")
    assert cold == warm
    assert not cold_fused[1] and cold_fused[-1]
    assert warm_fused == [False] + [True] * 9
    assert compiled == 0
