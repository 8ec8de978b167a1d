"""Compiling, caching and loading kernels."""

import ctypes
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from treadle.base.errors import CompileError
from treadle.base.flags import flags
from treadle.compiler.programs import wait_for_programs
from treadle.runtime import jit, kernel_cache


@pytest.fixture(autouse=True)
def alone():
    """What earlier tests have left to compile beside the run must not be counted here."""
    wait_for_programs()


ANSWER = """
define i32 @NAME(ptr %args, i64 %begin, i64 %end, i64 %thread) nounwind {
  %sum = add i64 %begin, %end
  %code = trunc i64 %sum to i32
  ret i32 %code
}
"""

# sum of 8 floats per unit, in scratch memory, as a naive printer writes it
SUM = """
define i32 @sum8(ptr %args, i64 %begin, i64 %end, i64 %thread) nounwind {
entry:
  %acc = alloca <8 x float>
  %counter = alloca i64
  %x = load ptr, ptr %args
  %out_at = getelementptr i64, ptr %args, i64 1
  %out = load ptr, ptr %out_at
  store <8 x float> zeroinitializer, ptr %acc
  store i64 %begin, ptr %counter
  br label %head
head:
  %i = load i64, ptr %counter
  %go = icmp slt i64 %i, %end
  br i1 %go, label %body, label %done
body:
  %at = getelementptr <8 x float>, ptr %x, i64 %i
  %v = load <8 x float>, ptr %at, align 4
  %old = load <8 x float>, ptr %acc
  %new = fadd <8 x float> %old, %v
  store <8 x float> %new, ptr %acc
  %next = add i64 %i, 1
  store i64 %next, ptr %counter
  br label %head
done:
  %result = load <8 x float>, ptr %acc
  store <8 x float> %result, ptr %out, align 4
  ret i32 0
}
"""

KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
)


@pytest.fixture(autouse=True)
def cache_dir(tmp_path):
    with flags.context(cache_dir=tmp_path / "cache"):
        yield tmp_path / "cache"


def answer(name, ir_text):
    return jit.compile_kernel(name, ir_text, lambda: ANSWER.replace("NAME", name))


def test_compiles_once_and_runs():
    before = jit.statistics()
    address = answer("jit_once", "once")
    assert KERNEL(address)(None, 40, 2, 0) == 42
    assert answer("jit_once", "once") == address
    after = jit.statistics()
    assert (after.compiled, after.loaded) == (before.compiled + 1, before.loaded)
    assert after.milliseconds > before.milliseconds


def test_different_text_is_different_code():
    assert answer("jit_two", "one") != answer("jit_two", "two")


def test_vector_bits_are_part_of_the_key_and_of_the_target():
    native = answer("jit_bits", "bits")
    other = 128 if jit.host_target().vector_bits != 128 else 256
    with flags.context(vector_bits=other):
        assert jit.host_target().vector_bits == other
        assert answer("jit_bits", "bits") != native


def test_target_describes_this_machine():
    target = jit.host_target()
    assert target.vector_bits in (128, 256, 512)
    assert target.triple
    assert target.cpu
    with open("/proc/cpuinfo") as file:
        info = file.read()
    if "avx2" in info and "avx512f" not in info:
        assert target.vector_bits == 256


def test_scratch_memory_becomes_registers(capfd):
    with flags.context(debug="asm,source,time"):
        address = jit.compile_kernel("sum8", "the loop IR of sum8", lambda: SUM)
    shown = capfd.readouterr().err
    assert "source of sum8\nthe loop IR of sum8" in shown
    assert "LLVM of sum8\n" in shown
    assert "sum8: compiled in" in shown
    assembly = shown.split("assembly of sum8")[1]
    assert "rsp" not in assembly  # nothing lives on the stack
    x = np.arange(80, dtype=np.float32)
    out = np.empty(8, np.float32)
    args = np.array([x.ctypes.data, out.ctypes.data])
    assert KERNEL(address)(args.ctypes.data, 1, 10, 0) == 0
    np.testing.assert_array_equal(out, x.reshape(10, 8)[1:].sum(0))


def test_many_threads_compile_one_kernel_once():
    before = jit.statistics().compiled
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(answer("jit_many", "many")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert len(set(results)) == 1
    assert jit.statistics().compiled == before + 1


def test_kernels_compile_side_by_side_and_errors_wait_until_somebody_asks():
    before = jit.statistics().compiled
    names = [f"jit_beside{number}" for number in range(12)]
    jobs = [lambda name=name: answer(name, name) for name in names]
    jobs.insert(3, lambda: jit.compile_kernel("jit_wrong", "wrong", lambda: "nonsense"))
    jit.side_by_side(jobs, threads=3)
    assert jit.statistics().compiled == before + 12
    assert all(KERNEL(answer(name, name))(None, 1, 2, 0) == 3 for name in names)
    assert jit.statistics().compiled == before + 12
    with pytest.raises(CompileError, match="the kernel jit_wrong does not compile"):
        jobs[3]()


def test_compile_error_names_the_kernel_and_the_next_try_starts_anew():
    with pytest.raises(CompileError, match=r"the kernel jit_bad does not compile: LLVM IR pars"):
        jit.compile_kernel("jit_bad", "bad", lambda: "define i32 @jit_bad() { ret i64 0 }")
    assert KERNEL(answer("jit_bad", "bad"))(None, 1, 2, 0) == 3


def test_missing_symbol_is_told_and_not_cached(capfd):
    text = (
        "declare i32 @nonesuch()\ndefine i32 @jit_link() { %x = call i32 @nonesuch() ret i32 %x }"
    )
    with pytest.raises(CompileError, match="the kernel jit_link was compiled but cannot be loaded"):
        jit.compile_kernel("jit_link", "link", lambda: text)
    assert kernel_cache.entries() == []


CHILD = """
import ctypes, sys
from treadle.base.flags import flags
from treadle.runtime import jit
flags.CACHE_DIR = sys.argv[1]
sys.stdin.read()
for i in range(10):
    name = f"shared{i}"
    address = jit.compile_kernel(name, name, lambda: sys.argv[2].replace("NAME", name))
    kernel = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *[ctypes.c_int64] * 3)(address)
    assert kernel(None, i, 1, 0) == i + 1
print(*jit.statistics()[:2])
"""


def children(cache_dir, count):
    command = [sys.executable, "-W", "error", "-c", CHILD, str(cache_dir), ANSWER]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for child in running:
        child.stdin.close()  # all start at once
    outputs = []
    for child in running:
        with child.stdout:
            outputs.append(tuple(map(int, child.stdout.read().split())))
        assert child.wait() == 0
    return outputs


def test_processes_share_the_cache(cache_dir):
    for compiled, loaded in children(cache_dir, 2):  # both at once
        assert compiled + loaded == 10
    assert children(cache_dir, 1) == [(0, 10)]


def test_damaged_object_is_compiled_again():
    address = answer("jit_damaged", "damaged")
    (entry,) = kernel_cache.entries()
    entry.path.write_bytes(entry.path.read_bytes()[:-1])
    jit._addresses.clear()  # as in a new process
    before = jit.statistics()
    with pytest.warns(RuntimeWarning, match="damaged"):
        again = answer("jit_damaged", "damaged")
    assert jit.statistics().compiled == before.compiled + 1
    assert KERNEL(again)(None, 1, 1, 0) == KERNEL(address)(None, 1, 1, 0) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_compiles_after_fork_while_another_thread_compiles():
    stop = threading.Event()

    def compile_all_the_time():
        number = 0
        while not stop.is_set():
            answer(f"jit_busy{number}", f"busy {number}")
            number += 1

    busy = threading.Thread(target=compile_all_the_time)
    busy.start()
    try:
        for number in range(3):
            child = os.fork()
            if child == 0:
                code = KERNEL(answer(f"jit_child{number}", "child"))(None, 3, 4, 0)
                os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    finally:
        stop.set()
        busy.join()
