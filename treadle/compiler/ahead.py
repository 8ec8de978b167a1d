"""Which kernels a pending graph needs, found before it is prepared node by node.

A first step needs dozens of kernels. Told of all of them at once, the device compiles them side by
side; told of one at a time, it cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.base.errors import TreadleError
from treadle.compiler.prepare import seen_through
from treadle.ir import node as ir_node
from treadle.ir.launch import KernelSpec, Layout, Out
from treadle.ir.nest import copy_launch
from treadle.ir.node import Node, Signature
from treadle.ir.op import Bundle


def kernels_ahead(nodes: Iterable[Node], threads: int, vector_bits: int) -> list[KernelSpec]:
    """The kernels of ``nodes`` (in order) that are not prepared yet, each once.

    What cannot be planned is left out: the node itself will tell why.
    """
    finder = Finder(threads, vector_bits)
    for node in nodes:
        if node.value is None:  # else another thread has asked for it, and its inputs may be gone
            finder.visit(node)
    return list(finder.specs)


class Finder:
    """Goes over nodes in order, with the layouts of their values."""

    def __init__(self, threads: int, vector_bits: int) -> None:
        self.threads = threads
        self.vector_bits = vector_bits
        self.specs: dict[KernelSpec, None] = {}
        self.layouts: dict[Node, Any] = {}  # a Layout, or one for each result
        self.planned: set[tuple[Signature, tuple[Layout, ...]]] = set()

    def visit(self, node: Node) -> None:
        """Takes in the next node."""
        sig = node.sig
        layouts = tuple([self.layout(i) for i in node.inputs])
        if not sig.is_view:
            if (self.threads, layouts) not in sig.plans and (sig, layouts) not in self.planned:
                self.planned.add((sig, layouts))
                self.plan(sig, layouts)
        elif isinstance(sig.op.lower, Bundle):
            self.layouts[node] = layouts[: len(sig.types)]
        elif "project" in sig.op.traits:
            self.layouts[node] = layouts[0][sig.attrs["index"]]
        else:
            self.layouts[node] = self.moved(sig, layouts[0])

    def layout(self, node: Node) -> Any:
        """How the value of a node lies, or will lie."""
        known = self.layouts.get(node)
        if known is not None:
            return known
        value = node.value
        if value is None:  # computed before, or told by its type
            layouts = tuple([kind.layout for kind in node.sig.types])
            return layouts[0] if node.sig.type is node.sig.types[0] else layouts
        several = type(value[0]) is tuple
        return tuple([v[1] for v in value]) if several else value[1]

    def plan(self, sig: Signature, layouts: tuple[Layout, ...]) -> None:
        """Plans what is not prepared yet."""
        from treadle.compiler import lower  # the code generators, when first needed

        outputs = [kind.layout for kind in sig.types]
        try:
            found = lower.plan(sig.op, sig.attrs, layouts, outputs, self.threads, self.vector_bits)
        except (MemoryError, TreadleError):
            return
        self.specs.update(dict.fromkeys(launch.kernel for launch in found.launches))

    def moved(self, sig: Signature, layout: Layout) -> Layout:
        """How a view of a value lies."""
        known = sig.plans.get(layout)
        if known is not None:
            result: Layout = known.layout
            return result
        seen = seen_through(sig, layout)
        if seen is not None:
            return seen[0]
        plain = ir_node.type_of(layout.dtype, layout.shape).layout
        self.specs[copy_launch(layout, Out(0), plain.strides).kernel] = None
        return sig.types[0].layout
