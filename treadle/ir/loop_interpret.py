"""``interpret``: the definition of the loop IR, statement by statement, in order.

It is slow and exact: what a printer generates must give these bits. It also checks what no look
at the text can: indices in range, locals stored to before they are read, and the independence of
iterations that a vector loop promises.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from treadle.base.dtypes import DType
from treadle.base.errors import TreadleError
from treadle.ir.loop import (
    BEGIN,
    END,
    THREAD,
    Assign,
    Choose,
    Const,
    If,
    Kernel,
    Load,
    Local,
    Loop,
    Operand,
    Pointer,
    Statement,
    Store,
    Transpose,
)
from treadle.ir.loop_arithmetic import Number, operation
from treadle.ir.loop_text import statement_text
from treadle.ir.loop_verify import verify_kernel

_MANY = object()  # among the readers of an element: more than one iteration


class KernelRunError(TreadleError, RuntimeError):
    """A kernel that broke a rule while it ran, or was given arguments that do not fit."""


def interpret(
    kernel: Kernel, args: Sequence[np.ndarray | int], begin: int, end: int, thread: int = 0
) -> int:
    """Runs ``kernel`` for the range ``begin..end`` and returns 0, or the code of its Fail.

    Args:
        kernel: verified first.
        args: one for each parameter: a 1-D array of the pointer's dtype, written in place, or an
            int. An array is all that its pointer may reach; its element 0 is index 0.
        begin, end, thread: the values of ``%begin``, ``%end`` and ``%thread``.

    Raises:
        KernelVerifyError: the kernel breaks a rule that can be seen without running it.
        KernelRunError: arguments that do not fit the parameters; an index out of range; a local
            read before it is stored to; two iterations of a vector loop that are not independent.

    >>> from treadle.ir.loop_text import parse_kernel
    >>> double = parse_kernel('''
    ... kernel double(%a: ptr f32) {
    ...   for %i in %begin..%end step 1 vector {
    ...     %0 = load %a[%i]
    ...     %1 = add f32 %0, %0
    ...     store %a[%i], %1
    ...   }
    ... }''')
    >>> a = np.array([1, 2, 3], "float32")
    >>> interpret(double, [a], 0, 2)
    0
    >>> a.tolist()
    [2.0, 4.0, 3.0]
    """
    verify_kernel(kernel)
    run = _Run(kernel, args)
    run.values |= {BEGIN.name: int(begin), END.name: int(end), THREAD.name: int(thread)}
    with np.errstate(all="ignore"):
        return run.block(kernel.body)


class _Memory:
    """What a pointer points to: a parameter's array, or a local's list (None: undefined)."""

    def __init__(self, name: str, dtype: DType, elements: np.ndarray | list[Number | None]) -> None:
        self.name = name
        self.elements: Any = elements
        self.size = len(elements)
        self.python_type = {"f": float, "b": bool}.get(dtype.kind, int)
        self.address: Callable[[int], Hashable]
        if isinstance(elements, np.ndarray):  # arguments may share memory: go by the address
            base, stride = elements.ctypes.data, elements.strides[0]
            self.address = lambda index: base + index * stride
        else:
            self.address = lambda index: (name, index)


class _Iterations:
    """Who stored and read what in one run of a vector loop."""

    def __init__(self, loop: Loop) -> None:
        self.var = loop.var.name
        self.current: Any = None
        self.writer: dict[Hashable, Any] = {}
        self.reader: dict[Hashable, Any] = {}

    def conflict_of_load(self, address: Hashable) -> str:
        """Notes a load; tells the conflict, '' where there is none."""
        if self.reader.setdefault(address, self.current) != self.current:
            self.reader[address] = _MANY
        writer = self.writer.get(address, self.current)
        return "" if writer == self.current else f"iteration %{self.var} = {writer} stored"

    def conflict_of_store(self, address: Hashable) -> str:
        """Notes a store; tells the conflict, '' where there is none."""
        writer = self.writer.setdefault(address, self.current)
        if writer != self.current:
            return f"iteration %{self.var} = {writer} stored"
        reader = self.reader.get(address, self.current)
        if reader is _MANY:
            return "other iterations read"
        return "" if reader == self.current else f"iteration %{self.var} = {reader} read"


class _Run:
    """One call of a kernel: values by name and memory by name."""

    def __init__(self, kernel: Kernel, args: Sequence[np.ndarray | int]) -> None:
        self.kernel = kernel
        self.values: dict[str, Any] = {}
        self.memory: dict[str, _Memory] = {}
        self.vector: _Iterations | None = None
        self.private: set[str] = set()  # Locals of the vector loop around: one for each lane
        if len(args) != len(kernel.params):
            raise KernelRunError(
                f"kernel {kernel.name} takes {len(kernel.params)} arguments, got {len(args)}"
            )
        for param, arg in zip(kernel.params, args, strict=True):
            if isinstance(param, Pointer):
                self.memory[param.name] = _Memory(param.name, param.dtype, self.array(param, arg))
            elif isinstance(arg, (int, np.integer)):
                self.values[param.name] = int(arg)
            else:
                raise self.misfit(param.name, "an int", arg)

    def array(self, param: Pointer, arg: np.ndarray | int) -> np.ndarray:
        expected = param.dtype.numpy
        if not isinstance(arg, np.ndarray) or arg.ndim != 1 or arg.dtype != expected:
            raise self.misfit(param.name, f"a 1-D array of {expected}", arg)
        return arg

    def misfit(self, name: str, expected: str, arg: object) -> KernelRunError:
        got = repr(arg)
        if isinstance(arg, np.ndarray):
            got = f"an array of {arg.dtype} with shape {arg.shape}"
        return KernelRunError(
            f"kernel {self.kernel.name}, parameter %{name}: got {got}; expected {expected}"
        )

    def error(self, statement: Statement, problem: str) -> KernelRunError:
        where = f"kernel {self.kernel.name}, statement '{statement_text(statement)}'"
        iteration = f" (%{self.vector.var} = {self.vector.current})" if self.vector else ""
        return KernelRunError(f"{where}{iteration}: {problem}")

    def block(self, body: list[Statement]) -> int:
        """Runs the statements; returns 0, or a Fail's code and the rest does not run."""
        for statement in body:
            code = 0
            if isinstance(statement, Assign):
                self.assign(statement)
            elif isinstance(statement, Load):
                self.load(statement)
            elif isinstance(statement, Store):
                self.store(statement)
            elif isinstance(statement, Loop):
                code = self.loop(statement)
            elif isinstance(statement, If):
                code = self.block(statement.body) if self.value(statement.condition) else 0
            elif isinstance(statement, Choose):
                self.choose(statement)
            elif isinstance(statement, Transpose):
                self.transpose(statement)
            elif isinstance(statement, Local):
                pointer = statement.pointer
                empty: list[Number | None] = [None] * statement.size
                self.memory[pointer.name] = _Memory(pointer.name, pointer.dtype, empty)
                if self.vector:
                    self.private.add(pointer.name)
            else:
                code = statement.code
            if code:
                return code
        return 0

    def value(self, operand: Operand) -> Any:
        return operand.value if isinstance(operand, Const) else self.values[operand.name]

    def assign(self, statement: Assign) -> None:
        args = statement.args
        compute = operation(statement.op, statement.dtype, args[-1].dtype)
        self.values[statement.result.name] = compute(*[self.value(a) for a in args])

    def element(self, statement: Load | Store) -> tuple[_Memory, int]:
        memory, index = self.memory[statement.pointer.name], self.value(statement.index)
        if not 0 <= index < memory.size:
            raise self.error(
                statement,
                f"the index {index} is outside %{memory.name}, which has {memory.size} elements",
            )
        return memory, index

    def load(self, statement: Load) -> None:
        memory, index = self.element(statement)
        if self.vector and memory.name not in self.private:
            self.check(statement, index, self.vector.conflict_of_load(memory.address(index)))
        found = memory.elements[index]
        if found is None:
            raise self.error(
                statement, f"element {index} of the local is read before it is stored to"
            )
        self.values[statement.result.name] = memory.python_type(found)

    def store(self, statement: Store) -> None:
        memory, index = self.element(statement)
        if self.vector and memory.name not in self.private:
            self.check(statement, index, self.vector.conflict_of_store(memory.address(index)))
        memory.elements[index] = self.value(statement.value)

    def choose(self, statement: Choose) -> None:
        index, count = self.value(statement.index), len(statement.choices)
        if not 0 <= index < count:
            raise self.error(statement, f"the index {index} is outside the {count} choices")
        name = statement.choices[index].name
        if isinstance(statement.result, Pointer):
            self.memory[statement.result.name] = self.memory[name]
        else:
            self.values[statement.result.name] = self.values[name]

    def transpose(self, statement: Transpose) -> None:
        size, target = statement.size, self.memory[statement.target.name]
        source = self.memory[statement.source.name]
        index, stride = self.value(statement.index), self.value(statement.stride)
        for i in range(size):
            first = index + i * stride
            if not 0 <= first <= source.size - size:
                raise self.error(
                    statement,
                    f"row {i} is {first}..{first + size}, outside %{source.name}, which has "
                    f"{source.size} elements",
                )
            for j in range(size):
                target.elements[j * size + i] = source.python_type(source.elements[first + j])

    def check(self, statement: Load | Store, index: int, conflict: str) -> None:
        if conflict:
            raise self.error(
                statement,
                f"{conflict} the same element, index {index}; iterations of a vector loop must be "
                "independent: make the loop serial",
            )

    def loop(self, loop: Loop) -> int:
        iterations = _Iterations(loop) if loop.kind == "vector" else None
        self.vector = iterations or self.vector
        for index in range(self.value(loop.lo), self.value(loop.hi), loop.step):
            self.values[loop.var.name] = index
            if iterations:
                iterations.current = index
            if code := self.block(loop.body):
                return code
        if iterations:
            self.vector = None  # vector loops do not nest
        return 0
