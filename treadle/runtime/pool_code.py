"""The thread pool's generated code: the tape runner and the loop of a worker, as LLVM text.

One block of state is shared by the caller and the workers; word 0 counts the jobs published. The
caller writes a job, counts up, runs its own piece and waits until ``REMAINING`` is 0; a worker
waits for the count to change, runs its piece and counts ``REMAINING`` down. Who goes to sleep says
so first and looks again, who changes a word looks afterwards for sleepers; both orders are
sequentially consistent, so no wake-up is lost.
"""

from __future__ import annotations

import sys

from treadle.base.errors import DeviceError

# Offsets in the state, each written item on a cache line of its own.
LINE = 64
SLEEPERS = 1 * LINE  # workers that are asleep or about to be
REMAINING = 2 * LINE  # workers that have not finished the job
CALLER_ASLEEP = 3 * LINE
JOB = 4 * LINE  # fn, args, units
CALL = 5 * LINE  # written in Python: tape, count, threads, how often to pause before yielding
CODES = 6 * LINE  # one more line for each thread: the code its piece returned

TAPE, COUNT, THREADS, SPINS = CALL, CALL + 8, CALL + 16, CALL + 24

_YIELDS = 1000  # turns a waiting thread gives away, 0.3 ms and more, before it sleeps

# How to pause, and how to read and set the floating-point state, on each kind of CPU.
_CPUS = {
    "x86_64": """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @pause() alwaysinline { call void @llvm.x86.sse2.pause() ret void }
define internal void @save_float_state(ptr %at) alwaysinline {
  call void @llvm.x86.sse.stmxcsr(ptr %at) ret void }
define internal void @restore_float_state(ptr %at) alwaysinline {
  call void @llvm.x86.sse.ldmxcsr(ptr %at) ret void }
define internal void @set_float_state(ptr %scratch) alwaysinline {
  store i32 8064, ptr %scratch  ; 0x1F80: all exceptions masked, to nearest, denormals on
  call void @llvm.x86.sse.ldmxcsr(ptr %scratch) ret void }
""",
    "aarch64": """
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal void @pause() alwaysinline { call void @llvm.aarch64.isb(i32 15) ret void }
define internal void @save_float_state(ptr %at) alwaysinline {
  %state = call i64 @llvm.aarch64.get.fpcr() store i64 %state, ptr %at ret void }
define internal void @restore_float_state(ptr %at) alwaysinline {
  %state = load i64, ptr %at call void @llvm.aarch64.set.fpcr(i64 %state) ret void }
define internal void @set_float_state(ptr %scratch) alwaysinline {
  call void @llvm.aarch64.set.fpcr(i64 0) ret void }
""",
}

# How to sleep while a word keeps a value. Where there is no futex, sleep for a moment and look
# again. FUTEX is the number of the system call; 128 and 129 are FUTEX_WAIT and FUTEX_WAKE, private.
_FUTEX = """
declare i64 @syscall(i64, ...)
declare i32 @sched_yield()
define internal void @give_way() { %r = call i32 @sched_yield() ret void }
define internal void @sleep_while(ptr %word, i32 %value) {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 128, i32 %value, ptr null)
  ret void }
define internal void @wake(ptr %word) {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 129, i32 2147483647)
  ret void }
"""
_FUTEX_NUMBERS = {"x86_64": "202", "aarch64": "98"}
_POSIX = """
declare i32 @usleep(i32)
declare i32 @sched_yield()
define internal void @give_way() { %r = call i32 @sched_yield() ret void }
define internal void @sleep_while(ptr %word, i32 %value) {
  %r = call i32 @usleep(i32 50) ret void }
define internal void @wake(ptr %word) { ret void }
"""
_WINDOWS = """
declare void @Sleep(i32)
declare i32 @SwitchToThread()
define internal void @give_way() { %r = call i32 @SwitchToThread() ret void }
define internal void @sleep_while(ptr %word, i32 %value) { call void @Sleep(i32 1) ret void }
define internal void @wake(ptr %word) { ret void }
"""

_COMMON = """
define internal void @relax(ptr %state, i32 %turn) {
  %spins_at = getelementptr i8, ptr %state, i64 SPINS
  %spins = load i32, ptr %spins_at
  %early = icmp slt i32 %turn, %spins
  br i1 %early, label %spin, label %yield
spin:
  call void @pause()
  ret void
yield:
  call void @give_way()
  ret void
}

define internal i1 @is_patient(ptr %state, i32 %turn) alwaysinline {
  %spins_at = getelementptr i8, ptr %state, i64 SPINS
  %spins = load i32, ptr %spins_at
  %limit = add i32 %spins, YIELDS
  %patient = icmp slt i32 %turn, %limit
  ret i1 %patient
}

define internal void @run_piece(ptr %state, i64 %thread) {
entry:
  %job = getelementptr i8, ptr %state, i64 JOB
  %fn = load ptr, ptr %job
  %args_at = getelementptr i8, ptr %job, i64 8
  %args = load ptr, ptr %args_at
  %units_at = getelementptr i8, ptr %job, i64 16
  %units = load i64, ptr %units_at
  %threads_at = getelementptr i8, ptr %state, i64 THREADS
  %threads = load i64, ptr %threads_at
  %low = mul i64 %units, %thread
  %high = add i64 %low, %units
  %begin = udiv i64 %low, %threads
  %end = udiv i64 %high, %threads
  %some = icmp ult i64 %begin, %end
  br i1 %some, label %call, label %done
call:
  %code = call i32 %fn(ptr %args, i64 %begin, i64 %end, i64 %thread)
  br label %done
done:
  %result = phi i32 [0, %entry], [%code, %call]
  %line = mul i64 %thread, LINE
  %codes = getelementptr i8, ptr %state, i64 CODES
  %slot = getelementptr i8, ptr %codes, i64 %line
  store i32 %result, ptr %slot
  ret void
}
"""

_WORKER = """
define i32 @treadle_pool_worker(ptr %state, i64 %thread) nounwind {
entry:
  %scratch = alloca i64
  %sleepers = getelementptr i8, ptr %state, i64 SLEEPERS
  %remaining = getelementptr i8, ptr %state, i64 REMAINING
  %caller_asleep = getelementptr i8, ptr %state, i64 CALLER_ASLEEP
  %job = getelementptr i8, ptr %state, i64 JOB
  br label %wait
wait:
  %last = phi i32 [0, %entry], [%generation, %work], [%generation, %finish], [%generation, %rouse]
  br label %look
look:
  %turn = phi i32 [0, %wait], [%next_turn, %again], [%turn, %sleep]
  %generation = load atomic i32, ptr %state acquire, align 4
  %is_new = icmp ne i32 %generation, %last
  br i1 %is_new, label %start, label %idle
idle:
  %patient = call i1 @is_patient(ptr %state, i32 %turn)
  br i1 %patient, label %again, label %sleep
again:
  call void @relax(ptr %state, i32 %turn)
  %next_turn = add i32 %turn, 1
  br label %look
sleep:
  %up = atomicrmw add ptr %sleepers, i32 1 seq_cst
  call void @sleep_while(ptr %state, i32 %last)
  %down = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %look
start:
  %fn = load ptr, ptr %job
  %stop = icmp eq ptr %fn, null
  br i1 %stop, label %leave, label %work
work:
  call void @set_float_state(ptr %scratch)
  call void @run_piece(ptr %state, i64 %thread)
  %left = atomicrmw sub ptr %remaining, i32 1 seq_cst
  %is_last = icmp eq i32 %left, 1
  br i1 %is_last, label %finish, label %wait
finish:
  %asleep = load atomic i32, ptr %caller_asleep seq_cst, align 4
  %must_wake = icmp ne i32 %asleep, 0
  br i1 %must_wake, label %rouse, label %wait
rouse:
  call void @wake(ptr %remaining)
  br label %wait
leave:
  ret i32 0
}
"""

_RUNNER = """
define internal void @publish(ptr %state) {
  %new = atomicrmw add ptr %state, i32 1 seq_cst
  %sleepers = getelementptr i8, ptr %state, i64 SLEEPERS
  %asleep = load atomic i32, ptr %sleepers seq_cst, align 4
  %must_wake = icmp ne i32 %asleep, 0
  br i1 %must_wake, label %rouse, label %done
rouse:
  call void @wake(ptr %state)
  br label %done
done:
  ret void
}

define internal void @join(ptr %state) {
entry:
  %remaining = getelementptr i8, ptr %state, i64 REMAINING
  %caller_asleep = getelementptr i8, ptr %state, i64 CALLER_ASLEEP
  br label %look
look:
  %turn = phi i32 [0, %entry], [%next_turn, %again], [%turn, %sleep]
  %left = load atomic i32, ptr %remaining acquire, align 4
  %done = icmp eq i32 %left, 0
  br i1 %done, label %leave, label %idle
idle:
  %patient = call i1 @is_patient(ptr %state, i32 %turn)
  br i1 %patient, label %again, label %sleep
again:
  call void @relax(ptr %state, i32 %turn)
  %next_turn = add i32 %turn, 1
  br label %look
sleep:  ; a worker looks at the mark after the count, and we at the count after the mark
  store atomic i32 1, ptr %caller_asleep seq_cst, align 4
  %still = load atomic i32, ptr %remaining seq_cst, align 4
  call void @sleep_unless_zero(ptr %remaining, i32 %still)
  store atomic i32 0, ptr %caller_asleep seq_cst, align 4
  br label %look
leave:
  ret void
}

define internal void @sleep_unless_zero(ptr %word, i32 %value) {
  %zero = icmp eq i32 %value, 0
  br i1 %zero, label %done, label %sleep
sleep:
  call void @sleep_while(ptr %word, i32 %value)
  br label %done
done:
  ret void
}

; The code of the first piece that failed, whatever the number of threads.
define internal i32 @first_code(ptr %state, i64 %threads) {
entry:
  %codes = getelementptr i8, ptr %state, i64 CODES
  br label %look
look:
  %thread = phi i64 [0, %entry], [%next, %look]
  %line = mul i64 %thread, LINE
  %slot = getelementptr i8, ptr %codes, i64 %line
  %code = load i32, ptr %slot
  %next = add i64 %thread, 1
  %failed = icmp ne i32 %code, 0
  %last = icmp eq i64 %next, %threads
  %stop = or i1 %failed, %last
  br i1 %stop, label %done, label %look
done:
  ret i32 %code
}

define internal i32 @run_pieces(ptr %state, ptr %fn, ptr %args, i64 %units, i64 %threads) {
  %job = getelementptr i8, ptr %state, i64 JOB
  %args_at = getelementptr i8, ptr %job, i64 8
  %units_at = getelementptr i8, ptr %job, i64 16
  %remaining = getelementptr i8, ptr %state, i64 REMAINING
  store ptr %fn, ptr %job
  store ptr %args, ptr %args_at
  store i64 %units, ptr %units_at
  %others = sub i64 %threads, 1
  %count = trunc i64 %others to i32
  store atomic i32 %count, ptr %remaining monotonic, align 4
  call void @publish(ptr %state)
  call void @run_piece(ptr %state, i64 0)
  call void @join(ptr %state)
  %code = call i32 @first_code(ptr %state, i64 %threads)
  ret i32 %code
}

; Returns 0, or (index of the failed call + 1) << 32 | code.
define i64 @treadle_pool_run(ptr %state) nounwind {
entry:
  %tape_at = getelementptr i8, ptr %state, i64 TAPE
  %count_at = getelementptr i8, ptr %state, i64 COUNT
  %threads_at = getelementptr i8, ptr %state, i64 THREADS
  %tape = load ptr, ptr %tape_at
  %count = load i64, ptr %count_at
  %threads = load i64, ptr %threads_at
  %before = alloca i64
  %scratch = alloca i64
  call void @save_float_state(ptr %before)
  call void @set_float_state(ptr %scratch)
  %several = icmp sgt i64 %threads, 1
  br label %look
look:
  %index = phi i64 [0, %entry], [%next_index, %advance]
  %at = phi ptr [%tape, %entry], [%next_at, %advance]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %decode, label %leave
decode:
  %next_index = add i64 %index, 1
  %fn = load ptr, ptr %at
  %nargs_at = getelementptr i64, ptr %at, i64 1
  %nargs = load i64, ptr %nargs_at
  %units_at = getelementptr i64, ptr %at, i64 2
  %units = load i64, ptr %units_at
  %parallel_at = getelementptr i64, ptr %at, i64 3
  %parallel = load i64, ptr %parallel_at
  %args = getelementptr i64, ptr %at, i64 4
  %next_at = getelementptr i64, ptr %args, i64 %nargs
  %is_parallel = icmp ne i64 %parallel, 0
  %is_empty = icmp slt i64 %units, 1
  %is_nothing = and i1 %is_parallel, %is_empty
  br i1 %is_nothing, label %advance, label %choose
choose:
  %has_pieces = icmp sgt i64 %units, 1
  %wide = and i1 %is_parallel, %several
  %split = and i1 %wide, %has_pieces
  br i1 %split, label %fork, label %serial
serial:
  %serial_code = call i32 %fn(ptr %args, i64 0, i64 %units, i64 0)
  br label %check
fork:
  %fork_code = call i32 @run_pieces(ptr %state, ptr %fn, ptr %args, i64 %units, i64 %threads)
  br label %check
check:
  %code = phi i32 [%serial_code, %serial], [%fork_code, %fork]
  %good = icmp eq i32 %code, 0
  br i1 %good, label %advance, label %fail
advance:
  br label %look
fail:
  %high = shl i64 %next_index, 32
  %low = zext i32 %code to i64
  %failure = or i64 %high, %low
  br label %leave
leave:
  %result = phi i64 [0, %look], [%failure, %fail]
  call void @restore_float_state(ptr %before)
  ret i64 %result
}

define i32 @treadle_pool_stop(ptr %state) nounwind {
  %job = getelementptr i8, ptr %state, i64 JOB
  store ptr null, ptr %job
  call void @publish(ptr %state)
  ret i32 0
}
"""


def module(entry: str, triple: str) -> str:
    """The LLVM module with ``treadle_pool_`` + ``entry``, one of worker, run and stop."""
    cpu = triple.split("-")[0].replace("arm64", "aarch64")
    if cpu not in _CPUS:
        raise DeviceError(
            f"the CPU of this machine is {cpu}; Treadle generates code for "
            f"{' and '.join(_CPUS)}; use a machine with one of them"
        )
    wait = _WINDOWS if sys.platform == "win32" else _POSIX
    if sys.platform == "linux":
        wait = _FUTEX.replace("FUTEX", _FUTEX_NUMBERS[cpu])
    names = "SLEEPERS REMAINING CALLER_ASLEEP JOB TAPE COUNT THREADS SPINS CODES LINE"
    text = _CPUS[cpu] + wait + _COMMON + (_WORKER if entry == "worker" else _RUNNER)
    for name in names.split():
        text = text.replace(f"i64 {name}\n", f"i64 {globals()[name]}\n")
    return text.replace("YIELDS", str(_YIELDS)).replace(", LINE", f", {LINE}")
