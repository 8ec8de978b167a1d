"""``treadle.compile``, programs that are kept only if they are faster, graphs that cannot be
compiled."""

import warnings

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn, optim
from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.compiler import pipeline, programs
from treadle.compiler.tier0 import evaluator


def chain(x):
    return F.softmax(F.gelu(x * 2 + 1), -1).sum(0)


def test_the_first_call_runs_as_a_fused_program():
    x = treadle.tensor(np.random.default_rng(0).standard_normal((7, 13)).astype(np.float32))
    known = evaluator().programs
    fused, replays = known.fused, known.replays
    result = treadle.compile(chain)(x)
    assert (known.fused, known.replays) == (fused + 1, replays + 1)
    with flags.context(programs="off"):
        assert chain(x).tolist() == result.tolist()


def test_a_whole_step():
    net = nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3))
    optimizer = optim.Adam(net.parameters())
    x, y = treadle.randn(11, 5), treadle.randint(0, 3, (11,))

    @treadle.compile
    def step():
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    known = evaluator().programs
    first = step().item()
    assert step().item() < first  # the optimizer's state is there by now: another graph
    fused, replays = known.fused, known.replays
    step()
    assert (known.fused, known.replays) == (fused, replays + 1)


def test_a_module_shares_its_parameters():
    net = nn.Linear(4, 2)
    compiled = treadle.compile(net)
    assert compiled.weight is net.weight
    assert isinstance(compiled, nn.Linear)
    x = treadle.randn(3, 4)
    assert compiled(x).tolist() == net(x).tolist()
    assert list(compiled.state_dict()) == list(net.state_dict())


def test_what_it_does_not_take():
    with pytest.raises(ValueError, match="compile: got backend 'eager'; there is one, 'treadle'"):
        treadle.compile(chain, backend="eager")
    with pytest.raises(TypeError, match="compile: got a int; it takes a function or a module"):
        treadle.compile(3)
    assert treadle.compile(chain, disable=True) is chain


def refuse(draft):
    raise CompileError("this is too much")


@pytest.fixture
def broken(monkeypatch):
    passes = (pipeline.PASSES[0]._replace(run=refuse), *pipeline.PASSES[1:])
    monkeypatch.setattr(pipeline, "PASSES", passes)


def test_a_graph_that_cannot_be_compiled_is_told_by_compile(broken):
    with pytest.raises(CompileError, match="this is too much"):
        treadle.compile(chain)(treadle.randn(3, 17))


def test_a_graph_that_cannot_be_compiled_goes_on_and_leaves_a_file(broken, monkeypatch, tmp_path):
    monkeypatch.setattr(evaluator().programs, "worth_compiling", -1)
    x = treadle.randn(3, 19)
    with flags.context(cache_dir=str(tmp_path)), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(5):
            result = chain(x).tolist()
        assert programs.wait_for_programs(20)
    with flags.context(programs="off"):
        assert chain(x).tolist() == result
    (warning,) = [w for w in told if "cannot be fused" in str(w.message)]
    (file,) = (tmp_path / "failures").iterdir()
    assert str(file) in str(warning.message)
    assert "exp" in file.read_text()
    with pytest.raises(CompileError, match="this is too much"):
        pipeline.compile_file(file)


def test_a_saved_graph_compiles(monkeypatch, tmp_path):
    made = []
    build = pipeline.build_program
    monkeypatch.setattr(pipeline, "build_program", lambda *a: made.append(a) or build(*a))
    treadle.compile(chain)(treadle.randn(5, 19))
    with flags.context(cache_dir=str(tmp_path)):
        assert "from which" in programs._saved(made[0][0])
        (file,) = (tmp_path / "failures").iterdir()
        assert pipeline.compile_file(file).calls


def test_a_fused_program_that_is_slower_is_given_up(monkeypatch):
    known = evaluator().programs
    monkeypatch.setattr(known, "worth_compiling", -1)
    x = treadle.randn(4, 23)
    for _ in range(4):
        chain(x).tolist()
    assert programs.wait_for_programs(20)
    (found,) = [
        k for s in known._structures.values() for k in s.known.values() if k.rival is not None
    ]
    fused, single = found.fused, found.rival
    before = single.runs
    while fused.runs < programs.TRIALS:
        chain(x).tolist()
    assert single.runs - before == programs.TRIALS  # in turn
    fused.best, single.best = 2e-3, 1e-3
    chain(x).tolist()
    assert found.program is single and found.rival is None
    assert "took 2.000 ms at best, that of single kernels 1.000 ms" in found.stage(single)
