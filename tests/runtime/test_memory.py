"""The allocator: reuse, alignment, views that keep memory, statistics, errors."""

import gc
import itertools
import mmap
import re
import signal
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from treadle.base import dtypes
from treadle.base.flags import flags
from treadle.runtime import memory

SIZES = [0, 1, 63, 64, 65, 1000, 4096, 65536, 65537, 1_000_000, 2 << 20, (2 << 20) + 1, 5_000_000]


@pytest.fixture(autouse=True)
def fresh():
    gc.collect()
    memory.empty_cache()
    memory.reset_peak_memory_stats()


@pytest.mark.parametrize("nbytes", SIZES)
def test_alignment_and_room(nbytes):
    buffers = [memory.allocate(nbytes) for _ in range(5)]
    spans = sorted((b.address, b.address + max(b.nbytes, 1)) for b in buffers)
    assert all(start % 64 == 0 for start, _ in spans)
    if nbytes >= 2 << 20:
        assert all(start % (2 << 20) == 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for number, buffer in enumerate(buffers):
        buffer.array(dtypes.uint8, (nbytes,))[:] = number
    for number, buffer in enumerate(buffers):
        assert (buffer.array(dtypes.uint8, (nbytes,)) == number).all()


def test_classes_waste_at_most_a_quarter():
    sizes = [memory._class_size(n) for n in range(1, 100_000, 37)]
    for n, size in zip(range(1, 100_000, 37), sizes, strict=True):
        assert n <= size <= max(n * 1.25 + 1, n + 63)
        assert size % 64 == 0
        assert memory._class_size(size) == size
    assert sizes == sorted(sizes)
    for n in (100_000, 3_000_000, 5_120_000, 121_000_000, 10**10 + 1):
        assert n <= memory._class_size(n) <= n * 17 / 16 + 4096


@pytest.mark.parametrize("nbytes", [100, 100_000, 10_000_000])
def test_a_dead_block_is_the_next_handed_out(nbytes):
    first = memory.allocate(nbytes)
    address = first.address
    del first
    assert memory.allocate(nbytes).address == address


@pytest.mark.parametrize("nbytes", [100, 100_000, 10_000_000])
def test_memory_is_not_reused_while_a_view_holds_it(nbytes):
    buffer = memory.allocate(nbytes)
    view = buffer.array(dtypes.uint8, (nbytes,))[3:].reshape(-1, 1).view(np.int8)
    view[:] = 42
    dead = weakref.ref(buffer)
    address = buffer.address
    del buffer
    others = [memory.allocate(nbytes) for _ in range(3)]
    assert address not in [other.address for other in others]
    for other in others:
        other.array(dtypes.uint8, (nbytes,))[:] = 0
    assert (view == 42).all()
    assert dead() is not None
    del view
    assert dead() is None


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_views_have_the_dtype_and_count_elements(dtype):
    buffer = memory.allocate(24 * dtype.itemsize)
    whole = buffer.array(dtype, (4, 6))
    assert whole.dtype == dtype.numpy
    assert whole.ctypes.data == buffer.address
    assert whole.flags.writeable
    whole[:] = np.arange(24).reshape(4, 6).astype(dtype.numpy)
    part = buffer.array(dtype, (2, 3), (12, -2), offset=5)
    np.testing.assert_array_equal(part, whole[::2, ::-2])
    assert buffer.array(dtype, (), offset=23) == whole[3, 5]
    assert buffer.array(dtype, (0, 5)).size == 0


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((26,), None, 0), ((25,), None, 1), ((2,), (25,), 0), ((2,), (-1,), 0), ((1,), None, -1)],
)
def test_views_outside_the_buffer_are_refused(shape, strides, offset):
    buffer = memory.allocate(100)
    text = f"with shape {shape}, strides {strides} and offset {offset} does not lie inside"
    with pytest.raises(ValueError, match=re.escape(text) + ".*100 bytes"):
        buffer.array(dtypes.float32, shape, strides, offset)


def test_wrap_keeps_the_owner_and_returns_nothing():
    owner = np.arange(10, dtype=np.float32)
    dead = weakref.ref(owner)
    before = memory.memory_stats()
    buffer = memory.wrap(owner, owner.ctypes.data, owner.nbytes)
    del owner
    view = buffer.array(dtypes.float32, (10,))
    del buffer
    assert view.tolist() == list(range(10))
    assert memory.memory_stats() == before
    del view
    assert dead() is None


def test_stats():
    start = memory.memory_stats()
    buffer = memory.allocate(3_000_000)
    held = memory.memory_stats()
    assert held["allocated.current"] - start["allocated.current"] == memory.block_bytes(3_000_000)
    assert held["reserved.current"] - start["reserved.current"] == memory.block_bytes(3_000_000)
    assert held["allocations"] == start["allocations"] + 1
    del buffer
    freed = memory.memory_stats()
    assert freed["allocated.current"] == start["allocated.current"]
    assert freed["allocated.peak"] == held["allocated.current"]
    assert freed["reserved.current"] == held["reserved.current"]
    assert freed["frees"] == start["frees"] + 1
    memory.empty_cache()
    memory.reset_peak_memory_stats()
    assert memory.memory_stats()["reserved.current"] == start["reserved.current"]
    assert memory.memory_stats()["allocated.peak"] == start["allocated.current"]


def test_empty_cache_returns_slabs_but_not_what_is_in_use():
    before = memory.memory_stats()["reserved.current"]
    small = [memory.allocate(960) for _ in range(1000)]
    for number, buffer in enumerate(small):
        buffer.array(dtypes.int64, (120,))[:] = number
    kept = small[500]
    del small, buffer
    grown = memory.memory_stats()["reserved.current"]
    memory.empty_cache()
    assert memory.memory_stats()["reserved.current"] - before <= 64 << 10 < grown - before
    again = [memory.allocate(960) for _ in range(1000)]
    assert kept.address not in {buffer.address for buffer in again}
    assert (kept.array(dtypes.int64, (120,)) == 500).all()


def test_old_free_blocks_are_returned_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(memory, "_SLACK", 0)
    monkeypatch.setattr(memory._counters, "most", 0)
    base = memory.memory_stats()["reserved.current"]
    mib = 1 << 20
    for size in range(2, 80, 2):  # each of another class: nothing is ever reused
        memory.allocate(size * mib)
        in_cache = memory.memory_stats()["reserved.current"] - base
        assert in_cache <= memory._counters.most * 1.25
    assert in_cache >= 64 * mib
    monkeypatch.setattr(memory, "_SLACK", 1 << 30)
    for size in range(2, 20, 2):  # within the limit everything stays
        memory.allocate(size * mib)
    assert memory.memory_stats()["reserved.current"] - base > 64 * mib


@pytest.mark.parametrize("nbytes", [1 << 46, 1 << 70])
def test_too_much_memory_is_told(nbytes):
    buffer = memory.allocate(3_000_000)
    with pytest.raises(MemoryError) as error:
        memory.allocate(nbytes)
    assert f"cannot allocate {nbytes / 2**30:.1f} GiB" in str(error.value)
    assert re.search(
        r"\d (GiB|MiB) are in use and .* are reserved.*smaller batch", str(error.value)
    )
    del buffer


def test_memory_is_given_back_before_giving_up(monkeypatch):
    memory.allocate(8 << 20)
    real = memory._map_now

    def no_room_while_cached(size):
        if memory._freed:
            raise MemoryError
        return real(size)

    monkeypatch.setattr(memory, "_map_now", no_room_while_cached)
    assert memory.allocate(100 << 20).nbytes == 100 << 20


def test_negative_size_is_told():
    with pytest.raises(ValueError, match="got a size of -1 bytes; a size must not be negative"):
        memory.allocate(-1)


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="no huge pages here")
@pytest.mark.parametrize("wanted", [True, False])
def test_huge_pages_follow_the_flag(wanted):
    memory.empty_cache()
    with flags.context(huge_pages=wanted):
        buffer = memory.allocate(8 << 20)
    with open("/proc/self/smaps") as file:
        regions = re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", file.read())
    for region in regions:
        start, end = (int(part, 16) for part in region.split(" ", 1)[0].split("-"))
        if start <= buffer.address < end:
            flag_names = re.search(r"VmFlags: (.*)", region).group(1).split()
            assert ("hg" in flag_names) == wanted
            return
    raise AssertionError("the block is in no region of the address space")


def test_threads_never_share_a_block():
    failures = []

    def work(mark):
        rng = np.random.default_rng(mark)
        held = []
        for size in rng.choice([100, 5000, 100_000, 3_000_000], 1500):
            buffer = memory.allocate(int(size))
            tag = buffer.array(dtypes.int64, (1,))
            tag[0] = mark
            held.append((buffer, tag))
            if len(held) > 8:
                _, tag = held.pop(int(rng.integers(8)))
                if tag[0] != mark:
                    failures.append(tag)
            if len(held) % 5 == 0:
                memory.empty_cache()

    start = memory.memory_stats()
    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
    memory.empty_cache()
    end = memory.memory_stats()
    assert end["allocated.current"] == start["allocated.current"]
    assert end["reserved.current"] == start["reserved.current"]


def test_buffers_in_cycles_die_inside_allocate():
    class Node:
        pass

    for _ in range(300):
        node = Node()
        node.self = node
        node.buffer = memory.allocate(1_000_000)
    gc.collect()
    assert memory.memory_stats()["allocated.current"] < 300_000_000


def test_no_python_code_runs_when_a_buffer_dies():
    """Else Ctrl-C would be swallowed there."""
    buffers = [memory.allocate(100), memory.allocate(1_000_000)]
    seen = []
    sys.setprofile(lambda frame, event, argument: seen.append((event, frame.f_code.co_name)))
    try:
        del buffers
    finally:
        sys.setprofile(None)
    assert [name for event, name in seen if event == "call"] == []


PRESSED = """
import signal, sys, threading
from treadle.runtime import memory
pressed = caught = 0
sys.unraisablehook = lambda u: sys.exit(f"swallowed: {u.exc_value!r} in {u.object!r}")
def press(*_):
    global pressed
    pressed += 1
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, press)
held = []
def work():
    held.clear()
    for size in (64, 5000, 100_000) * 20:
        memory.allocate(size)
        held.append(memory.allocate(size))
    held.clear()
while pressed < 2000:
    try:
        signal.setitimer(signal.ITIMER_REAL, 20e-6 + pressed % 97 * 1e-6)
        for _ in range(20):
            work()
    except KeyboardInterrupt:
        caught += 1
held.clear()
print(pressed, caught)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers that signal")
def test_ctrl_c_is_never_swallowed():
    done = subprocess.run([sys.executable, "-c", PRESSED], capture_output=True, text=True)
    assert (done.stderr, done.returncode) == ("", 0)
    pressed, caught = map(int, done.stdout.split())
    assert pressed == caught
