"""The README's program runs as printed."""

import re
from pathlib import Path

import treadle.export
import treadle.vision
from treadle.vision import MNIST

README = Path(__file__).resolve().parents[2] / "README.md"


def programs():
    """The blocks of Python, in their order."""
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_first_network_learns(monkeypatch, capsys):
    digits = MNIST()
    digits.data, digits.targets = digits.data[:2000], digits.targets[:2000]
    monkeypatch.setattr(treadle.vision, "MNIST", lambda train: digits)
    program = programs()[0]
    assert len(program.splitlines()) == 15
    exec(program, {})
    losses = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 3
    assert losses[-1] < 1.0, "ten digits by chance: 2.3"


def test_a_program_file_goes_on_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(programs()[1], {})
    program = treadle.export.load("digits.treadle")
    digits = MNIST()
    images, labels = treadle.tensor(digits.data[:64]), treadle.tensor(digits.targets[:64])
    program.optimizers[0].settings["lr"] = 0.01
    losses = [program.run("train", images, labels).item() for _ in range(30)]
    assert losses[-1] < 0.8 < losses[0]
    assert (program(images).argmax(1) == labels).float().mean().item() > 0.8


def test_files_that_it_names_exist():
    text = README.read_text()
    root = README.parent
    named = re.findall(r"`((?:docs|examples|treadle)/[\w./-]*|LICENSE)`", text)
    assert len(named) >= 4
    assert [name for name in named if not (root / name).exists()] == []
