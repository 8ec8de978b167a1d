"""PyTorch's checkpoints: files that PyTorch 2.13 wrote, both layouts; devices; what is refused."""

import io
import struct
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from tools import sweep_files
from treadle import nn, optim
from treadle.base.errors import DeviceError
from treadle.io import CheckpointError

FILES = Path(__file__).parent / "files"
LAYOUTS = ["zip.pt", "legacy.pt", "protocol4.pt"]
X = np.arange(12.0, dtype=np.float32).reshape(3, 4)


@pytest.fixture(scope="module", params=LAYOUTS)
def loaded(request: Any) -> Any:
    return treadle.load(FILES / request.param)


def test_plain_values(loaded: Any) -> None:
    expected = {
        "epoch": 3, "lr": 0.5, "name": "größe", "flags": (True, None, -5, 2**40),
        "dtype": treadle.float16, "device": treadle.device("cpu"), "size": (3, 4),
        "bytes": b"\x00\xff", "set": {1, 2}, "complex": 1 + 2j, "counter": Counter("aab"),
        "default": defaultdict(list, {"k": [1]}), "big": [10**30], "number": np.float64(0.25),
    }  # fmt: skip
    for key, value in expected.items():
        assert loaded[key] == value, key
        assert type(loaded[key]) is type(value) or key == "size", key
    assert type(loaded["size"]) is type(treadle.ones(1).shape)
    assert loaded["default"]["new"] == []
    np.testing.assert_array_equal(loaded["array"], np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(loaded["columns"], np.arange(6.0).reshape(2, 3))
    assert loaded["array"].dtype == np.int32


def test_tensors(loaded: Any) -> None:
    np.testing.assert_array_equal(loaded["x"], X)
    np.testing.assert_array_equal(loaded["transposed"], X.T)
    np.testing.assert_array_equal(loaded["column"], X[:, 1])
    np.testing.assert_array_equal(loaded["expanded"], np.ones((2, 3)))
    assert loaded["scalar"].item() == 7
    assert loaded["scalar"].shape == ()
    assert loaded["empty"].shape == (0, 3)
    names = [x.dtype.name for x in loaded["dtypes"]]
    assert " ".join(names) == "float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool"
    assert all(x.tolist() in ([1, 0, 2], [True, False, True]) for x in loaded["dtypes"])


def test_parameters_and_leaves(loaded: Any) -> None:
    parameter, frozen, leaf = loaded["parameter"], loaded["frozen"], loaded["leaf"]
    assert type(parameter) is type(frozen) is nn.Parameter
    assert (parameter.requires_grad, frozen.requires_grad, leaf.requires_grad) == (
        True,
        False,
        True,
    )
    assert type(leaf) is treadle.Tensor
    (parameter.sum() * leaf).backward()
    assert parameter.grad.tolist() == [1.5, 1.5]
    assert leaf.grad.item() == 3
    optim.SGD([parameter], lr=1.0).step()
    assert parameter.tolist() == [-0.5, 0.5]


def test_tensors_that_shared_memory_share_it_again() -> None:
    value = treadle.load(FILES / "zip.pt")
    with treadle.no_grad():
        value["x"][0, 0] = 100
    assert value["same"][0, 0].item() == 100
    assert value["parameter"].grad is None


def test_a_training_goes_on(loaded: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    assert type(loaded["model"]) is OrderedDict
    net.load_state_dict(loaded["model"])
    optimizer = optim.Adam(net.parameters(), lr=0.5)
    optimizer.load_state_dict(loaded["optimizer"])
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert net[1].num_batches_tracked.item() == 2
    before = net[0].weight.tolist()
    net(treadle.ones(4, 2)).sum().backward()
    optimizer.step()
    assert net[0].weight.tolist() != before


def test_all_layouts_hold_the_same_weights() -> None:
    states = [treadle.load(FILES / name)["model"] for name in LAYOUTS]
    for state in states[1:]:
        assert [(k, x.tolist()) for k, x in state.items()] == [
            (k, x.tolist()) for k, x in states[0].items()
        ]
    assert states[0]["0.weight"].abs().sum().item() > 0


def test_dtypes_of_later_versions() -> None:
    more = treadle.load(FILES / "more_dtypes.pt")
    assert more["uint16"].dtype is treadle.uint16
    assert more["uint16"].tolist() == [1, 2]
    assert more["complex"].tolist() == [1 + 2j]


def test_what_it_is_read_from(tmp_path: Path) -> None:
    data = (FILES / "zip.pt").read_bytes()
    assert treadle.load(io.BytesIO(data))["epoch"] == 3
    with (FILES / "legacy.pt").open("rb") as stream:
        assert treadle.load(stream, map_location="cpu", weights_only=False, mmap=True)["epoch"] == 3
    behind = io.BytesIO(b"before" + data)
    behind.seek(6)
    assert treadle.load(behind)["epoch"] == 3

    class Pipe:
        def read(self) -> bytes:
            return data

    assert treadle.load(Pipe())["epoch"] == 3
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        treadle.load(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="it is a folder; expected a file"):
        treadle.load(tmp_path)


def test_big_endian() -> None:
    data = (FILES / "zip.pt").read_bytes()
    assert data.count(b"little") == 1
    import zipfile

    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(made, "w") as target:
        for name in source.namelist():
            part = source.read(name)
            if name.endswith("byteorder"):
                part = b"big"
            if len(part) == 48:  # the storage of x
                part = np.frombuffer(part, "<f4").astype(">f4").tobytes()
            target.writestr(zipfile.ZipInfo(name), part)
    swapped = treadle.load(io.BytesIO(made.getvalue()))
    np.testing.assert_array_equal(swapped["x"], X)


def test_map_location() -> None:
    data = (FILES / "legacy.pt").read_bytes()
    cuda = data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert cuda != data

    def load(map_location: Any = None) -> Any:
        return treadle.load(io.BytesIO(cuda), map_location=map_location)["epoch"]

    with pytest.raises(
        DeviceError, match=r"saved on 'cuda:0', which is not there; load it with map"
    ):
        load()
    for there in ("cpu", treadle.device("cpu"), {"cuda:0": "cpu"}, lambda s, where: s,
                  lambda s, where: "cpu"):  # fmt: skip
        assert load(there) == 3
    for away in ("cuda:1", {"cuda:0": "cuda:1"}, lambda s, where: None):
        with pytest.raises(DeviceError, match="is not there"):
            load(away)


def test_code_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"only archives of code \(TorchScript\) are"):
        treadle.load(FILES / "script.pt")
    with pytest.raises(ValueError, match="Treadle's files hold no pickles; leave it out"):
        treadle.load(FILES / "zip.pt", pickle_module=struct)


def test_strings_of_python_2() -> None:
    magic, version = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02M\xe9\x03."
    data = magic + version + b"\x80\x02}.\x80\x02U\x03gr\xf6.\x80\x02]."
    assert treadle.load(io.BytesIO(data), encoding="latin1") == "grö"
    assert treadle.load(io.BytesIO(data), encoding="bytes") == b"gr\xf6"
    with pytest.raises(
        CheckpointError, match="is not utf-8; load with encoding='latin1' or 'bytes'"
    ):
        treadle.load(io.BytesIO(data))


def test_damaged_files_load_or_are_refused() -> None:
    """A few hundred of what ``make sweep-files`` loads, in a process of little memory."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.sweep_files", "--count", "600", "--here"],
        cwd=sweep_files.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {
        line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) for line in done.stdout.splitlines()
    }
    assert set(found) == {"CheckpointError", "SafetensorsError", "loaded"}, done.stderr
    assert sum(found.values()) == 600
