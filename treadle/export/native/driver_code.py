"""The part of a driver that is alike in all builds, as LLVM text; and the codes of errors."""

from __future__ import annotations

import re

from treadle.export.native.targets import Machine
from treadle.runtime.pool_code import FAILURE, LINE, PLACES, SETUP, linux_pool

# Codes of errors; what kernels say comes after these.
ERRORS = (
    "no error",
    "a pointer is NULL",
    "the state or the arena does not lie at a multiple of 64 bytes",
    "the state was not filled in by this library's init function",
    "this processor lacks what the library was built for",
    "there is not enough memory for the arena",
    "the weights are not those that this library was built with",
    "the step lies beyond the last one that this library has numbers for",
    "a kernel failed",
    "the number of threads is not from 1 to 256",
    "the threads cannot be started",
)
(
    OK, NULL, UNALIGNED, UNKNOWN_STATE, NO_LEVEL, NO_MEMORY, OTHER_WEIGHTS, LAST_STEP, FAILED,
    BAD_COUNT, NO_THREADS,
) = range(11)  # fmt: skip

MOST_THREADS = 256
_HEAD = 6272  # bytes before the pool: 64, and 24 for each thread, in whole lines of the pool's

_COMMON = """
%threads_type = type { i32, ptr, ptr }
%job_type = type { ptr, ptr, i64, i64, i64 }
declare i64 @llvm.umin.i64(i64, i64)

; One piece of a job, on whatever thread; its index is that of its share of the workspaces.
define internal void @run_share(ptr %job, i32 %index) nounwind {
entry:
  %before = alloca i64
  %scratch = alloca i64
  call void @save_float_state(ptr %before)
  call void @set_float_state(ptr %scratch)
  %args_at = getelementptr %job_type, ptr %job, i32 0, i32 1
  %units_at = getelementptr %job_type, ptr %job, i32 0, i32 2
  %pieces_at = getelementptr %job_type, ptr %job, i32 0, i32 3
  %failure_at = getelementptr %job_type, ptr %job, i32 0, i32 4
  %fn = load ptr, ptr %job
  %args = load ptr, ptr %args_at
  %units = load i64, ptr %units_at
  %pieces = load i64, ptr %pieces_at
  %piece = zext i32 %index to i64
  %low = mul i64 %units, %piece
  %high = add i64 %low, %units
  %begin = udiv i64 %low, %pieces
  %end = udiv i64 %high, %pieces
  %code = call i32 %fn(ptr %args, i64 %begin, i64 %end, i64 %piece)
  %failed = icmp ne i32 %code, 0
  br i1 %failed, label %tell, label %done
tell:
  %old = atomicrmw umax ptr %failure_at, i64 1 monotonic
  br label %done
done:
  call void @restore_float_state(ptr %before)
  ret void
}

; In how many pieces a call is cut: some for each thread, no more than there is room for.
define internal i64 @pieces_for(ptr %threads, i64 %wanted, i64 %units) nounwind {
entry:
  %alone = icmp eq ptr %threads, null
  br i1 %alone, label %one, label %ask
ask:
  %count = load i32, ptr %threads
  %several = icmp sgt i32 %count, 1
  br i1 %several, label %many, label %one
many:
  %wide = zext i32 %count to i64
  %portions = mul i64 %wide, 4
  %most = call i64 @llvm.umin.i64(i64 %portions, i64 ROOM)
  %fitting = call i64 @llvm.umin.i64(i64 %wanted, i64 %units)
  %pieces = call i64 @llvm.umin.i64(i64 %fitting, i64 %most)
  ret i64 %pieces
one:
  ret i64 1
}

; Runs the calls of a table; 0, or the code of the first that fails.
define internal i32 @run_table(
    ptr %table, i64 %count, ptr %kernels, ptr %bases, ptr %threads) nounwind {
entry:
  %args = alloca [MOST_ARGS x i64], align 16
  %job = alloca %job_type, align 16
  %args_at = getelementptr %job_type, ptr %job, i32 0, i32 1
  %units_in = getelementptr %job_type, ptr %job, i32 0, i32 2
  %pieces_in = getelementptr %job_type, ptr %job, i32 0, i32 3
  %failure_at = getelementptr %job_type, ptr %job, i32 0, i32 4
  br label %look
look:
  %index = phi i64 [0, %entry], [%next_index, %advance]
  %row = phi ptr [%table, %entry], [%next_row, %advance]
  %more = icmp ult i64 %index, %count
  br i1 %more, label %decode, label %leave
decode:
  %kernel = load i64, ptr %row
  %nargs_at = getelementptr i64, ptr %row, i32 1
  %nargs = load i64, ptr %nargs_at
  %units_at = getelementptr i64, ptr %row, i32 2
  %units = load i64, ptr %units_at
  %wanted_at = getelementptr i64, ptr %row, i32 3
  %wanted = load i64, ptr %wanted_at
  %code_at = getelementptr i64, ptr %row, i32 4
  %pairs = getelementptr i64, ptr %row, i32 5
  br label %fill
fill:
  %arg = phi i64 [0, %decode], [%next_arg, %write]
  %pair = phi ptr [%pairs, %decode], [%next_pair, %write]
  %next_pair = getelementptr i64, ptr %pair, i32 2
  %left = icmp ult i64 %arg, %nargs
  br i1 %left, label %write, label %call
write:
  %next_arg = add i64 %arg, 1
  %base = load i64, ptr %pair
  %offset_at = getelementptr i64, ptr %pair, i32 1
  %offset = load i64, ptr %offset_at
  %base_at = getelementptr i64, ptr %bases, i64 %base
  %start = load i64, ptr %base_at
  %word = add i64 %start, %offset
  %word_at = getelementptr i64, ptr %args, i64 %arg
  store i64 %word, ptr %word_at
  br label %fill
call:
  %fn_at = getelementptr ptr, ptr %kernels, i64 %kernel
  %fn = load ptr, ptr %fn_at
  %pieces = call i64 @pieces_for(ptr %threads, i64 %wanted, i64 %units)
  %is_cut = icmp ugt i64 %pieces, 1
  br i1 %is_cut, label %cut, label %whole
whole:
  %result = call i32 %fn(ptr %args, i64 0, i64 %units, i64 0)
  %good = icmp eq i32 %result, 0
  br i1 %good, label %advance, label %failed
cut:
  store ptr %fn, ptr %job
  store ptr %args, ptr %args_at
  store i64 %units, ptr %units_in
  store i64 %pieces, ptr %pieces_in
  store i64 0, ptr %failure_at
  %context_at = getelementptr %threads_type, ptr %threads, i32 0, i32 1
  %parallel_at = getelementptr %threads_type, ptr %threads, i32 0, i32 2
  %context = load ptr, ptr %context_at
  %parallel_for = load ptr, ptr %parallel_at
  %number = trunc i64 %pieces to i32
  call void %parallel_for(ptr %context, ptr @run_share, ptr %job, i32 %number)
  %failure = load atomic i64, ptr %failure_at acquire, align 8
  %all_good = icmp eq i64 %failure, 0
  br i1 %all_good, label %advance, label %failed
advance:
  %next_index = add i64 %index, 1
  %twice = mul i64 %nargs, 2
  %next_row = getelementptr i64, ptr %pairs, i64 %twice
  br label %look
failed:
  %code = load i64, ptr %code_at
  %short = trunc i64 %code to i32
  ret i32 %short
leave:
  ret i32 0
}

; Copies words of 8 bytes.
define internal void @copy(ptr %target, ptr %source, i64 %nbytes) nounwind {
entry:
  br label %look
look:
  %at = phi i64 [0, %entry], [%next, %move]
  %more = icmp ult i64 %at, %nbytes
  br i1 %more, label %move, label %leave
move:
  %from = getelementptr i8, ptr %source, i64 %at
  %to = getelementptr i8, ptr %target, i64 %at
  %word = load i64, ptr %from, align 8
  store i64 %word, ptr %to, align 8
  %next = add i64 %at, 8
  br label %look
leave:
  ret void
}
"""

_NO_FLOAT_STATE = """
define internal void @save_float_state(ptr %at) alwaysinline { ret void }
define internal void @restore_float_state(ptr %at) alwaysinline { ret void }
define internal void @set_float_state(ptr %scratch) alwaysinline { ret void }
"""

# Threads of its own: the pool of ``runtime.pool_code`` behind a ``parallel_for``. Its memory has
# before the pool: whether it is in use, the number of threads, and for each a number and its id.
_OWN_THREADS = """
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)
%worker_type = type { ptr, i64, i64 }  ; the pool, its number, its id

define internal ptr @work(ptr %worker) nounwind {
  %pool = load ptr, ptr %worker
  %number_at = getelementptr %worker_type, ptr %worker, i32 0, i32 1
  %number = load i64, ptr %number_at
  %r = call i32 @treadle_pool_worker(ptr %pool, i64 %number)
  ret ptr null
}

define internal i32 @run_tasks(ptr %job, i64 %begin, i64 %end, i64 %thread) nounwind {
entry:
  %task = load ptr, ptr %job
  %data_at = getelementptr ptr, ptr %job, i32 1
  %data = load ptr, ptr %data_at
  br label %look
look:
  %i = phi i64 [%begin, %entry], [%next, %run]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %run, label %leave
run:
  %index = trunc i64 %i to i32
  call void %task(ptr %data, i32 %index)
  %next = add i64 %i, 1
  br label %look
leave:
  ret i32 0
}

; Where another call has the threads just now, this one does its work itself.
define internal void @spread(ptr %memory, ptr %task, ptr %data, i32 %n) nounwind {
entry:
  %job = alloca [2 x ptr], align 16
  store ptr %task, ptr %job
  %data_at = getelementptr ptr, ptr %job, i32 1
  store ptr %data, ptr %data_at
  %count = sext i32 %n to i64
  %swapped = cmpxchg ptr %memory, i64 0, i64 1 acquire monotonic
  %free = extractvalue {i64, i1} %swapped, 1
  br i1 %free, label %share, label %alone
share:
  %pool = getelementptr i8, ptr %memory, i64 HEAD
  %r = call i32 @run_pieces(ptr %pool, ptr @run_tasks, ptr %job, i64 %count, i64 %count)
  store atomic i64 0, ptr %memory release, align 8
  ret void
alone:
  %s = call i32 @run_tasks(ptr %job, i64 0, i64 %count, i64 0)
  ret void
}

define void @NAME_threads_stop(ptr %threads) nounwind {
entry:
  %none = icmp eq ptr %threads, null
  br i1 %none, label %leave, label %look
look:
  %memory_at = getelementptr %threads_type, ptr %threads, i32 0, i32 1
  %memory = load ptr, ptr %memory_at
  %idle = icmp eq ptr %memory, null
  br i1 %idle, label %leave, label %stop
stop:
  store ptr null, ptr %memory_at
  store i32 1, ptr %threads
  %pool = getelementptr i8, ptr %memory, i64 HEAD
  %s = call i32 @treadle_pool_stop(ptr %pool)
  %started_at = getelementptr i64, ptr %memory, i32 1
  %started = load i64, ptr %started_at
  br label %next
next:
  %i = phi i64 [1, %stop], [%i1, %join]
  %more = icmp ult i64 %i, %started
  br i1 %more, label %join, label %release
join:
  %workers = getelementptr i8, ptr %memory, i64 64
  %id_at = getelementptr %worker_type, ptr %workers, i64 %i, i32 2
  %id = load i64, ptr %id_at
  %j = call i32 @pthread_join(i64 %id, ptr null)
  %i1 = add i64 %i, 1
  br label %next
release:
  call void @free(ptr %memory)
  br label %leave
leave:
  ret void
}

define i32 @NAME_threads_start(ptr %threads, i32 %count) nounwind {
entry:
  %none = icmp eq ptr %threads, null
  br i1 %none, label %null, label %look
null:
  ret i32 NULL
look:
  %memory_at = getelementptr %threads_type, ptr %threads, i32 0, i32 1
  %parallel_at = getelementptr %threads_type, ptr %threads, i32 0, i32 2
  store i32 1, ptr %threads
  store ptr null, ptr %memory_at
  store ptr @spread, ptr %parallel_at
  %high = icmp sgt i32 %count, MOST
  %low = icmp slt i32 %count, 1
  %bad = or i1 %high, %low
  br i1 %bad, label %refuse, label %ask
refuse:
  ret i32 BAD_COUNT
ask:
  %one = icmp eq i32 %count, 1
  br i1 %one, label %good, label %begin
good:
  ret i32 0
begin:
  %memory = call ptr @aligned_alloc(i64 128, i64 POOL_BYTES)
  %lacks = icmp eq ptr %memory, null
  br i1 %lacks, label %refused, label %clear
refused:
  ret i32 NO_THREADS
clear:
  %at = phi i64 [0, %begin], [%at1, %clear]
  %word_at = getelementptr i8, ptr %memory, i64 %at
  store i64 0, ptr %word_at
  %at1 = add i64 %at, 8
  %clears = icmp ult i64 %at1, POOL_BYTES
  br i1 %clears, label %clear, label %fill
fill:
  store ptr %memory, ptr %memory_at
  %pool = getelementptr i8, ptr %memory, i64 HEAD
  %wide = zext i32 %count to i64
  %helpers = sub i64 %wide, 1
  %setup = getelementptr i8, ptr %pool, i64 SETUP
  store i64 %wide, ptr %setup
  %helpers_at = getelementptr i64, ptr %setup, i32 1
  store i64 %helpers, ptr %helpers_at
  %failure = getelementptr i8, ptr %pool, i64 FAILURE
  store i64 -1, ptr %failure
  %started_at = getelementptr i64, ptr %memory, i32 1
  %workers = getelementptr i8, ptr %memory, i64 64
  br label %next
next:
  %i = phi i64 [1, %fill], [%i1, %made]
  store i64 %i, ptr %started_at
  %more = icmp ult i64 %i, %wide
  br i1 %more, label %start, label %done
start:
  %worker = getelementptr %worker_type, ptr %workers, i64 %i
  store ptr %pool, ptr %worker
  %number_at = getelementptr %worker_type, ptr %worker, i32 0, i32 1
  store i64 %i, ptr %number_at
  %id_at = getelementptr %worker_type, ptr %worker, i32 0, i32 2
  %r = call i32 @pthread_create(ptr %id_at, ptr null, ptr @work, ptr %worker)
  %runs = icmp eq i32 %r, 0
  br i1 %runs, label %made, label %fail
made:
  %i1 = add i64 %i, 1
  br label %next
fail:
  call void @NAME_threads_stop(ptr %threads)
  ret i32 NO_THREADS
done:
  store i32 %count, ptr %threads
  ret i32 0
}
"""

_LIBC = """
declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
"""


def common_code(name: str, machine: Machine, most_args: int, room: int) -> str:
    """What runs tables of calls with up to ``most_args`` arguments, in up to ``room`` pieces."""
    text = _COMMON.replace("MOST_ARGS", str(most_args)).replace("ROOM", str(room))
    if machine.is_wasm:
        return text + _NO_FLOAT_STATE
    numbers = {
        "HEAD": _HEAD, "SETUP": SETUP, "FAILURE": FAILURE, "NULL": NULL, "BAD_COUNT": BAD_COUNT,
        "NO_THREADS": NO_THREADS, "NAME": name, "MOST": MOST_THREADS,
        "POOL_BYTES": _HEAD + PLACES + LINE * (MOST_THREADS + 1),
    }  # fmt: skip
    own = re.sub("|".join(numbers), lambda match: str(numbers[match[0]]), _OWN_THREADS)
    return text + linux_pool(machine.triple) + _LIBC + own


__all__ = [
    "BAD_COUNT", "ERRORS", "FAILED", "LAST_STEP", "NO_LEVEL", "NO_MEMORY", "NO_THREADS", "NULL",
    "OK", "OTHER_WEIGHTS", "UNALIGNED", "UNKNOWN_STATE", "common_code",
]  # fmt: skip
