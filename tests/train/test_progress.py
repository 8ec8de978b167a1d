"""What a training shows while it runs, on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from treadle.train import Progress


def _train(console: Console, interval: float = 10.0) -> list[dict[str, float]]:
    history = []
    with Progress(2, 3, console=console, interval=interval) as progress:
        for _ in range(2):
            for step in range(3):
                progress.step(10, loss=3.0 - step, accuracy=step / 4)
            history.append(progress.end_epoch(test_accuracy=0.5))
    return history


def test_plain_lines_one_an_epoch():
    stream = io.StringIO()
    history = _train(Console(file=stream))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss 2.0000  accuracy 25.00%  test accuracy 50.00%  ")
    assert lines[1].endswith(" images/s")
    assert history == [{"loss": 2.0, "accuracy": 0.25, "test_accuracy": 0.5}] * 2


def test_plain_lines_inside_an_epoch_at_intervals():
    stream = io.StringIO()
    _train(Console(file=stream), interval=0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("epoch 1/2     1/3  loss 3.0000  accuracy 0.00%")
    assert lines[0].endswith(" left")


def test_terminal_has_a_bar_and_leaves_the_epoch_lines():
    stream = io.StringIO()
    _train(Console(file=stream, force_terminal=True, width=100, legacy_windows=False, _environ={}))
    text = stream.getvalue()
    assert "\x1b[?25l" in text, "the cursor is hidden while the bar moves"
    assert text.rstrip().endswith("\x1b[?25h"), "and comes back"
    assert text.count("test accuracy 50.00%") == 2
    assert "━" in text


def test_a_dumb_terminal_gets_plain_lines():
    stream = io.StringIO()
    _train(Console(file=stream, force_terminal=True, _environ={"TERM": "dumb"}))
    assert "\x1b[?25l" not in stream.getvalue()


def test_a_notebook_without_widgets_gets_plain_lines(monkeypatch):
    monkeypatch.setattr("treadle.train.progress.find_spec", lambda name: None)
    console = Console(file=io.StringIO(), force_jupyter=True)
    assert Progress(1, 1, console=console)._bar is None
    monkeypatch.setattr("treadle.train.progress.find_spec", lambda name: object())
    assert Progress(1, 1, console=console)._bar is not None


def test_an_interrupt_passes_and_gives_the_cursor_back():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, legacy_windows=False, _environ={})
    with pytest.raises(KeyboardInterrupt), Progress(1, 5, console=console) as progress:
        progress.step(1, loss=1.0)
        raise KeyboardInterrupt
    assert stream.getvalue().rstrip().endswith("\x1b[?25h")


def test_time_left_comes_from_the_steps_done(monkeypatch):
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr("treadle.train.progress.time.monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Progress(10, 100, console=Console(file=stream), interval=0) as progress:
        progress.step(64, loss=1.0)
    minutes, seconds = stream.getvalue().split()[-2].split(":")
    assert int(minutes) * 60 + int(seconds) == pytest.approx(999 * 15, rel=0.7)


def test_no_epochs():
    with pytest.raises(ValueError, match="epochs=0 and steps=5; both must be >= 1"):
        Progress(0, 5)
