"""The thread pool's generated code: the tape runner and the loop of a worker, as LLVM text.

One block of state is shared by the caller and the workers. A job is cut into pieces, and every
thread has a row of them that it takes first, so that it meets the same data again; when its own
row is done it takes what is left of the others'. So a thread that is kept off its core holds up
one piece at most, and a job can end without a worker that never came.

``NEWS`` has the number of the job in its low 48 bits and its number of pieces in the high 16 (none:
go home). ``PLACES`` has, for each row, the number of the job and how many of its pieces are taken.
A piece is taken by one compare-and-swap on its row's word, which fails for whoever comes late: the
word then has a later number, or says that all are taken. What else belongs to a job (``JOB``) is
read only with a piece in hand, for no job ends before all its pieces are reported (``REMAINING``).

The system likes to wake a worker on the core of whoever woke it, where it would wait for the very
thread it is to help. So a worker that finds itself there moves away, and stays off that core.

Who goes to sleep says so first and looks again, who changes a word looks afterwards for sleepers;
both orders are sequentially consistent, so no wake-up is lost.
"""

from __future__ import annotations

import re
import sys

from treadle.base.errors import DeviceError
from treadle.runtime.control_code import CONTROL

# Offsets in the state, each written item on cache lines of its own (CPUs fetch pairs of lines).
LINE = 128
NEWS = 0
SLEEPERS = 1 * LINE  # workers that are asleep or about to be
REMAINING = 2 * LINE  # pieces that are not done
CALLER_ASLEEP = 3 * LINE
JOB = 4 * LINE  # fn, args, units, the core of the caller
FAILURE = 5 * LINE  # piece << 32 | code of the first piece that failed, or -1
CALL = 6 * LINE  # written in Python: tape, count, times
SETUP = 7 * LINE  # written in Python: threads, helpers (the workers that have a core)
PLACES = 8 * LINE  # a line for each thread

_PIECES_PER_THREAD = 4  # what one thread is late, the others make good in such portions

_MICROSECOND = 3000  # ticks, of which a nanosecond has 2 to 4
_NUMBERS = {
    "LINE": LINE, "SLEEPERS": SLEEPERS, "REMAINING": REMAINING, "CALLER_ASLEEP": CALLER_ASLEEP,
    "JOB": JOB, "CORE": JOB + 24, "FAILURE": FAILURE, "CALL": CALL, "SETUP": SETUP,
    "PLACES": PLACES, "PER_THREAD": _PIECES_PER_THREAD,
    "NUMBER_BITS": (1 << 48) - 1,
    "IDLE": 100 * _MICROSECOND,  # what a worker waits for a job before it goes to sleep
    "LEAST": 2 * _MICROSECOND,  # what the caller waits for the last pieces, at least
    "MOST": 200 * _MICROSECOND,  # and at most
}  # fmt: skip

# How to read and set the floating-point state on each CPU.
_FLOAT_STATES = {
    "x86_64": """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal void @save_float_state(ptr %at) alwaysinline {
  call void @llvm.x86.sse.stmxcsr(ptr %at) ret void }
define internal void @restore_float_state(ptr %at) alwaysinline {
  call void @llvm.x86.sse.ldmxcsr(ptr %at) ret void }
define internal void @set_float_state(ptr %scratch) alwaysinline {
  store i32 8064, ptr %scratch  ; 0x1F80: all exceptions masked, to nearest, denormals on
  call void @llvm.x86.sse.ldmxcsr(ptr %scratch) ret void }
""",
    "aarch64": """
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal void @save_float_state(ptr %at) alwaysinline {
  %state = call i64 @llvm.aarch64.get.fpcr() store i64 %state, ptr %at ret void }
define internal void @restore_float_state(ptr %at) alwaysinline {
  %state = load i64, ptr %at call void @llvm.aarch64.set.fpcr(i64 %state) ret void }
define internal void @set_float_state(ptr %scratch) alwaysinline {
  call void @llvm.aarch64.set.fpcr(i64 0) ret void }
""",
}

# How to pause, and to read the time.
_CLOCKS = {
    "x86_64": """
declare i64 @llvm.readcyclecounter()
declare void @llvm.x86.sse2.pause()
define internal void @pause() alwaysinline { call void @llvm.x86.sse2.pause() ret void }
define internal i64 @ticks() alwaysinline {
  %now = call i64 @llvm.readcyclecounter() ret i64 %now }
""",
    "aarch64": """
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.readsteadycounter()
declare i64 @llvm.read_register.i64(metadata)
define internal void @pause() alwaysinline { call void @llvm.aarch64.isb(i32 15) ret void }
define internal i64 @ticks() alwaysinline {
  %now = call i64 @llvm.readsteadycounter()
  %hertz = call i64 @llvm.read_register.i64(metadata !{!"cntfrq_el0"})
  %scale = udiv i64 3000000000, %hertz
  %ticks = mul i64 %now, %scale ret i64 %ticks }
""",
}

# How to sleep while a word keeps a value. Where there is no futex, sleep for a moment and look
# again. FUTEX is the number of the system call; 128 and 129 are FUTEX_WAIT and FUTEX_WAKE, private.
_FUTEX = """
declare i64 @syscall(i64, ...)
declare i32 @sched_getcpu()
declare i32 @getpid()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_setaffinity(i32, i64, ptr)
define internal i32 @core() { %core = call i32 @sched_getcpu() ret i32 %core }

; Keeps this thread off a core, where the process may use others (at most 1024 in all).
define internal void @avoid(i32 %core) noinline {
entry:
  %cores = alloca [128 x i8], align 8
  %process = call i32 @getpid()
  %status = call i32 @sched_getaffinity(i32 %process, i64 128, ptr %cores)
  %known = icmp sge i32 %status, 0
  br i1 %known, label %change, label %done
change:
  %byte = lshr i32 %core, 3
  %at = getelementptr i8, ptr %cores, i32 %byte
  %bit = and i32 %core, 7
  %wide = shl i32 1, %bit
  %one = trunc i32 %wide to i8
  %old = load i8, ptr %at
  %others = xor i8 %one, -1
  %new = and i8 %old, %others
  store i8 %new, ptr %at
  %r = call i32 @sched_setaffinity(i32 0, i64 128, ptr %cores)  ; refused where no core is left
  br label %done
done:
  ret void
}
define internal void @sleep_while(ptr %word, i32 %value) {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 128, i32 %value, ptr null)
  ret void }
define internal void @wake(ptr %word, i32 %count) {
  %r = call i64 (i64, ...) @syscall(i64 FUTEX, ptr %word, i32 129, i32 %count)
  ret void }
"""
_FUTEX_NUMBERS = {"x86_64": "202", "aarch64": "98"}
_POSIX = """
declare i32 @usleep(i32)
define internal i32 @core() { ret i32 -1 }
define internal void @avoid(i32 %core) { ret void }
define internal void @sleep_while(ptr %word, i32 %value) {
  %r = call i32 @usleep(i32 50) ret void }
define internal void @wake(ptr %word, i32 %count) { ret void }
"""
_WINDOWS = """
declare void @Sleep(i32)
define internal i32 @core() { ret i32 -1 }
define internal void @avoid(i32 %core) { ret void }
define internal void @sleep_while(ptr %word, i32 %value) { call void @Sleep(i32 1) ret void }
define internal void @wake(ptr %word, i32 %count) { ret void }
"""

_COMMON = """
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)

; Runs piece number %piece of the job.
define internal void @run_piece(ptr %state, i64 %pieces, i64 %piece, i64 %thread) {
entry:
  %job = getelementptr i8, ptr %state, i64 JOB
  %fn = load ptr, ptr %job
  %args_at = getelementptr i8, ptr %job, i64 8
  %args = load ptr, ptr %args_at
  %units_at = getelementptr i8, ptr %job, i64 16
  %units = load i64, ptr %units_at
  %low = mul i64 %units, %piece
  %high = add i64 %low, %units
  %begin = udiv i64 %low, %pieces
  %end = udiv i64 %high, %pieces
  %code = call i32 %fn(ptr %args, i64 %begin, i64 %end, i64 %thread)
  %failed = icmp ne i32 %code, 0
  br i1 %failed, label %tell, label %done
tell:
  %failure = getelementptr i8, ptr %state, i64 FAILURE
  %upper = shl i64 %piece, 32
  %lower = zext i32 %code to i64
  %both = or i64 %upper, %lower
  %before = atomicrmw umin ptr %failure, i64 %both monotonic
  br label %done
done:
  ret void
}

; Runs what is left of row %row in job %news, on thread %thread; returns the number of pieces.
define internal i32 @run_row(ptr %state, i64 %news, i64 %row, i64 %thread) {
entry:
  %threads_at = getelementptr i8, ptr %state, i64 SETUP
  %threads = load i64, ptr %threads_at
  %pieces = lshr i64 %news, 48
  %job = and i64 %news, NUMBER_BITS
  %tag = shl i64 %job, 16
  %low = mul i64 %pieces, %row
  %high = add i64 %low, %pieces
  %first = udiv i64 %low, %threads
  %last = udiv i64 %high, %threads
  %count = sub i64 %last, %first
  %offset = mul i64 %row, LINE
  %places = getelementptr i8, ptr %state, i64 PLACES
  %place = getelementptr i8, ptr %places, i64 %offset
  br label %look
look:
  %done = phi i32 [0, %entry], [%done, %swap], [%more, %run]
  %word = load atomic i64, ptr %place monotonic, align 8
  %its_job = lshr i64 %word, 16
  %is_late = icmp ugt i64 %its_job, %job
  %is_same = icmp eq i64 %its_job, %job
  %its_count = and i64 %word, 65535
  %taken = select i1 %is_same, i64 %its_count, i64 0
  %is_empty = icmp uge i64 %taken, %count
  %stop = or i1 %is_late, %is_empty
  br i1 %stop, label %leave, label %swap
swap:
  %one_more = add i64 %taken, 1
  %new = or i64 %tag, %one_more
  %swapped = cmpxchg ptr %place, i64 %word, i64 %new acq_rel monotonic
  %mine = extractvalue {i64, i1} %swapped, 1
  br i1 %mine, label %run, label %look
run:
  %piece = add i64 %first, %taken
  call void @run_piece(ptr %state, i64 %pieces, i64 %piece, i64 %thread)
  %more = add i32 %done, 1
  br label %look
leave:
  ret i32 %done
}

; Runs what is left of the other rows, the next one first; returns the number of pieces.
define internal i32 @run_other_rows(ptr %state, i64 %news, i64 %thread) {
entry:
  %threads_at = getelementptr i8, ptr %state, i64 SETUP
  %threads = load i64, ptr %threads_at
  br label %look
look:
  %at = phi i64 [%thread, %entry], [%row, %run]
  %done = phi i32 [0, %entry], [%sum, %run]
  %next = add i64 %at, 1
  %is_beyond = icmp eq i64 %next, %threads
  %row = select i1 %is_beyond, i64 0, i64 %next
  %stop = icmp eq i64 %row, %thread
  br i1 %stop, label %leave, label %run
run:
  %here = call i32 @run_row(ptr %state, i64 %news, i64 %row, i64 %thread)
  %sum = add i32 %done, %here
  br label %look
leave:
  ret i32 %done
}
"""

_WORKER = """
; Waits for another job than the last one.
define internal i64 @await_news(ptr %state, i64 %last) {
entry:
  %sleepers = getelementptr i8, ptr %state, i64 SLEEPERS
  br label %begin
begin:
  %start = call i64 @ticks()
  br label %look
look:
  %news = load atomic i64, ptr %state acquire, align 8
  %is_new = icmp ne i64 %news, %last
  br i1 %is_new, label %leave, label %idle
idle:
  call void @pause()
  %now = call i64 @ticks()
  %waited = sub i64 %now, %start
  %is_patient = icmp slt i64 %waited, IDLE
  br i1 %is_patient, label %look, label %sleep
sleep:
  %up = atomicrmw add ptr %sleepers, i32 1 seq_cst
  %word = trunc i64 %last to i32
  call void @sleep_while(ptr %state, i32 %word)
  %down = atomicrmw sub ptr %sleepers, i32 1 seq_cst
  br label %begin
leave:
  ret i64 %news
}

; Moves away from the caller's core.
define internal void @keep_apart(ptr %state) {
entry:
  %at = getelementptr i8, ptr %state, i64 CORE
  %callers = load atomic i32, ptr %at monotonic, align 4
  %core = call i32 @core()
  %is_same = icmp eq i32 %core, %callers
  %is_known = icmp sgt i32 %core, -1
  %must_move = and i1 %is_same, %is_known
  br i1 %must_move, label %move, label %done
move:
  call void @avoid(i32 %core)
  br label %done
done:
  ret void
}

; Counts pieces that are done, and wakes the caller after the last.
define internal void @report(ptr %state, i32 %done) {
entry:
  %some = icmp ne i32 %done, 0
  br i1 %some, label %count, label %leave
count:
  %remaining = getelementptr i8, ptr %state, i64 REMAINING
  %left = atomicrmw sub ptr %remaining, i32 %done seq_cst
  %is_last = icmp eq i32 %left, %done
  br i1 %is_last, label %finish, label %leave
finish:
  %caller_asleep = getelementptr i8, ptr %state, i64 CALLER_ASLEEP
  %asleep = load atomic i32, ptr %caller_asleep seq_cst, align 4
  %must_wake = icmp ne i32 %asleep, 0
  br i1 %must_wake, label %rouse, label %leave
rouse:
  call void @wake(ptr %remaining, i32 1)
  br label %leave
leave:
  ret void
}

define i32 @treadle_pool_worker(ptr %state, i64 %thread) nounwind {
entry:
  %scratch = alloca i64
  br label %wait
wait:
  %last = phi i64 [0, %entry], [%news, %work]
  %news = call i64 @await_news(ptr %state, i64 %last)
  %pieces = lshr i64 %news, 48
  %stop = icmp eq i64 %pieces, 0
  br i1 %stop, label %leave, label %work
work:
  call void @keep_apart(ptr %state)
  call void @set_float_state(ptr %scratch)
  %own = call i32 @run_row(ptr %state, i64 %news, i64 %thread, i64 %thread)
  call void @report(ptr %state, i32 %own)
  %others = call i32 @run_other_rows(ptr %state, i64 %news, i64 %thread)
  call void @report(ptr %state, i32 %others)
  br label %wait
leave:
  ret i32 0
}
"""

_RUNNER = """
; Makes the next job known; returns its news.
define internal i64 @publish(ptr %state, i64 %pieces) {
  %old = load atomic i64, ptr %state monotonic, align 8
  %next = add i64 %old, 1
  %job = and i64 %next, NUMBER_BITS
  %high = shl i64 %pieces, 48
  %news = or i64 %high, %job
  %before = atomicrmw xchg ptr %state, i64 %news seq_cst
  ret i64 %news
}

; Wakes as many workers as have a piece to take and a core to run on.
define internal void @wake_workers(ptr %state, i64 %pieces) {
entry:
  %sleepers_at = getelementptr i8, ptr %state, i64 SLEEPERS
  %sleepers = load atomic i32, ptr %sleepers_at seq_cst, align 4
  %some = icmp ne i32 %sleepers, 0
  br i1 %some, label %count, label %done
count:
  %threads_at = getelementptr i8, ptr %state, i64 SETUP
  %threads = load i64, ptr %threads_at
  %helpers_at = getelementptr i8, ptr %threads_at, i64 8
  %helpers = load i64, ptr %helpers_at
  %workers = sub i64 %threads, 1
  %asleep = zext i32 %sleepers to i64
  %awake = sub i64 %workers, %asleep
  %useful = sub i64 %pieces, 1
  %wanted = call i64 @llvm.smin.i64(i64 %useful, i64 %helpers)
  %missing = sub i64 %wanted, %awake
  %is_short = icmp sgt i64 %missing, 0
  br i1 %is_short, label %rouse, label %done
rouse:
  %number = trunc i64 %missing to i32
  call void @wake(ptr %state, i32 %number)
  br label %done
done:
  ret void
}

; Waits until all pieces are done. %start is when the job began: a piece in another thread's hands
; should take no longer than all that the caller has done itself.
define internal void @join(ptr %state, i64 %start) {
entry:
  %remaining = getelementptr i8, ptr %state, i64 REMAINING
  %caller_asleep = getelementptr i8, ptr %state, i64 CALLER_ASLEEP
  %begin = call i64 @ticks()
  %own = sub i64 %begin, %start
  %some = call i64 @llvm.smax.i64(i64 %own, i64 LEAST)
  %limit = call i64 @llvm.smin.i64(i64 %some, i64 MOST)
  br label %look
look:
  %left = load atomic i32, ptr %remaining acquire, align 4
  %done = icmp eq i32 %left, 0
  br i1 %done, label %leave, label %idle
idle:
  call void @pause()
  %now = call i64 @ticks()
  %waited = sub i64 %now, %begin
  %is_patient = icmp slt i64 %waited, %limit
  br i1 %is_patient, label %look, label %doze
doze:  ; a worker looks at the mark after the count, and we at the count after the mark
  store atomic i32 1, ptr %caller_asleep seq_cst, align 4
  %still = load atomic i32, ptr %remaining seq_cst, align 4
  %none = icmp eq i32 %still, 0
  br i1 %none, label %up, label %sleep
sleep:
  call void @sleep_while(ptr %remaining, i32 %still)
  br label %up
up:
  store atomic i32 0, ptr %caller_asleep seq_cst, align 4
  br label %look
leave:
  ret void
}

; Runs one call in pieces on all threads; returns the code of the first piece that failed.
define internal i32 @run_pieces(ptr %state, ptr %fn, ptr %args, i64 %units, i64 %pieces) {
entry:
  %job = getelementptr i8, ptr %state, i64 JOB
  %args_at = getelementptr i8, ptr %job, i64 8
  %units_at = getelementptr i8, ptr %job, i64 16
  %remaining = getelementptr i8, ptr %state, i64 REMAINING
  %failure_at = getelementptr i8, ptr %state, i64 FAILURE
  store ptr %fn, ptr %job
  store ptr %args, ptr %args_at
  store i64 %units, ptr %units_at
  %core_at = getelementptr i8, ptr %state, i64 CORE
  %core = call i32 @core()
  store atomic i32 %core, ptr %core_at monotonic, align 4
  %all = trunc i64 %pieces to i32
  store atomic i32 %all, ptr %remaining monotonic, align 4
  %start = call i64 @ticks()
  %news = call i64 @publish(ptr %state, i64 %pieces)
  call void @wake_workers(ptr %state, i64 %pieces)
  %own = call i32 @run_row(ptr %state, i64 %news, i64 0, i64 0)
  %left = atomicrmw sub ptr %remaining, i32 %own seq_cst
  %is_done = icmp eq i32 %left, %own
  br i1 %is_done, label %end, label %help
help:
  %others = call i32 @run_other_rows(ptr %state, i64 %news, i64 0)
  %left_then = atomicrmw sub ptr %remaining, i32 %others seq_cst
  %is_done_then = icmp eq i32 %left_then, %others
  br i1 %is_done_then, label %end, label %wait
wait:
  call void @join(ptr %state, i64 %start)
  br label %end
end:
  %failure = load atomic i64, ptr %failure_at monotonic, align 8
  %good = icmp eq i64 %failure, -1
  br i1 %good, label %leave, label %fail
fail:
  store atomic i64 -1, ptr %failure_at monotonic, align 8
  %code = trunc i64 %failure to i32
  br label %leave
leave:
  %result = phi i32 [0, %end], [%code, %fail]
  ret i32 %result
}

; Returns 0, or (index of the failed call + 1) << 32 | code. Where there is a row for times, it gets
; the ticks at the start and after every call.
define internal i64 @run_calls(ptr %state, ptr %tape, i64 %count, ptr %times) {
entry:
  %threads_at = getelementptr i8, ptr %state, i64 SETUP
  %threads = load i64, ptr %threads_at
  %most = mul i64 %threads, PER_THREAD
  %several = icmp sgt i64 %threads, 1
  %is_timed = icmp ne ptr %times, null
  br i1 %is_timed, label %begin, label %look
begin:
  %start = call i64 @ticks()
  store i64 %start, ptr %times
  br label %look
look:
  %index = phi i64 [0, %entry], [0, %begin], [%next_index, %advance], [%next_index, %stamp]
  %at = phi ptr [%tape, %entry], [%tape, %begin], [%next_at, %advance], [%next_at, %stamp]
  %more = icmp slt i64 %index, %count
  br i1 %more, label %decode, label %leave
decode:
  %next_index = add i64 %index, 1
  %fn = load ptr, ptr %at
  %nargs_at = getelementptr i64, ptr %at, i64 1
  %nargs = load i64, ptr %nargs_at
  %units_at = getelementptr i64, ptr %at, i64 2
  %units = load i64, ptr %units_at
  %wanted_at = getelementptr i64, ptr %at, i64 3
  %wanted = load i64, ptr %wanted_at
  %args = getelementptr i64, ptr %at, i64 4
  %next_at = getelementptr i64, ptr %args, i64 %nargs
  %is_empty = icmp slt i64 %units, 1
  br i1 %is_empty, label %advance, label %choose
choose:
  %fitting = call i64 @llvm.smin.i64(i64 %wanted, i64 %units)
  %pieces = call i64 @llvm.smin.i64(i64 %fitting, i64 %most)
  %has_pieces = icmp sgt i64 %pieces, 1
  %split = and i1 %has_pieces, %several
  br i1 %split, label %fork, label %serial
serial:
  %serial_code = call i32 %fn(ptr %args, i64 0, i64 %units, i64 0)
  br label %check
fork:
  %fork_code = call i32 @run_pieces(ptr %state, ptr %fn, ptr %args, i64 %units, i64 %pieces)
  br label %check
check:
  %code = phi i32 [%serial_code, %serial], [%fork_code, %fork]
  %good = icmp eq i32 %code, 0
  br i1 %good, label %advance, label %fail
advance:
  br i1 %is_timed, label %stamp, label %look
stamp:
  %now = call i64 @ticks()
  %stamp_at = getelementptr i64, ptr %times, i64 %next_index
  store i64 %now, ptr %stamp_at
  br label %look
fail:
  %high = shl i64 %next_index, 32
  %low = zext i32 %code to i64
  %failure = or i64 %high, %low
  br label %leave
leave:
  %result = phi i64 [0, %look], [%failure, %fail]
  ret i64 %result
}

define i64 @treadle_pool_run(ptr %state) nounwind {
  %tape_at = getelementptr i8, ptr %state, i64 CALL
  %count_at = getelementptr i8, ptr %tape_at, i64 8
  %times_at = getelementptr i8, ptr %tape_at, i64 16
  %tape = load ptr, ptr %tape_at
  %count = load i64, ptr %count_at
  %times = load ptr, ptr %times_at
  %before = alloca i64
  %scratch = alloca i64
  call void @save_float_state(ptr %before)
  call void @set_float_state(ptr %scratch)
  %result = call i64 @run_calls(ptr %state, ptr %tape, i64 %count, ptr %times)
  call void @restore_float_state(ptr %before)
  ret i64 %result
}

define i32 @treadle_pool_stop(ptr %state) nounwind {
  %news = call i64 @publish(ptr %state, i64 0)
  call void @wake(ptr %state, i32 2147483647)
  ret i32 0
}
"""


def float_state(triple: str) -> str:
    """LLVM functions that save, set and restore the floating-point state."""
    return _FLOAT_STATES[_cpu(triple)]


def _cpu(triple: str) -> str:
    cpu = triple.split("-")[0].replace("arm64", "aarch64")
    if cpu not in _CLOCKS:
        raise DeviceError(
            f"the CPU of this machine is {cpu}; Treadle generates code for "
            f"{' and '.join(_CLOCKS)}; use a machine with one of them"
        )
    return cpu


def module(entry: str, triple: str) -> str:
    """The LLVM module with ``treadle_pool_`` + ``entry``, one of worker, run, stop and control."""
    wait = _WINDOWS if sys.platform == "win32" else _POSIX
    if sys.platform == "linux":
        wait = _futex(triple)
    parts = [wait, _WORKER if entry == "worker" else _RUNNER]
    if entry == "control":
        parts.append(CONTROL)
    return _text(triple, *parts)


def linux_pool(triple: str) -> str:
    """All functions of the pool as text for a module on Linux, which keeps them to itself."""
    text = _text(triple, _futex(triple), _WORKER, _RUNNER)
    return re.sub(r"define (i\d+ @treadle)", r"define internal \1", text)


def _futex(triple: str) -> str:
    return _FUTEX.replace("FUTEX", _FUTEX_NUMBERS[_cpu(triple)])


def _text(triple: str, *parts: str) -> str:
    text = "".join((float_state(triple), _CLOCKS[_cpu(triple)], _COMMON, *parts))
    return re.sub(r"\b[A-Z_]{3,}\b", lambda match: str(_NUMBERS[match[0]]), text)
