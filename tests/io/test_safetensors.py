"""The safetensors format against the library of that name; damaged files; replacing files."""

import contextlib
import json
import os
import re
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
from treadle import io
from treadle.base import dtypes


def example() -> dict[str, Any]:
    x = treadle.arange(12).reshape(3, 4)
    tensors = {d.name: x.to(d) for d in dtypes.ALL}
    return tensors | {
        "transposed": x.t(), "strided": x[:, ::2], "flipped": x.flip(0), "number": x[1, 1],
        "empty": treadle.zeros(0, 3), "größe": treadle.ones(1),
        "parameter": treadle.ones(2, requires_grad=True), "computed": x * 2 + 1,
    }  # fmt: skip


def file_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


# --- round trips ----------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    tensors = example()
    path = tmp_path / "x.safetensors"
    io.save_file(tensors, path, {"step": "3"})
    for loaded in (io.load_file(path), io.load_file(str(path)), io.load_bytes(path.read_bytes())):
        assert set(loaded) == set(tensors)
        for name, tensor in tensors.items():
            assert loaded[name].dtype is tensor.dtype
            assert loaded[name].shape == tensor.shape
            assert loaded[name].tolist() == tensor.tolist()
            assert not loaded[name].requires_grad
    assert io.load_metadata(path) == {"step": "3"}
    assert io.save_bytes(tensors, {"step": "3"}) == path.read_bytes()


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    tensors = example()
    path = tmp_path / "x.safetensors"
    io.save_file(tensors, path, {"step": "3"})
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"step": "3"}
        assert set(file.keys()) == set(tensors)
        for name, tensor in tensors.items():
            if tensor.dtype is not treadle.bfloat16:  # not every version has it
                array = file.get_tensor(name)
                assert array.dtype == tensor.dtype.numpy
                assert array.tolist() == tensor.tolist()


def test_we_read_what_the_library_writes() -> None:
    arrays = {
        d.name: np.arange(6).reshape(2, 3).astype(d.numpy)
        for d in dtypes.ALL if d is not dtypes.bfloat16
    }  # fmt: skip
    loaded = io.load_bytes(safetensors.numpy.save(arrays, {"a": "b"}))
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert loaded[name].dtype.numpy == array.dtype
        assert loaded[name].tolist() == array.tolist()


def test_a_fresh_process_reads_bfloat16(tmp_path: Path) -> None:
    io.save_file({"a": treadle.ones(2, dtype=treadle.bfloat16)}, tmp_path / "x")
    code = f"import treadle; print(treadle.io.load_file({str(tmp_path / 'x')!r}))"
    command = [sys.executable, "-c", code]
    folder = Path(treadle.__file__).parents[1]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    assert out == "{'a': tensor([1., 1.], dtype=treadle.bfloat16)}\n"


def test_arrays_are_aligned_and_in_this_machines_byte_order() -> None:
    data = io.save_bytes({
        "a": np.arange(3, dtype=np.uint8), "b": np.arange(3, dtype=">f8"),
        "c": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    })  # fmt: skip
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert [header[name]["data_offsets"] for name in "bca"] == [[0, 24], [24, 36], [36, 39]]
    assert (int.from_bytes(data[:8], "little") + 8) % 8 == 0
    loaded = io.load_bytes(data)
    assert loaded["b"].tolist() == [0, 1, 2]
    assert loaded["c"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_at_all(tmp_path: Path) -> None:
    io.save_file({}, tmp_path / "empty")
    assert io.load_file(tmp_path / "empty") == {}
    assert io.load_metadata(tmp_path / "empty") == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([treadle.ones(1)],), r"got a list; expected a dict of named tensors; for other struct"),
        (({"w": 1.5},), r"'w' is a float; expected tensors and NumPy arrays"),
        (({1: treadle.ones(1)},), r"got the name 1; expected a text"),
        (({"__metadata__": treadle.ones(1)},), r"got the name '__metadata__'"),
        (({"w": np.ones(1, "S3")},), r"'w': NumPy dtype bytes24 has no Treadle dtype"),
        (({}, {"step": 3}), r"got metadata 'step': 3; expected texts; convert with str\(\)"),
    ],
)
def test_what_cannot_be_saved(arguments: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        io.save_bytes(*arguments)
    with pytest.raises(TypeError, match=message):
        io.save_file(arguments[0], tmp_path / "x", *arguments[1:])
    assert not list(tmp_path.iterdir())


# --- damaged and lying files ----------------------------------------------------------------------

WHOLE = file_of({"a": entry()}, bytes(8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"it has 0 bytes; .*header too small"),
        (WHOLE[:5], r"it has 5 bytes; .*header too small"),
        (WHOLE[:30], r"it has 30 bytes; .*invalid header length"),
        (WHOLE[:-1], r"it has 76 bytes; .*not fully covered"),
        (WHOLE + b"x", r"it has 78 bytes; .*not fully covered"),
        ((1 << 63).to_bytes(8, "little") + WHOLE, r"header too large"),
        (file_of(b"{"), r"invalid JSON in header"),
        (file_of(b"[" * 100_000), r"invalid JSON in header"),
        (file_of(b"\xff\xfe{}"), r"invalid UTF-8 in header"),
        (file_of(b'{"a": ' + b"9" * 5000 + b"}"), r"invalid JSON in header"),
        (file_of([]), r"invalid JSON in header"),
        (file_of(b'{"a": 1, "a": 2}'), r"invalid JSON in header"),
        (file_of({"__metadata__": {"a": 1}}), r"expected a string"),
        (file_of({"__metadata__": []}), r"expected a map"),
        (file_of({"a": 5}), r"integer `5`, expected struct TensorInfo"),
        (file_of({"a": {"dtype": "F32"}}), r"missing field `shape`"),
        (file_of({"a": entry(shape=[-2], offsets=[8, 0])}, bytes(8)), r"`-2`, expected usize"),
        (file_of({"a": entry(shape=[2.0])}, bytes(8)), r"`2.0`, expected usize"),
        (file_of({"a": entry(shape=[True, 2])}, bytes(8)), r"`true`, expected usize"),
        (file_of({"a": entry(shape=[1 << 63, 0], offsets=[0, 0])}), r"has 90 bytes; .*dimension"),
        (file_of({"a": entry(dtype="Q8")}, bytes(8)), r"unknown variant `Q8`"),
        (
            file_of({"a": entry(dtype="F8_E4M3", shape=[8])}, bytes(8)),
            r"dtype F8_E4M3, which Treadle has",
        ),
        (file_of({"a": entry(shape=[3])}, bytes(8)), r"invalid shape, data type, or offset"),
        (file_of({"a": entry(shape=[1 << 62, 1 << 62])}, bytes(8)), r"overflow computing"),
        (file_of({"a": entry(shape=[1] * 65, offsets=[0, 4])}, bytes(4)), r"dimension"),
        (file_of({"a": entry(offsets=[8, 16])}, bytes(16)), r"invalid offset for tensor `a`"),
        (file_of({"a": entry(), "b": entry()}, bytes(8)), r"invalid offset for tensor `[ab]`"),
        (file_of({"a": entry(offsets=[0, 1 << 40], shape=[1 << 38])}), r"not fully covered"),
        (file_of({"a": entry("BOOL", [2], [0, 2])}, b"\1\2"), r"the bools of tensor 'a' are not a"),
        (b"PK\3\4" + bytes(60), r"is a zip or pickle file, such as PyTorch's; expected safetens"),
        (b"\x80\2}q\0." + bytes(60), r"is a zip or pickle file"),
    ],
)
def test_damaged_files(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    before = treadle.memory_stats()["allocated.current"]
    treadle.reset_peak_memory_stats()
    with pytest.raises(io.SafetensorsError, match=message) as caught:
        io.load_file(path)
    assert str(path) in str(caught.value)
    assert "[test_safetensors.py:" in str(caught.value)  # the user's line, not one of ours
    assert treadle.memory_stats()["allocated.peak"] - before < 4096
    with pytest.raises(io.SafetensorsError, match=message):
        io.load_bytes(data)


def test_fields_of_later_versions_of_the_format_are_left_alone() -> None:
    data = file_of({"a": entry(later="x")}, np.array([1, 2], np.float32).tobytes())
    assert io.load_bytes(data)["a"].tolist() == [1, 2]


def test_a_header_beyond_the_formats_limit_is_not_written(tmp_path: Path) -> None:
    text = {"text": "x" * 100_000_000}
    with pytest.raises(ValueError, match="header too large; write several files, or less metadata"):
        io.save_bytes({}, text)
    with pytest.raises(ValueError, match="header too large"):
        io.save_file({}, tmp_path / "x", text)
    assert not list(tmp_path.iterdir())


def library_takes(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return False
    return True


STRICTER = re.compile("which Treadle has not|bools of|dimension|array is too big")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_files_are_taken_as_the_library_takes_them(data: st.DataObject) -> None:
    whole = io.save_bytes({
        "a": treadle.ones(2, 3), "b": treadle.arange(2), "c": treadle.tensor([True])
    }, {"k": "v"})  # fmt: skip
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(changed) - 1))
        kind = data.draw(st.sampled_from(["change", "insert", "remove", "cut"]))
        byte = data.draw(st.sampled_from([*b'0123456789"{}[],:-e ', 0, 255]))
        match kind:
            case "change":
                changed[at] = byte
            case "insert":
                changed.insert(at, byte)
            case "remove" if len(changed) > 1:
                del changed[at]
            case "cut":
                del changed[max(at, 1) :]
    try:
        loaded = io.load_bytes(bytes(changed))
    except io.SafetensorsError as error:
        assert STRICTER.search(str(error)) or not library_takes(bytes(changed))
    else:
        assert library_takes(bytes(changed))
        assert sum(x.nbytes for x in loaded.values()) < len(changed)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        io.load_file(tmp_path / "absent")
    with pytest.raises(io.SafetensorsError, match="it is a folder; expected a file"):
        io.load_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(io.SafetensorsError, match="it is a device or pipe; expected a file"):
        io.load_file(tmp_path / "pipe")


# --- replacing files ------------------------------------------------------------------------------


@contextlib.contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    """A limit to the size of files stands in for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    io.save_file({"a": treadle.zeros(4)}, path)
    with (
        largest_file(100_000),
        pytest.raises(
            OSError, match=r"cannot write .*x\.safetensors: .*; what was there is unchan"
        ),
    ):
        io.save_file({"a": treadle.ones(100_000)}, path)
    assert io.load_file(path)["a"].tolist() == [0, 0, 0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    io.save_file({"a": treadle.ones(1)}, path)
    assert io.load_file(path)["a"].tolist() == [1]


def test_an_interruption_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    io.save_file({"a": treadle.zeros(1)}, path)

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        io.save_file({"a": treadle.ones(1)}, path)
    assert io.load_file(path)["a"].tolist() == [0]
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_file_is_on_the_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda d: (done.append("fsync"), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), replace(a, b)))
    io.save_file({"a": treadle.zeros(1)}, tmp_path / "x")
    assert done == ["fsync", "replace", "fsync"]


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    path, link = tmp_path / "x.safetensors", tmp_path / "latest"
    before = os.umask(0o027)
    try:
        io.save_file({"a": treadle.zeros(1)}, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    link.symlink_to(path.name)
    io.save_file({"a": treadle.ones(1)}, link)
    assert link.is_symlink()
    assert io.load_file(path)["a"].tolist() == [1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    tensors = {"a": treadle.zeros(1)}
    with pytest.raises(FileNotFoundError, match=r"cannot write .*absent.x: No such file.*choose a"):
        io.save_file(tensors, tmp_path / "absent" / "x")
    with pytest.raises(NotADirectoryError, match=r"cannot write .*file.x: Not a directory"):
        (tmp_path / "file").touch()
        io.save_file(tensors, tmp_path / "file" / "x")
    with pytest.raises(IsADirectoryError, match="it is a folder; name a file in it"):
        io.save_file(tensors, tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a device or pipe; name a file"):
        io.save_file(tensors, tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="choose a folder that exists and that you may"):
        io.save_file({"a": treadle.zeros(1)}, tmp_path / "x")
