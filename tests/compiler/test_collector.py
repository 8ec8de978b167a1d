"""The cyclic collector is paused inside evaluation and gradients, and on again after Ctrl-C."""

import gc
import signal
import subprocess
import sys

import pytest

from treadle.base.collector import without_collector


def test_off_inside_and_on_again():
    @without_collector
    def inner(fails):
        assert not gc.isenabled()
        if fails:
            raise ValueError("told")
        return 3

    assert inner(False) == 3
    assert gc.isenabled()
    with pytest.raises(ValueError, match="told"):
        inner(True)
    assert gc.isenabled()
    gc.disable()
    try:
        inner(False)
        assert not gc.isenabled()  # it was off before
    finally:
        gc.enable()


PRESSED = """
import gc, signal
import treadle
def press(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, press)
x = treadle.ones(3, requires_grad=True)
(x * 2).sum().backward()
pressed = 0
while pressed < 1500:
    try:
        signal.setitimer(signal.ITIMER_REAL, 30e-6 + pressed % 193 * 3e-6)
        while True:
            x.grad = None
            (x * 2).sum().backward()
            x.grad.sum().item()
    except KeyboardInterrupt:
        pressed += 1
        assert gc.isenabled(), pressed
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that signal")
def test_ctrl_c_leaves_the_collector_on():
    done = subprocess.run([sys.executable, "-c", PRESSED], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
