"""Program files that are broken, cut off, from the future, or made to do harm."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.export import Dim, ProgramFileError, export, load, save
from treadle.export.program_file import ALIGNMENT
from treadle.nn import functional as F

FILES = Path(__file__).parent / "files"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file with a training step and a prediction, as bytes."""
    treadle.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(32, 4),
    )  # fmt: skip
    optimizer = treadle.optim.Adam(model.parameters())

    def step(x, y):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    def rank(x):
        values, places = model(x).sort(1)
        return {"values": values[:, ::2], "more": [places.cumsum(1), x.flip(0)]}

    x, y = treadle.randn(3, 1, 8, 8), treadle.tensor([0, 1, 2])
    n = Dim("N")
    program = export(
        {"train": step, "rank": rank}, {"train": (x, y), "rank": (x,)},
        dynamic_shapes={"train": {"x": {0: n}, "y": {0: n}}, "rank": {"x": {0: n}}},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("program") / "p.treadle"
    save(program, path)
    return path.read_bytes()


def with_text(data: bytes, change) -> bytes:
    """The file with another text, and a head that fits it."""
    head, _, rest = data.partition(b"\n")
    length, size = int(head.split()[3]), int(head.split()[4])
    text = change(rest[: length - len(head) - 1])
    length = len(head) + 1 + len(text)
    made = b"treadle program 2 %010d %016d\n" % (length, size) + text
    return made + bytes(-len(made) % ALIGNMENT) + data[len(data) - size :]


def replaced(data: bytes, old: str, new: str) -> bytes:
    pattern = re.compile(old.encode())
    assert pattern.search(data), old
    return with_text(data, lambda text: pattern.sub(new.encode(), text, count=1))


def test_a_sound_file_loads_and_maps_its_weights(data, tmp_path):
    path = tmp_path / "p.treadle"
    path.write_bytes(data)
    program = load(path)
    before = treadle.memory_stats()["allocated.current"]
    again = load(path)
    assert treadle.memory_stats()["allocated.current"] == before  # nothing was copied
    assert again.graphs == program.graphs
    assert str(again.graphs["train"]) in data.decode(errors="ignore")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (r"matmul\(", "rm_rf(", "got the op 'rm_rf'; there is none of this name"),
        (r"matmul\(", "buffer(", "got the op 'buffer'; there is none"),
        (r"stride=\(1, 1\)", "stride=(1.5, 1)", r"got stride=\(1.5, 1\); expected int"),
        (r"stride=\(1, 1\), ", "", "conv_forward: got the attributes"),
        (r"axes=\(1,\)", "axes=(7,)", "%"),
        (r"optimizer \"Adam\"", 'optimizer "System"', "got the optimizer 'System'; there is none"),
        (r"optimizer \"Adam\"", 'optimizer "Optimizer"', "Optimizer"),
        (r"\"lr\": 0.001", '"lr": "fast"', "got the settings .*'fast'.* for Adam"),
        (r"numerics 1", "numerics 9", "expected numerics up to 1; update Treadle"),
        (r"producer", "op matmul 9\nproducer", "expected ops and versions that this Treadle has"),
        (r" at 128", " at 129", "weights in order, at multiples of 64"),
        (r" at 128", " at 0", "weights in order, at multiples of 64"),
        (r" at 128", " at 6400000", "weights in order, at multiples of 64"),
        (r"(weight \S+) f32\[4,32\] at", r"\1 f32[4,1000] at", "weights in order"),
        (r"(%\d+ = weight \S+) f32\[4,32\]", r"\1 f32[32,4]", "expected f32.32,4."),
        (r"update \"\S+\"", 'update "nobody"', "there is no weight 'nobody' to update"),
        (r"number optimizer 0 (\d)", r"number optimizer 7 \1", "there is no number"),
    ],
)  # fmt: skip
def test_a_text_that_does_not_fit_is_refused(data, tmp_path, old, new, message):
    path = tmp_path / "p.treadle"
    path.write_bytes(replaced(data, old, new))
    with pytest.raises(ValueError, match=message):
        program = load(path)
        program.run("rank", treadle.zeros(3, 1, 8, 8))  # with open sizes: when they are known
        program.run("train", treadle.zeros(3, 1, 8, 8), treadle.zeros(3, dtype=treadle.int64))


def test_head_and_length_must_agree(data, tmp_path):
    path = tmp_path / "p.treadle"
    for broken, message in (
        (b"", "it is not a program file"),
        (b"PK\x03\x04" + data, "it is not a program file"),
        (data[:-1], "the file is damaged or cut off"),
        (data + b"\0", "the file is damaged or cut off"),
        (
            data.replace(b"program 2", b"program 3", 1),
            "got a file of version 3; this Treadle reads",
        ),
        (data.replace(b"graph", b"gr\xff\xfeh", 1), "codec can't decode"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ProgramFileError, match=message):
            load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")


def test_mutated_files_are_read_or_refused(data, tmp_path):
    """The first of what `make sweep-program-files` goes through."""
    from tools.sweep_program_files import mutate

    draw = random.Random(7)
    path = tmp_path / "p.treadle"
    read = 0
    for _ in range(60):
        path.write_bytes(mutate(data, draw))
        try:
            load(path)
            read += 1
        except ProgramFileError as error:
            assert str(path) in str(error)
    assert read < 60


def test_a_full_disk_leaves_the_old_file(data, tmp_path, monkeypatch):
    path = tmp_path / "p.treadle"
    path.write_bytes(data)
    program = load(path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("treadle.export.program_file.write", full)
    with pytest.raises(OSError, match=r"what was there is\s+unchanged"):
        save(program, path)
    assert path.read_bytes() == data


@pytest.mark.parametrize("path", sorted(FILES.glob("*.treadle")), ids=lambda p: p.name)
def test_files_of_every_version_give_the_results_they_gave(path):
    program = load(path)
    expected = np.load(path.with_suffix(".npz"))
    x = expected["x"]
    assert program.run("predict", x).numpy().tobytes() == expected["predicted"].tobytes()
    if "seen" in expected:  # from version 2 on: an optimised graph
        assert program.optimizations["look"]["fold_batch_norm"] == 1
        assert program.run("look", x).numpy().tobytes() == expected["seen"].tobytes()
    losses = [program.run("train", x, expected["y"]).item() for _ in range(3)]
    assert np.float32(losses).tobytes() == expected["losses"].tobytes()
