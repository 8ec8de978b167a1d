"""The driver of a build, as LLVM text: tables of calls, the functions of the C header.

A table of calls has a row for each, of 64-bit words::

    kernel, number of arguments, units, pieces, code of its failure, then (base, offset) each

``run_table`` adds offsets to bases and calls the kernel, in pieces where there are threads. What it
hands to other threads is a job on the caller's stack. All that a call changes for good lies in the
state, whose first words are::

    stamp of the build, level, weights, seed, stream, offset, steps of each optimizer
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from treadle.base.record import Record
from treadle.export.native.entry import ARENA, FIRST, PACKED, STATE, TABLE, WEIGHTS, BuiltCall
from treadle.export.native.targets import Machine
from treadle.runtime.pool_code import FAILURE, LINE, PLACES, SETUP, linux_pool

STAMP, LEVEL, AT_WEIGHTS, SEED, STREAM, OFFSET, STEPS = range(0, 56, 8)

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


class Draw(Record):
    """Where a random operation reads seed, stream and offset (-1: it does not), and how many
    counters it uses up."""

    places: tuple[int, int, int]
    counters: int


class Numbered(Record):
    """Numbers that follow from the steps of an optimizer: rows of words for steps from the first.

    ``places`` are those of a row's words in the state. The last row holds for all that follow,
    unless ``ends``.
    """

    optimizer: int
    rows: bytes
    places: tuple[int, ...]
    count: int
    ends: bool


class EntryText(Record):
    """An entry for the driver: ``levels`` has for each the calls once and the calls each time."""

    name: str
    levels: tuple[tuple[tuple[BuiltCall, ...], tuple[BuiltCall, ...]], ...]
    arguments: int
    empty: frozenset[int]  # arguments without elements, which may be NULL
    packed: int  # where that lies in the state
    arena: int
    draws: tuple[Draw, ...]
    steps: tuple[Numbered, ...]


class Copied(Record):
    """Bytes that init copies into the state, from the weights or from the table."""

    base: int
    source: int
    target: int
    nbytes: int


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
  %high = icmp sgt i32 %count, 256
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

# Bits of cpuid's registers: leaf 1 ecx, leaf 7 ebx, leaf 0x80000001 ecx, and of xgetbv.
_X86_LEVELS = (
    (2, 0x00982201, 0, 0x1, 0),  # sse3 ssse3 cx16 sse4.1 sse4.2 popcnt; lahf
    (3, 0x38C01000, 0x128, 0x20, 0x6),  # fma movbe popcnt osxsave avx f16c; bmi avx2 bmi2; lzcnt
    (4, 0, 0xD0030000 - (1 << 32), 0, 0xE6),  # avx512 f dq cd bw vl
)


class _Function:
    """Writes one function, line by line."""

    def __init__(self, head: str) -> None:
        self.lines = [f"define {head} nounwind {{", "entry:"]
        self._count = 0

    def emit(self, text: str) -> str:
        """An instruction with a result."""
        self._count += 1
        self.lines.append(f"  %v{self._count} = {text}")
        return f"%v{self._count}"

    def do(self, text: str) -> None:
        """An instruction without one."""
        self.lines.append(f"  {text}")

    def label(self, stem: str) -> str:
        """A name for a block."""
        self._count += 1
        return f"{stem}{self._count}"

    def begin(self, label: str) -> None:
        """Begins a block."""
        self.lines.append(f"{label}:")

    def unless(self, condition: str, code: int | str) -> None:
        """Returns ``code`` where the condition does not hold."""
        bad, good = self.label("bad"), self.label("good")
        self.do(f"br i1 {condition}, label %{good}, label %{bad}")
        self.begin(bad)
        self.do(f"ret i32 {code}")
        self.begin(good)

    def at(self, base: str, offset: int) -> str:
        """An address some bytes further."""
        return self.emit(f"getelementptr i8, ptr {base}, i64 {offset}") if offset else base

    def text(self) -> str:
        """The whole function."""
        return "\n".join([*self.lines, "}", ""])


class Driver:
    """Writes the functions of one library named ``name``."""

    def __init__(
        self, name: str, machine: Machine, stamp: int, threads: int, weights_inside: bool
    ) -> None:
        self.name = name
        self.machine = machine
        self.stamp = stamp
        self.threads = threads
        self.weights_inside = weights_inside
        self._most_args = 1
        self._parts: list[str] = []

    def module(
        self, entries: Sequence[EntryText], kernels: Sequence[Sequence[str]],
        copies: Sequence[Copied],
    ) -> str:  # fmt: skip
        """All functions and tables; ``kernels`` are the symbols of each level."""
        messages = failures(entries)
        for level, symbols in enumerate(kernels):
            row = ", ".join(f"ptr @{s}" for s in symbols)
            self._parts.append(
                f"@kernels{level} = internal constant [{len(symbols)} x ptr] [{row}]\n"
            )
        self._choice("kernels", [f"@kernels{level}" for level in range(len(kernels))])
        codes = {text: len(ERRORS) + n for n, text in enumerate(messages)}
        for number, e in enumerate(entries):
            self._tables(f"once{number}", [once for once, _ in e.levels], codes)
            self._tables(f"calls{number}", [calls for _, calls in e.levels], codes)
            self._steps(number, e)
        self._parts += [self._entry(number, e) for number, e in enumerate(entries)]
        self._parts.append(self._init(entries, copies))
        self._parts.append(self._seed())
        self._parts.append(self._errors([*ERRORS, *messages]))
        common = _COMMON.replace("MOST_ARGS", str(self._most_args))
        common = common.replace("ROOM", str(self.threads))
        if self.machine.is_wasm:
            common += _NO_FLOAT_STATE
        else:
            common += linux_pool(self.machine.triple) + _LIBC + self._own_threads()
        return common + self._level() + "".join(self._parts)

    # --- tables -----------------------------------------------------------------------------------

    def _choice(self, name: str, symbols: Sequence[str]) -> None:
        row = ", ".join(f"ptr {s}" for s in symbols)
        self._parts.append(f"@{name} = internal constant [{len(symbols)} x ptr] [{row}]\n")

    def _tables(
        self, name: str, levels: Sequence[Sequence[BuiltCall]], codes: Mapping[str, int]
    ) -> None:
        for level, calls in enumerate(levels):
            words: list[int] = [len(calls)]
            for c in calls:
                self._most_args = max(self._most_args, len(c.args))
                code = codes.get(c.message, FAILED)
                words += (c.kernel, len(c.args), c.units, c.pieces, code)
                for base, offset in c.args:
                    words += (base, offset)
            row = ", ".join(f"i64 {w}" for w in words)
            self._parts.append(
                f"@{name}_{level} = internal constant [{len(words)} x i64] [{row}]\n"
            )
        self._choice(name, [f"@{name}_{level}" for level in range(len(levels))])

    def _steps(self, number: int, entry: EntryText) -> None:
        for k, s in enumerate(entry.steps):
            self._parts.append(
                f"@steps{number}_{k} = internal constant [{len(s.rows)} x i8] "
                f"{constant(s.rows)}, align 8\n"
            )

    # --- functions --------------------------------------------------------------------------------

    def _checked(self, f: _Function, pointers: Sequence[str], aligned: Sequence[str]) -> None:
        for pointer in pointers:
            f.unless(f.emit(f"icmp ne ptr {pointer}, null"), NULL)
        for pointer in aligned:
            address = f.emit(f"ptrtoint ptr {pointer} to i64")
            low = f.emit(f"and i64 {address}, 63")
            f.unless(f.emit(f"icmp eq i64 {low}, 0"), UNALIGNED)

    def _known(self, f: _Function) -> None:
        found = f.emit("load i64, ptr %state")
        f.unless(f.emit(f"icmp eq i64 {found}, {self.stamp}"), UNKNOWN_STATE)

    def _run(
        self, f: _Function, tables: str, count: int, given: Mapping[int, str], threads: str
    ) -> str:
        """Runs a table with these bases; the code."""
        bases = f.emit(f"alloca [{count} x i64], align 16")
        for base in range(count):
            value = "0"
            if base in given:
                value = f.emit(f"ptrtoint ptr {given[base]} to i64")
            f.do(f"store i64 {value}, ptr {f.emit(f'getelementptr i64, ptr {bases}, i64 {base}')}")
        level = f.emit(f"load i64, ptr {f.at('%state', LEVEL)}")
        table = f.emit(f"load ptr, ptr {f.emit(f'getelementptr ptr, ptr @{tables}, i64 {level}')}")
        kernels = f.emit(
            f"load ptr, ptr {f.emit(f'getelementptr ptr, ptr @kernels, i64 {level}')}"
        )
        calls = f.emit(f"load i64, ptr {table}")
        rows = f.at(table, 8)
        return f.emit(
            f"call i32 @run_table(ptr {rows}, i64 {calls}, ptr {kernels}, ptr {bases}, "
            f"ptr {threads})"
        )

    def _weights(self, f: _Function) -> str:
        """Where the weights lie."""
        if self.weights_inside:
            return "@weights"
        return f.emit(f"load ptr, ptr {f.at('%state', AT_WEIGHTS)}")

    def _entry(self, number: int, e: EntryText) -> str:
        names = [f"%a{i}" for i in range(e.arguments)]
        head = ", ".join(["ptr %state", "ptr %arena", "ptr %threads", *(f"ptr {n}" for n in names)])
        f = _Function(f"i32 @{self.name}_{e.name}({head})")
        wanted = ["%state", *(n for i, n in enumerate(names) if i not in e.empty)]
        self._checked(f, wanted, ["%state", "%arena"])
        self._known(f)
        self._numbers(f, number, e)
        memory, owned = self._arena(f, e.arena)
        f.do("call void @save_float_state(ptr %before)")
        f.do("call void @set_float_state(ptr %scratch)")
        given = {
            ARENA: memory, STATE: "%state", WEIGHTS: self._weights(f), TABLE: "@table",
            PACKED: f.at("%state", e.packed),
        }  # fmt: skip
        given |= {FIRST + i: n for i, n in enumerate(names)}
        code = self._run(f, f"calls{number}", FIRST + e.arguments, given, "%threads")
        f.do("call void @restore_float_state(ptr %before)")
        if owned is not None:
            f.do(f"call void @free(ptr {owned})")
        f.unless(f.emit(f"icmp eq i32 {code}, 0"), code)
        for optimizer in dict.fromkeys(s.optimizer for s in e.steps):
            at = f.at("%state", STEPS + 8 * optimizer)
            taken = f.emit(f"load i64, ptr {at}")
            f.do(f"store i64 {f.emit(f'add i64 {taken}, 1')}, ptr {at}")
        f.do("ret i32 0")
        f.lines[2:2] = ["  %before = alloca i64", "  %scratch = alloca i64"]
        return f.text()

    def _numbers(self, f: _Function, number: int, e: EntryText) -> None:
        """Writes the numbers of this call into the state."""
        for draw in e.draws:
            at = f.at("%state", OFFSET)
            offset = f.emit(f"load i64, ptr {at}")
            seed = f.emit(f"load i64, ptr {f.at('%state', SEED)}")
            stream = f.emit(f"load i64, ptr {f.at('%state', STREAM)}")
            for place, value in zip(draw.places, (seed, stream, offset), strict=True):
                if place >= 0:
                    f.do(f"store i64 {value}, ptr {f.at('%state', place)}")
            f.do(f"store i64 {f.emit(f'add i64 {offset}, {draw.counters}')}, ptr {at}")
        for k, s in enumerate(e.steps):
            taken = f.emit(f"load i64, ptr {f.at('%state', STEPS + 8 * s.optimizer)}")
            if s.ends:
                f.unless(f.emit(f"icmp ult i64 {taken}, {s.count}"), LAST_STEP)
            row = f.emit(f"call i64 @llvm.umin.i64(i64 {taken}, i64 {s.count - 1})")
            start = f.emit(f"mul i64 {row}, {8 * len(s.places)}")
            words = f.emit(f"getelementptr i8, ptr @steps{number}_{k}, i64 {start}")
            for column, place in enumerate(s.places):
                word = f.emit(f"load i64, ptr {f.at(words, 8 * column)}")
                f.do(f"store i64 {word}, ptr {f.at('%state', place)}")

    def _arena(self, f: _Function, nbytes: int) -> tuple[str, str | None]:
        """The memory of the call; and what is to be freed, where it is our own."""
        if not nbytes:
            return "%arena", None
        if self.machine.is_wasm:
            f.unless(f.emit("icmp ne ptr %arena, null"), NULL)
            return "%arena", None
        mine, ready = f.label("mine"), f.label("ready")
        before = f.label("before")
        f.do(f"br label %{before}")
        f.begin(before)
        lacks = f.emit("icmp eq ptr %arena, null")
        f.do(f"br i1 {lacks}, label %{mine}, label %{ready}")
        f.begin(mine)
        made = f.emit(f"call ptr @aligned_alloc(i64 64, i64 {-(-nbytes // 64) * 64})")
        f.unless(f.emit(f"icmp ne ptr {made}, null"), NO_MEMORY)
        end = f.lines[-1].removesuffix(":")
        f.do(f"br label %{ready}")
        f.begin(ready)
        memory = f.emit(f"phi ptr [%arena, %{before}], [{made}, %{end}]")
        owned = f.emit(f"phi ptr [null, %{before}], [{made}, %{end}]")
        return memory, owned

    def _init(self, entries: Sequence[EntryText], copies: Sequence[Copied]) -> str:
        given = "" if self.weights_inside else ", ptr %weights"
        f = _Function(f"i32 @{self.name}_init(ptr %state{given})")
        pointers = ["%state"] if self.weights_inside else ["%state", "%weights"]
        self._checked(f, pointers, ["%state"])
        level = f.emit("call i64 @level()")
        f.unless(f.emit(f"icmp sge i64 {level}, 0"), NO_LEVEL)
        weights = "@weights"
        if not self.weights_inside:
            found = f.emit("load i64, ptr %weights")
            f.unless(f.emit(f"icmp eq i64 {found}, {self.stamp}"), OTHER_WEIGHTS)
            weights = f.at("%weights", 64)
            f.do(f"store ptr {weights}, ptr {f.at('%state', AT_WEIGHTS)}")
        f.do(f"store i64 {level}, ptr {f.at('%state', LEVEL)}")
        sources = {WEIGHTS: weights, TABLE: "@table"}
        for c in copies:
            source = f.at(sources[c.base], c.source)
            f.do(f"call void @copy(ptr {f.at('%state', c.target)}, ptr {source}, i64 {c.nbytes})")
        f.do("call void @save_float_state(ptr %before)")
        f.do("call void @set_float_state(ptr %scratch)")
        for number, e in enumerate(entries):
            if any(once for once, _ in e.levels):
                packed = f.at("%state", e.packed)
                bases = sources | {STATE: "%state", PACKED: packed}
                self._run(f, f"once{number}", FIRST, bases, "null")
        f.do("call void @restore_float_state(ptr %before)")
        f.do(f"store i64 {self.stamp}, ptr %state")
        f.do("ret i32 0")
        f.lines[2:2] = ["  %before = alloca i64", "  %scratch = alloca i64"]
        return f.text()

    def _own_threads(self) -> str:
        numbers = {
            "HEAD": _HEAD, "SETUP": SETUP, "FAILURE": FAILURE, "NULL": NULL,
            "BAD_COUNT": BAD_COUNT, "NO_THREADS": NO_THREADS, "NAME": self.name,
            "POOL_BYTES": _HEAD + PLACES + LINE * (MOST_THREADS + 1),
        }  # fmt: skip
        return re.sub(
            "HEAD|SETUP|FAILURE|NULL|BAD_COUNT|NO_THREADS|NAME|POOL_BYTES",
            lambda match: str(numbers[match[0]]), _OWN_THREADS,
        )  # fmt: skip

    def _seed(self) -> str:
        f = _Function(f"i32 @{self.name}_seed(ptr %state, i64 %seed, i64 %stream)")
        self._checked(f, ["%state"], ["%state"])
        self._known(f)
        for place, value in ((SEED, "%seed"), (STREAM, "%stream"), (OFFSET, "0")):
            f.do(f"store i64 {value}, ptr {f.at('%state', place)}")
        f.do("ret i32 0")
        return f.text()

    def _errors(self, texts: Sequence[str]) -> str:
        made = []
        for number, text in enumerate([*texts, "got a number that is no error of this library"]):
            data = text.encode() + b"\0"
            made.append(
                f"@error{number} = internal constant [{len(data)} x i8] {constant(data)}\n"
            )
        row = ", ".join(f"ptr @error{n}" for n in range(len(made)))
        made.append(f"@errors = internal constant [{len(made)} x ptr] [{row}]\n")
        f = _Function(f"ptr @{self.name}_error(i32 %code)")
        last = len(texts)
        known = f.emit(f"icmp ult i32 %code, {last}")
        index = f.emit(f"select i1 {known}, i32 %code, i32 {last}")
        text = f.emit(f"load ptr, ptr {f.emit(f'getelementptr ptr, ptr @errors, i32 {index}')}")
        f.do(f"ret ptr {text}")
        return "".join(made) + f.text()

    def _level(self) -> str:
        """``@level``: the best of the levels that this processor has, or -1."""
        f = _Function("internal i64 @level()")
        if not any(self.machine.needs):
            f.do("ret i64 0")
            return f.text()
        kinds = "{i32, i32, i32, i32}"
        outs = "={ax},={bx},={cx},={dx}"

        def cpuid(leaf: int) -> str:
            return f.emit(
                f'call {kinds} asm "cpuid", "{outs},{{ax}},{{cx}}"(i32 {leaf}, i32 0)'
            )

        first, seventh, extended = cpuid(1), cpuid(7), cpuid(-0x7FFFFFFF)
        found = [
            f.emit(f"extractvalue {kinds} {first}, 2"),
            f.emit(f"extractvalue {kinds} {seventh}, 1"),
            f.emit(f"extractvalue {kinds} {extended}, 2"),
        ]
        saved = f.emit(f"and i32 {found[0]}, {1 << 27}")
        has_state = f.emit(f"icmp ne i32 {saved}, 0")
        ask, after = f.label("ask"), f.label("after")
        f.do(f"br i1 {has_state}, label %{ask}, label %{after}")
        f.begin(ask)
        state = f.emit('call {i32, i32} asm "xgetbv", "={ax},={dx},{cx}"(i32 0)')
        low = f.emit(f"extractvalue {{i32, i32}} {state}, 0")
        f.do(f"br label %{after}")
        f.begin(after)
        found.append(f.emit(f"phi i32 [0, %entry], [{low}, %{ask}]"))
        best, holds = "-1", "true"
        for level, *masks in _X86_LEVELS:
            for register, mask in zip(found, masks, strict=True):
                got = f.emit(f"and i32 {register}, {mask}")
                has = f.emit(f"icmp eq i32 {got}, {mask}")
                holds = f.emit(f"and i1 {holds}, {has}")
            if level in self.machine.needs:
                index = self.machine.needs.index(level)
                best = f.emit(f"select i1 {holds}, i64 {index}, i64 {best}")
        f.do(f"ret i64 {best}")
        return f.text()


def failures(entries: Sequence[EntryText]) -> list[str]:
    """What kernels of these entries may say; their codes come after those of ``ERRORS``."""
    told = (c.message for e in entries for _, calls in e.levels for c in calls if c.message)
    return list(dict.fromkeys(told))


def constant(data: bytes) -> str:
    """Bytes as LLVM writes them."""
    if not any(data):
        return "zeroinitializer"
    return 'c"' + "".join(f"\\{b:02X}" for b in data) + '"'
