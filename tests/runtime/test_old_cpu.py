"""A CPU without AVX, FMA and F16C: the same bits, from slower code."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="x86-64 only"
)

# Prints digests of results; told "old", it compiles for the first x86-64 there was.
SCRIPT = """
import hashlib, sys
from treadle.runtime import jit, object_code
if sys.argv[1] == "old":
    old = object_code.native()._replace(cpu="x86-64", features="", vector_bits=128)
    jit.native = object_code.native = lambda: old
import numpy as np
import treadle
from treadle import nn

def show(name, x):
    print(name, hashlib.sha256(x.detach().numpy().tobytes()).hexdigest())

rng = np.random.default_rng(0)
x = treadle.from_numpy(rng.standard_normal((33, 70), np.float32))
w = treadle.from_numpy(rng.standard_normal((70, 45), np.float32))
for name in ("exp", "tanh", "floor", "round", "erf", "sin"):
    show(name, getattr(treadle, name)(x))
show("sum", x.sum(0))
show("softmax", nn.functional.softmax(x, 1))
for dtype in (treadle.float16, treadle.bfloat16, treadle.float32, treadle.float64):
    a, b = x.to(dtype), w.to(dtype)
    for result in (a @ b, a.exp(), a + 1):
        show(dtype, result.float())
treadle.manual_seed(0)
conv = nn.Conv2d(3, 5, 3)
conv(treadle.rand(2, 3, 12, 12)).square().sum().backward()
show("conv", conv.weight.grad)

every = np.arange(1 << 16).astype(np.uint16).view(np.float16)
wide = treadle.from_numpy(every).float().numpy()
assert np.array_equal(wide, every.astype(np.float32), equal_nan=True)
words = rng.integers(0, 1 << 32, 1 << 20, np.uint32)
words = np.concatenate([words, (wide.view(np.uint32)[:, None] + [-1, 0, 1, 0x1000, 0x0FFF, 0x1001])
                        .astype(np.uint32).ravel()])
numbers = words.view(np.float32)
with np.errstate(over="ignore", invalid="ignore"):
    expected = numbers.astype(np.float16)
    found = treadle.from_numpy(numbers).half().numpy()
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(expected))
"""


def test_same_bits_without_avx():
    results = []
    for kind in ("new", "old"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, check=False
        )
        assert (done.stderr, done.returncode) == ("", 0)
        results.append(done.stdout)
    assert results[0] == results[1]
