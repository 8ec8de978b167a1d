"""Graphs as typed SSA text, for people.

%0 = buffer : f32[2,3]
%1 = scalar 2.0 : f32[]
%2 = expand(%1) shape=(2, 3) : f32[2,3]  # train.py:7
%3 = mul(%0, %2) : f32[2,3]  # train.py:7
"""

from __future__ import annotations

from collections.abc import Iterable

from treadle.ir.node import Node, describe_site


def print_graph(nodes: Iterable[Node]) -> str:
    """The nodes in their order of recording, one a line, with what they read from outside first.

    >>> import treadle
    >>> x = treadle.ones(2)
    >>> y = x + x
    >>> print(print_graph([y.node]).splitlines()[-1])  # doctest: +ELLIPSIS
    %1 = add(%0, %0) : f32[2]  # ...
    """
    inside = sorted(nodes, key=lambda n: n.order)
    known = set(inside)
    outside = {i: None for n in inside for i in n.inputs if i not in known}
    names: dict[Node, str] = {}
    lines = []
    for n in (*outside, *inside):
        names[n] = f"%{len(names)}"
        lines.append(f"{names[n]} = {_right_side(n, names, n in outside)}")
    return "\n".join(lines)


def _right_side(n: Node, names: dict[Node, str], is_input: bool) -> str:
    number = getattr(n, "number", None)
    if number is not None:
        return f"scalar {number!r} : {n.type}"
    if is_input:
        return f"buffer : {n.type}"
    operands = ", ".join(names[i] for i in n.inputs)
    attrs = "".join(f" {key}={value!r}" for key, value in n.attrs.items())
    return f"{n.op.name}({operands}){attrs} : {n.type}  # {describe_site(n.site)}"
