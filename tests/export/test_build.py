"""Native builds, run in C programs and in Node: their bits are Python's."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

import treadle
from tests.export.built import needs_cc, needs_node, run_built, run_wasm
from treadle import nn
from treadle.export import Dim, export, load
from treadle.export.native import BuildError, build

FILE = Path(__file__).parent / "files" / "v1.treadle"

FROM_LIBC = {
    "aligned_alloc", "free", "pthread_create", "pthread_join", "syscall", "sched_getcpu", "getpid",
    "sched_getaffinity", "sched_setaffinity",
}  # fmt: skip


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def picture(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def classifier():
    """A network whose small convolutions pack their weights once, and its results."""
    treadle.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(294, 10), nn.Tanh(),
    ).eval()  # fmt: skip
    x = picture(3, 1, 14, 14)
    program = export(model, (treadle.from_numpy(x),))
    return program, x, np.asarray(program(treadle.from_numpy(x)))


@needs_cc
@pytest.mark.parametrize("beside", [False, True], ids=["weights inside", "weights beside"])
def test_a_convolutional_network_on_all_kinds_of_threads(beside, tmp_path):
    program, x, expected = classifier()
    built = build(program, name="net", weights_inside=not beside)
    assert (built.weights is not None) is beside
    calls = [("forward", {"input": x})] * 2
    kinds = ("&several", "NULL") if beside else ("&own", "NULL")
    for threads in kinds:
        arena = "aligned_alloc(64, NET_ARENA_BYTES)" if threads == "NULL" else "NULL"
        (got,), (again,) = run_built(built, calls, tmp_path, arena, threads)
        assert same(got, expected) and same(again, expected)


@needs_cc
def test_one_library_chooses_among_the_levels_of_processors(tmp_path):
    program, x, expected = classifier()
    built = build(program, "x86-64", name="net")
    assert [level.cpu for level in built.machine.levels] == ["x86-64-v3", "x86-64-v4"]
    ((got,),) = run_built(built, [("forward", {"input": x})], tmp_path)
    assert same(got, expected)


@needs_cc
def test_a_processor_without_fma_gives_the_same_bits(tmp_path):
    program, x, expected = classifier()
    built = build(program, "x86-64-v2", name="net")
    assert {n for n, known in symbols(built.object_code).items() if n and not known} == FROM_LIBC
    ((got,),) = run_built(built, [("forward", {"input": x})], tmp_path)
    assert same(got, expected)


@needs_node
def test_webassembly_gives_the_same_bits(tmp_path):
    program, x, expected = classifier()
    built = build(program, "wasm32", name="net")
    (got,) = run_wasm(built, "forward", {"input": x}, tmp_path)
    assert same(got, expected)


def test_an_object_file_for_aarch64():
    program, _, _ = classifier()
    code = build(program, "aarch64", name="net").object_code
    magic, machine = struct.unpack_from("<16s2xH", code)
    assert magic[:6] == b"\x7fELF\x02\x01"  # 64 bits, little-endian
    assert machine == 183  # AArch64
    known = symbols(code)
    assert {n for n, is_defined in known.items() if is_defined} >= {"net_init", "net_forward"}
    assert {n for n, is_defined in known.items() if n and not is_defined} == FROM_LIBC


def symbols(code):
    """The symbols of an ELF file of 64 bits, and whether it defines them."""
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + i * size) for i in range(count)]
    found = {}
    for s in sections:
        if s[1] == 2:  # SHT_SYMTAB
            names = sections[s[6]][4]
            for at in range(s[4], s[4] + s[5], 24):
                name, _, _, section = struct.unpack_from("<IBBH", code, at)
                end = code.index(b"\0", names + name)
                found[code[names + name : end].decode()] = section != 0
    return found


@needs_cc
def test_training_goes_on_with_the_bits_of_python(tmp_path):
    program = load(FILE)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 1, 8, 8), np.float32), rng.integers(0, 4, 5)
    built = build(program, name="net", sizes={"N": 5})
    calls = [("train", {"x": x, "y": y})] * 3 + [("predict", {"x": x})]
    expected = [
        program.run(entry, *[treadle.from_numpy(a) for a in given.values()])
        for entry, given in calls
    ]
    got = run_built(built, calls, tmp_path, threads="&several")
    for (a,), b in zip(got, expected, strict=True):
        assert same(a, b)
    assert 'X("model.0.weight", "f32[2,1,3,3]", ' in built.header


@needs_cc
def test_random_numbers_and_states_that_trade_places(tmp_path):
    treadle.manual_seed(1)
    left, right = treadle.zeros(3), treadle.ones(3)

    def step(x):
        noise = nn.functional.dropout(x, 0.5, training=True) + treadle.randn(3)
        before = left.clone()
        left.copy_(right)
        right.copy_(before)
        return {"noise": noise, "view": (x * 2).reshape(3, 1).t(), "left": left + 0}

    x = picture(3)
    program = export(step, (treadle.from_numpy(x),))
    built = build(program, name="net")  # with the weights of now
    treadle.manual_seed(5)
    expected = [program(treadle.from_numpy(x)) for _ in range(3)]
    got = run_built(built, [("step", {"x": x})] * 3, tmp_path, seed=5)
    for outputs, told in zip(got, expected, strict=True):
        for a, b in zip(outputs, told.values(), strict=True):
            assert same(a, b)


@needs_cc
def test_what_a_kernel_refuses_is_told_with_its_line(tmp_path):
    table = treadle.arange(12.0).reshape(4, 3)
    program = export(lambda at: table[at], (treadle.zeros(2, dtype=treadle.int64),))
    built = build(program, name="net")
    (entry,) = built.signatures
    run_built(built, [(entry.graph, {entry.inputs[0].told: np.array([3, -4])})], tmp_path)
    with pytest.raises(AssertionError, match=r"index out of range: .*\[test_build.py:\d+\]"):
        run_built(built, [(entry.graph, {entry.inputs[0].told: np.array([4, 0])})], tmp_path)


# --- what cannot be built -------------------------------------------------------------------------


def test_targets_entries_and_sizes_are_checked():
    model = nn.Linear(3, 2)
    program = export(model, (treadle.ones(5, 3),), dynamic_shapes={"input": {0: Dim("N")}})
    with pytest.raises(BuildError, match=r"got the target 'sparc'; expected one of host, x86-64, "):
        build(program, "sparc")
    with pytest.raises(BuildError, match=r"got the entry 'train'; the program has forward"):
        build(program, entries=["train"])
    with pytest.raises(
        BuildError, match=r"fixed sizes, and N \(1 to \d+\) is open; give --size N=NUMBER for each"
    ):
        build(program)
    with pytest.raises(BuildError, match=r"got the size M=3; the open sizes are N"):
        build(program, sizes={"M": 3})
    with pytest.raises(BuildError, match=r"got the size N=0; graph 'forward' takes 1 to"):
        build(program, sizes={"N": 0})
    with pytest.raises(BuildError, match=r"got the name '2 x'; expected one that C allows"):
        build(program, name="2 x")
    with pytest.raises(BuildError, match=r"got 0 threads; expected 1 to 256"):
        build(program, threads=0)


def test_a_target_that_llvm_does_not_have_is_refused(monkeypatch):
    from treadle.export.native import targets

    monkeypatch.setattr(targets.platform, "machine", lambda: "riscv64")
    with pytest.raises(BuildError, match=r"'host', which is riscv64 on linux; builds are made for"):
        targets.machine("host")


def test_operations_without_native_code_are_refused_by_name_and_line():
    program = export(lambda x: treadle.linalg.inv(x), (treadle.eye(3),))
    with pytest.raises(BuildError, match=r"the operation \w+ runs in Python \[test_build.py:\d+\]"):
        build(program)


