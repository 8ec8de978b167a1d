"""``treadle demo`` on a few digits: what it learns, writes and says."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from treadle.cli import demo
from treadle.vision import MNIST

for package in ("matplotlib", "tensorboard"):
    pytest.importorskip(package, reason="the demo needs the extras 'plot' and 'tensorboard'")


@pytest.fixture
def few_digits(monkeypatch):
    digits, test = MNIST(), MNIST(train=False)
    digits.data, digits.targets = digits.data[:640], digits.targets[:640]
    examples = demo.Examples("test", test.data[:200], test.targets[:200])
    monkeypatch.setattr(demo, "_examples", lambda validate: (digits, examples))


def test_learns_and_writes(tmp_path, capsys, few_digits):
    assert demo.run(seed=1, epochs=3, out=tmp_path) == 0
    out = capsys.readouterr().out
    assert "LeNet, 431,220 parameters, learns 640 digits; seed 1." in out
    assert "epoch 3/3" in out
    accuracy = float(out.split("s: ")[1].split("%")[0])
    assert accuracy > 60, "of ten digits, after thirty steps"
    assert f"tensorboard --logdir {tmp_path}" in out.splitlines()[-1]
    weights = load_file(tmp_path / "lenet.safetensors")
    assert weights["0.weight"].shape == (20, 1, 5, 5)
    assert {"2.running_mean", "12.bias"} <= set(weights)
    for name in ("curves.png", "wrong_digits.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_events_of_the_last_run_only(tmp_path, few_digits):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        demo.run(seed=1, epochs=1, out=tmp_path)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1]
    assert events.Tags()["images"] == ["wrong digits"]


def test_an_interrupt_saves_what_was_trained(tmp_path, capsys, few_digits, monkeypatch):
    seen = []
    step = demo.Progress.step

    def interrupted(self, *arguments, **metrics):
        step(self, *arguments, **metrics)
        seen.append(metrics)
        if len(seen) == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(demo.Progress, "step", interrupted)
    assert demo.run(seed=0, epochs=3, out=tmp_path) == 130
    assert "Stopped in epoch 2, after training for" in capsys.readouterr().out
    assert (tmp_path / "lenet.safetensors").exists()
    assert (tmp_path / "curves.png").exists()


def test_settings_are_chosen_on_digits_that_are_not_for_testing():
    digits, held = demo._examples(validate=True)
    assert (len(digits), len(held.labels)) == (7_000, 1_000)
    assert len(digits[6999][0]) == 1
    test = {image.tobytes() for image in MNIST(train=False).data}
    assert not any(image.tobytes() in test for image in held.images)
    np.testing.assert_array_equal(held.images, MNIST().data[7_000:])


def test_learning_rate_rises_and_falls():
    settings = demo.Settings(learning_rate=1.0, warmup_steps=10)
    rates = [demo.learning_rate(step, 100, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(1.0, abs=0.03)
    assert np.argmax(rates) == 9
    assert rates[-1] < 0.001
