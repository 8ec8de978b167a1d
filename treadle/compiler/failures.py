"""What went wrong with a node: before it could run, or when its kernel stopped."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from treadle.base.errors import EvaluationError, IndexRangeError
from treadle.base.lazy_numpy import np
from treadle.base.shapes import prod
from treadle.compiler.device import Device
from treadle.compiler.prepare import Prepared
from treadle.ir.launch import HOST_CALL, HostErrors, Refusal
from treadle.ir.node import Node, describe_site

ADDRESSABLE = 1 << 47  # bytes, of a process
_HEAD = 32  # the bytes of a call before its arguments


def refusal(
    n: Node, error: Exception, live: Sequence[Node], free: dict[int, list[Any]], device: Device
) -> Exception:
    """What went wrong before a node could run: no memory for it, or no code.

    The first node of an evaluation (``live``, last node first) that has no memory tells what would
    help; ``free`` is the memory that the evaluation is done with.
    """
    text = f"{n.op.name}: {error}"
    if isinstance(error, MemoryError):
        text = f"{n.op.name}: the result {n.type} needs {n.sig.nbytes} bytes: {error}"
        is_first = not any(isinstance(other.error, MemoryError) for other in live)
        if is_first and n.sig.nbytes <= ADDRESSABLE:
            from treadle.compiler.shortage import advice  # only where the memory is short

            text += advice(live[::-1], free, device)
    return type(error)(f"{text} [{describe_site(n.site)}]").with_traceback(None)


def failure(owner: Node, tape: bytes, position: int, code: int, device: Device) -> Exception:
    """What a failed call has to say; its operands still lie where it read them."""
    error: Exception
    call = _call_at(tape, position)
    plans = (p for p in list(owner.sig.plans.values()) if isinstance(p, Prepared))
    known = (c.message for p in plans for c in p.calls if call.startswith(c.head))
    message = next(known, "")
    if message is HOST_CALL:
        error = _raised(code)
    elif isinstance(message, Refusal):
        layout = message.layout
        (address,) = struct.unpack_from("q", call, _HEAD + 8 * message.argument)
        data = device.read(address, prod(layout.shape) * layout.dtype.itemsize)
        error = message.tell(np.frombuffer(data, layout.dtype.numpy).reshape(layout.shape))
    elif message:
        error = IndexRangeError(f"{owner.op.name}: {message}")
    else:
        error = EvaluationError(f"{owner.op.name}: the kernel stopped with code {code}")
    return type(error)(f"{error} [{describe_site(owner.site)}]")


def _raised(code: int) -> Exception:
    """What a host call has raised; what is no error of it, such as Ctrl-C, is raised again."""
    error = HostErrors.raised.pop(code)
    if not isinstance(error, Exception):
        raise error
    return error


def _call_at(tape: bytes, position: int) -> bytes:
    """A call with its arguments, and what follows."""
    start = 0
    for _ in range(position):
        start += _HEAD + 8 * struct.unpack_from("q", tape, start + 8)[0]
    return tape[start:]


__all__ = ["ADDRESSABLE", "failure", "refusal"]
