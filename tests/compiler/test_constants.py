"""What inference makes of its weights is made once, and made again when they change."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.base.dtypes import float32
from treadle.base.flags import flags
from treadle.codegen.conv import plan_conv
from treadle.codegen.gemm import plan_matmul
from treadle.compiler import assembly, tier0
from treadle.compiler.constants import constant_weights, launches_ahead
from treadle.compiler.fuse import Fusion
from treadle.compiler.trace_text import parse_trace
from treadle.ir.launch import contiguous

INFERENCE = """%0 = input f32[2,8,9,9]
%1 = input f32[16,8,3,3]
%2 = conv_forward(%0, %1, stride=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1) \
: f32[2,16,9,9] kept
"""


def test_the_launches_before_the_first_that_reads_the_image():
    image, weight = contiguous(float32, (1, 64, 14, 14)), contiguous(float32, (64, 64, 3, 3))
    geometry = ((1, 1), ((1, 1), (1, 1)), (1, 1), 1)
    plan = plan_conv("forward", image, weight, image, *geometry, 2, 256)
    count, filled = launches_ahead(plan)
    names = [launch.kernel.build.__name__ for launch in plan.launches]
    assert names[:count] == ["conv_order", "conv_pack"] and filled
    square = contiguous(float32, (1, 64, 64))
    assert launches_ahead(plan_matmul(square, square, square, 2, 256)) == (0, frozenset())


def test_which_weights_stay():
    assert constant_weights(Fusion(parse_trace(INFERENCE))) == {2: 1}
    gradient = INFERENCE + (
        "%3 = conv_weight(%2, %0, window=(3, 3), stride=(1, 1), padding=((1, 1), (1, 1)), "
        "dilation=(1, 1), groups=1) : f32[16,8,3,3] kept\n"
    )
    assert constant_weights(Fusion(parse_trace(gradient))) == {}


@pytest.fixture
def made(monkeypatch):
    """The programs that are made while the test runs."""
    found = []
    program = assembly.Assembly.program

    def watched(self, steps):
        found.append(program(self, steps))
        return found[-1]

    monkeypatch.setattr(assembly.Assembly, "program", watched)
    with flags.context(programs="wait"):
        yield found
    tier0.evaluator().programs.clear()


def network(seed):
    treadle.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 1),
        nn.ReLU(), nn.Conv2d(24, 16, 3, stride=2), nn.ReLU(),
    )  # fmt: skip
    return net.eval()


def test_other_weights_are_packed_anew(made):
    one, two = network(1), network(2)
    images = np.random.default_rng(0).standard_normal((8, 2, 3, 12, 12)).astype("float32")

    def infer(net, i):
        with treadle.no_grad():
            return net(treadle.tensor(images[i])).numpy(copy=True)

    with flags.context(programs="off"):
        wanted = [[infer(net, i) for i in range(8)] for net in (one, two)]
    kept = []
    for i in range(8):
        assert infer(one, i).tobytes() == wanted[0][i].tobytes()
        kept.append(bool(made) and made[0].once._memory is not None)
    assert kept[-1] and not kept[0]
    for i in (3, 4, 5):  # the same program with other weights, then with both in turn
        for j, net in ((1, two), (1, two), (0, one), (1, two)):
            assert infer(net, i).tobytes() == wanted[j][i].tobytes()
    assert len(made) == 1
    for p in one.parameters():
        p.data.mul_(0.5)
    with flags.context(programs="off"):
        wanted = infer(one, 0)
    for _ in range(3):
        assert infer(one, 0).tobytes() == wanted.tobytes()


def test_a_training_keeps_nothing(made):
    net, images = network(3), treadle.randn(2, 3, 12, 12)
    sgd = treadle.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(6):
        sgd.zero_grad()
        net(images).sum().backward()
        sgd.step()
    assert made and all(program.once is None for program in made)
