"""The tape runner and the thread pool."""

import array
import ctypes
import os
import platform
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from treadle.base.errors import DeviceError
from treadle.base.flags import flags
from treadle.runtime import jit, pool, pool_code

HEAD = "define i32 @NAME(ptr %args, i64 %begin, i64 %end, i64 %thread) nounwind {\nentry:\n"

# counts[i] += 1 and owners[i] = thread for every unit i
MARK = """
  %counts = load ptr, ptr %args
  %owners_at = getelementptr i64, ptr %args, i64 1
  %owners = load ptr, ptr %owners_at
  br label %head
head:
  %i = phi i64 [%begin, %entry], [%next, %body]
  %go = icmp slt i64 %i, %end
  br i1 %go, label %body, label %done
body:
  %at = getelementptr i64, ptr %counts, i64 %i
  %old = load i64, ptr %at
  %new = add i64 %old, 1
  store i64 %new, ptr %at
  %owner_at = getelementptr i64, ptr %owners, i64 %i
  store i64 %thread, ptr %owner_at
  %next = add i64 %i, 1
  br label %head
done:
  ret i32 0
}
"""
# the code is 7 more than the first unit
FAIL = "  %code = trunc i64 %begin to i32\n  %more = add i32 %code, 7\n  ret i32 %more\n}"
MINUS = "  ret i32 -3\n}"
# out[thread] = x / 2, written very often
HALVE = """
  %out = load ptr, ptr %args
  %at = getelementptr double, ptr %out, i64 %thread
  %x_at = getelementptr i64, ptr %args, i64 1
  %x = load double, ptr %x_at
  br label %head
head:
  %i = phi i64 [0, %entry], [%next, %head]
  %half = fmul double %x, 0.5
  store volatile double %half, ptr %at
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, 100000
  br i1 %more, label %head, label %done
done:
  ret i32 0
}
"""
# the floating-point control word becomes the argument; the earlier one takes its place
CONTROL_X86 = """
  %old = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  call void @llvm.x86.sse.ldmxcsr(ptr %args)
  %word = load i32, ptr %old
  store i32 %word, ptr %args
  ret i32 0
}
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
"""
CONTROL_ARM = """
  %old = call i64 @llvm.aarch64.get.fpcr()
  %new = load i64, ptr %args
  call void @llvm.aarch64.set.fpcr(i64 %new)
  store i64 %old, ptr %args
  ret i32 0
}
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
"""
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
FLUSH_AND_ROUND_UP = 0xDFC0 if IS_X86 else 1 << 24 | 1 << 22

KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)


def kernel(name, body):
    text = HEAD.replace("NAME", name) + body
    return jit.compile_kernel(name, text, lambda: text)


@pytest.fixture(scope="module")
def mark():
    return kernel("pool_mark", MARK)


@pytest.fixture(autouse=True)
def automatic_threads():
    with flags.context(num_threads=0):
        yield


def words(*calls):
    """A tape of (fn, units, parallel, *args)."""
    tape = array.array("q")
    for fn, units, parallel, *args in calls:
        tape.extend([fn, len(args), units, parallel, *args])
    return tape


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_every_unit_once(mark, threads):
    pool.set_num_threads(threads)
    assert pool.get_num_threads() == threads
    for units in (0, 1, 2, 3, 7, 100):
        for pieces in (0, 1, 2, 3, 8, 1000):
            counts = np.zeros(100, np.int64)
            owners = np.full(100, -1)
            tape = words((mark, units, pieces, counts.ctypes.data, owners.ctypes.data))
            for _ in range(50):
                assert pool.run_tape(tape, 1) == (-1, 0)
            assert counts.tolist() == [50] * units + [0] * (100 - units)
            assert set(owners[:units]) <= set(range(threads if min(units, pieces) > 1 else 1))
    workers = [t for t in threading.enumerate() if t.name.startswith("treadle-")]
    assert len(workers) == threads - 1


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_every_piece_once_at_full_speed(mark, threads):
    """Threads that come late, to a job that is over, must not take pieces of the next."""
    pool.set_num_threads(threads)
    counts, owners = np.zeros((3, 40), np.int64), np.zeros(40, np.int64)
    calls = [(40, 40), (7, 2), (40, 3)]
    tape = words(
        *[
            (mark, units, pieces, counts[i].ctypes.data, owners.ctypes.data)
            for _ in range(5000)
            for i, (units, pieces) in enumerate(calls)
        ]
    )
    assert pool.run_tape(tape, 15000) == (-1, 0)
    for i, (units, _) in enumerate(calls):
        assert counts[i].tolist() == [5000] * units + [0] * (40 - units)


def test_all_threads_take_part(mark):
    pool.set_num_threads(2)
    size = 1 << 16
    counts, owners = np.zeros(size, np.int64), np.zeros(size, np.int64)
    tape = words((mark, size, 8, counts.ctypes.data, owners.ctypes.data))
    for _ in range(1000):
        pool.run_tape(tape, 1)
        if set(owners) == {0, 1}:
            return
    raise AssertionError("the worker never took a piece")


def test_caller_alone_where_no_worker_comes(mark, monkeypatch):
    """A worker that is kept off its core holds nobody up."""
    pool.set_num_threads(1)
    pool.run_tape(words(), 0)
    monkeypatch.setattr(pool._Pool, "_start", lambda self, thread: None)
    pool.set_num_threads(4)
    counts, owners = np.zeros(100, np.int64), np.full(100, -1)
    tape = words((mark, 100, 100, counts.ctypes.data, owners.ctypes.data))
    assert pool.run_tape(tape, 1) == (-1, 0)
    assert (set(counts), set(owners)) == ({1}, {0})


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two cores and Linux",
)
def test_worker_leaves_the_core_of_the_caller():
    pool.set_num_threads(2)
    halve = kernel("pool_halve", HALVE)
    out = np.zeros(2)
    tape = words(*[(halve, 8, 8, out.ctypes.data, 0)] * 10)
    pool.run_tape(tape, 1)
    (worker,) = [t for t in threading.enumerate() if t.name.startswith("treadle-")]
    cores = os.sched_getaffinity(0)
    core = min(cores)

    def call():
        os.sched_setaffinity(0, {core})  # of this thread
        os.sched_setaffinity(worker.native_id, {core})
        end = time.monotonic() + 10
        while core in os.sched_getaffinity(worker.native_id) and time.monotonic() < end:
            pool.run_tape(tape, 10)

    caller = threading.Thread(target=call)
    caller.start()
    caller.join()
    assert os.sched_getaffinity(worker.native_id) == cores - {core}
    os.sched_setaffinity(worker.native_id, cores)


def test_calls_run_in_order_each_with_its_own_arguments(mark):
    pool.set_num_threads(2)
    first, second = np.zeros(10, np.int64), np.zeros(10, np.int64)
    owners = np.zeros(10, np.int64)
    tape = words(
        (mark, 10, 10, first.ctypes.data, owners.ctypes.data),
        (mark, 4, 0, second.ctypes.data, owners.ctypes.data),
        (mark, 10, 2, second.ctypes.data, owners.ctypes.data),
    )
    assert pool.run_tape(tape, 0) == (-1, 0)
    assert pool.run_tape(tape, 2) == (-1, 0)
    assert first.tolist() == [1] * 10
    assert second.tolist() == [1] * 4 + [0] * 6
    assert pool.run_tape(tape, 3) == (-1, 0)
    assert second.tolist() == [3] * 4 + [1] * 6


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_first_failure_stops_the_tape(mark, threads):
    pool.set_num_threads(threads)
    fail = kernel("pool_fail", FAIL)
    counts, owners = np.zeros(8, np.int64), np.zeros(8, np.int64)
    good = (mark, 8, 8, counts.ctypes.data, owners.ctypes.data)
    assert pool.run_tape(words(good, (fail, 8, 8), good), 3) == (1, 7)  # whatever the threads
    assert counts.tolist() == [1] * 8
    assert pool.run_tape(words((fail, 8, 0)), 1) == (0, 7)
    assert pool.run_tape(words(good, (kernel("pool_minus", MINUS), 8, 8)), 2) == (1, -3)
    assert pool.run_tape(words(good), 1) == (-1, 0)


@pytest.mark.parametrize("threads", [1, 2])
def test_floating_point_state(threads):
    """The smallest normal number can be halved, whatever the caller's state is."""
    pool.set_num_threads(threads)
    control = KERNEL(kernel("pool_control", CONTROL_X86 if IS_X86 else CONTROL_ARM))
    halve = kernel("pool_halve", HALVE)
    x = np.array([2.0**-1022])
    out = np.zeros(threads)
    tape = words((halve, threads, threads, out.ctypes.data, int(x.view(np.int64)[0])))

    def halved_on_every_thread():
        out[:] = np.nan
        for _ in range(1000):
            if pool.run_tape(tape, 1) != (-1, 0):
                return None
            if not np.isnan(out).any():
                break
        return out.tolist()

    word = ctypes.c_int64(FLUSH_AND_ROUND_UP)
    control(ctypes.addressof(word), 0, 1, 0)
    try:
        result = halved_on_every_thread()
    finally:
        control(ctypes.addressof(word), 0, 1, 0)  # puts the test's own state back
    assert word.value & ~0x3F == FLUSH_AND_ROUND_UP  # the tapes left the caller's as it was
    assert result == [2.0**-1023] * threads
    # a kernel that spoils a thread's state does so for its own job only
    address = ctypes.cast(control, ctypes.c_void_p).value
    spoil = words(*[(address, 8, 8, FLUSH_AND_ROUND_UP)] * 1000)
    assert pool.run_tape(spoil, 1000) == (-1, 0)
    assert halved_on_every_thread() == [2.0**-1023] * threads


def test_many_python_threads_at_once(mark):
    pool.set_num_threads(2)
    failures = []

    def work(repeats):
        counts, owners = np.zeros(64, np.int64), np.zeros(64, np.int64)
        tape = words(*[(mark, 64, 8, counts.ctypes.data, owners.ctypes.data)] * 10)
        for _ in range(repeats):
            if pool.run_tape(tape, 10) != (-1, 0):
                failures.append("failed")
        if counts.tolist() != [10 * repeats] * 64:
            failures.append(counts)

    threads = [threading.Thread(target=work, args=(100,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in (1, 3, 2):  # the pool changes under them
        time.sleep(0.01)
        pool.set_num_threads(number)
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_gil_is_released(mark):
    pool.set_num_threads(2)
    size = 1 << 20
    counts, owners = np.zeros(size, np.int64), np.zeros(size, np.int64)
    tape = words(*[(mark, size, 8, counts.ctypes.data, owners.ctypes.data)] * 100)
    runner = threading.Thread(target=pool.run_tape, args=(tape, 100))
    runner.start()
    steps = 0
    while runner.is_alive():
        steps += 1
        time.sleep(0.001)
    assert steps > 3
    assert set(counts) == {100}


def test_threads_argument_wins_for_one_tape(mark):
    pool.set_num_threads(2)
    counts, owners = np.zeros(6, np.int64), np.zeros(6, np.int64)
    tape = words((mark, 6, 6, counts.ctypes.data, owners.ctypes.data))
    assert pool.run_tape(tape, 1, threads=3) == (-1, 0)
    assert counts.tolist() == [1] * 6
    assert len([t for t in threading.enumerate() if t.name.startswith("treadle-")]) == 2
    assert pool.get_num_threads() == 2


def test_number_of_threads():
    with pytest.raises(ValueError, match=r"set_num_threads got 0; expected at least 1 thread"):
        pool.set_num_threads(0)
    with pytest.raises(ValueError, match=r"NUM_THREADS is 5000; expected a whole number from 0 to"):
        pool.set_num_threads(5000)
    assert pool.get_num_threads() >= 1
    with flags.context(num_threads=7):
        assert pool.get_num_threads() == 7


def test_too_many_threads_are_told(mark, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    pool.set_num_threads(1)
    pool.run_tape(words(), 0)
    pool.set_num_threads(4)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match=r"could start only 1 of 4 threads .*NUM_THREADS"):
            pool.run_tape(words(), 0)
    test_threads_argument_wins_for_one_tape(mark)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"proc/self/cgroup": "0::/a/b\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "350000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0),
        (
            {
                "proc/self/cgroup": "3:memory:/m\n2:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_quota_of_control_groups(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert pool._quota(tmp_path, 8) == expected


@pytest.mark.parametrize("entry", ["worker", "run", "stop"])
@pytest.mark.parametrize("cpu", ["x86_64", "aarch64"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_generated_code_is_valid_for_every_system(monkeypatch, entry, cpu, system):
    import llvmlite.binding as llvm

    monkeypatch.setattr(sys, "platform", system)
    module = llvm.parse_assembly(pool_code.module(entry, f"{cpu}-unknown-{system}"))
    module.verify()
    assert module.get_function(f"treadle_pool_{entry}").name


def test_unknown_cpu_is_told():
    with pytest.raises(DeviceError, match=r"is riscv64; Treadle generates code for x86_64 and"):
        pool_code.module("run", "riscv64-unknown-linux-gnu")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_fork_while_another_thread_runs_tapes(mark):
    pool.set_num_threads(3)
    counts, owners = np.zeros(30, np.int64), np.zeros(30, np.int64)
    tape = words((mark, 30, 30, counts.ctypes.data, owners.ctypes.data))
    empty = kernel("pool_empty", "  ret i32 0\n}")
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            pool.run_tape(words(*[(empty, 9, 9)] * 100), 100)

    runner = threading.Thread(target=busy)
    runner.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                counts[:] = 0
                good = pool.run_tape(tape, 1) == (-1, 0) and set(counts) == {1}
                os._exit(0 if good and set(owners) <= {0, 1, 2} else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        runner.join()
    assert pool.run_tape(tape, 1) == (-1, 0)
    assert set(counts) == {1}


EXITS = {
    "plain": "run()",
    "from another thread": "t = threading.Thread(target=run); t.start(); t.join()",
    "while a tape runs": "threading.Thread(target=forever, daemon=True).start(); time.sleep(0.1)",
    "in a late atexit": "run()",
    "after an error": "run(); raise SystemExit(0)",
}


@pytest.mark.parametrize("how", EXITS)
def test_exit(how):
    script = """
        import array, atexit, sys, threading, time
        if "late" in sys.argv[1]:
            atexit.register(lambda: run())  # runs after the pool's own
        from treadle.runtime import jit, pool
        text = sys.argv[2]
        empty = jit.compile_kernel("pool_minus", text, lambda: text)
        pool.set_num_threads(3)
        tape = array.array("q", [empty, 0, 10, 10] * 10)

        def run():
            assert pool.run_tape(tape, 10) == (0, -3)

        def forever():
            while True:
                run()
    """
    text = HEAD.replace("NAME", "pool_minus") + MINUS
    code = textwrap.dedent(script) + EXITS[how]
    done = subprocess.run(
        [sys.executable, "-c", code, how, text], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
