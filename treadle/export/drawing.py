"""A program as a drawing: a box for each layer, an arrow to each that reads it.

Boxes stand in rows below what they read (``compiler/drawing.py``); an arrow over several rows goes
between their boxes. Every text has a box, or a line, to itself, and is set to a width that fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from treadle.base.record import Record
from treadle.compiler.drawing import rows
from treadle.export.parts import MOST, Part, costs, parts_of, summary
from treadle.export.program import ExportedProgram
from treadle.ir.graph import Graph, operation_text, refs, type_text

_ACROSS = 5  # boxes in a row
_WIDTH, _GAP, _ROW_GAP = 200, 40, 32
_LINE, _LETTER = 14, 6  # pixels of a line of text, and of a letter
_MARGIN = 24
_CHARACTERS = (_WIDTH - 16) // _LETTER
_FILLS = {
    "contraction": "#ffe0b3", "scope": "#d9e6f7", "operation": "#eeeeee", "end": "#d7efd7",
}  # fmt: skip
_STYLE = (
    "svg text{font:10px ui-monospace,Menlo,Consolas,monospace;fill:#222}"
    "svg .name{font-weight:bold}svg .title{font-weight:bold}svg .more{fill:#555}"
    "svg .edge{fill:none;stroke:#888}svg .back{stroke-dasharray:4 3}"
    "svg .box{stroke:#667;stroke-width:1}svg a .box{stroke:#2455a4;stroke-width:1.6}"
)
_PAGE = (
    "body{font:14px system-ui,sans-serif;margin:24px;color:#222}"
    "details{margin:6px 0 6px 18px}summary{cursor:pointer;padding:2px}"
    "summary code{color:#555}svg{max-width:100%;height:auto;display:block}"
)
_SCRIPT = """
function show() {
  const found = document.getElementById(location.hash.slice(1));
  for (let e = found; e; e = e.parentElement) if (e.tagName === "DETAILS") e.open = true;
  if (found) found.scrollIntoView({behavior: "smooth"});
}
window.addEventListener("hashchange", show);
show();
"""


class _Node(Record):
    """A box: its lines of text, what it reads by number, what a pointer over it brings up."""

    number: int
    reads: frozenset[int]
    kind: str
    lines: tuple[str, ...]
    hint: str
    link: str


class _Place(Record):
    """Where a box is."""

    node: _Node
    row: int
    x: int
    y: int

    @property
    def height(self) -> int:
        """Of the box."""
        return _height(self.node)


class _Drawing:
    """One graph: its costs, and what a level of it looks like."""

    def __init__(self, graph: Graph, number: int, sizes: Mapping[str, int]) -> None:
        self.graph = graph
        self.number = number
        self.costs = costs(graph, sizes)
        self.links = False

    def link(self, part: Part) -> str:
        """The name of a part's section on the page."""
        return f"g{self.number}-{part.operations[0]}-{len(part.operations)}"

    def top(self) -> tuple[list[str], int, int]:
        """The top level with inputs and outputs: its elements, width and height."""
        graph, parts = self.graph, parts_of(self.graph)
        ends: list[tuple[tuple[int, ...], str, str]] = [
            ((i,), x.name, type_text(x.dtype, x.shape)) for i, x in enumerate(graph.inputs)
        ]
        if len(ends) > MOST // 4:
            ends = [(tuple(range(len(ends))), "inputs", f"{len(ends)} tensors")]
        results = dict.fromkeys([*refs(graph.outputs), *graph.updates.values()])
        told = f"{len(refs(graph.outputs))} returned"
        if graph.updates:
            told += f", {len(graph.updates)} weights updated"
        return self._level(parts, ends, (tuple(results), "outputs", told))

    def inner(self, part: Part) -> tuple[list[str], int, int]:
        """What is inside of a part."""
        return self._level(part.inside, [], None)

    def _level(
        self, parts: Sequence[Part], begins: Sequence[tuple[tuple[int, ...], str, str]],
        end: tuple[tuple[int, ...], str, str] | None,
    ) -> tuple[list[str], int, int]:  # fmt: skip
        maker: dict[int, int] = {}
        nodes: list[_Node] = []
        for values, name, told in begins:
            maker.update(dict.fromkeys(values, len(nodes)))
            nodes.append(_Node(len(nodes), frozenset(), "end", (name, told), name, ""))
        for number, part in enumerate(parts, len(nodes)):
            maker.update(dict.fromkeys([self.graph.first + i for i in part.operations], number))
        for part in parts:
            read = {i for o in part.operations for i in self.graph.operations[o].inputs}
            nodes.append(self._node(part, len(nodes), {maker[i] for i in read if i in maker}))
        if end is not None:
            reads = frozenset(maker[v] for v in end[0] if v in maker)
            nodes.append(_Node(len(nodes), reads, "end", end[1:], end[1], ""))
        return _drawn(nodes)

    def _node(self, part: Part, number: int, reads: set[int]) -> _Node:
        operations = [self.graph.operations[i] for i in part.operations]
        flops = sum(self.costs[i][0] for i in part.operations)
        types = operations[-1].types
        lines = [part.name]
        if part.inside:
            lines.append(summary(self.graph, part))
        if types:
            lines.append("; ".join(type_text(dtype, shape) for dtype, shape in types))
        if flops:
            lines.append(f"{_short(flops)}flop")
        is_dense = any(o.op.startswith(("conv", "matmul")) for o in operations)
        kind = "contraction" if is_dense else "scope" if part.inside else "operation"
        told = [operation_text(o) for o in operations[:12]]
        if len(operations) > len(told):
            told.append(f"... {len(operations) - len(told)} more")
        link = self.link(part) if part.inside and self.links else ""
        hint = "\n".join([part.path or part.name, *told])
        return _Node(number, frozenset(reads - {number}), kind, tuple(lines), hint, link)


def _short(count: int) -> str:
    """4.1 G for 4,100,000,000."""
    for factor, name in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {name}"
    return f"{count} "


def _height(node: _Node) -> int:
    return _LINE * len(node.lines) + 12


def _drawn(nodes: Sequence[_Node]) -> tuple[list[str], int, int]:
    """Boxes in rows with the arrows between them, below which they lie."""
    forward = [n._replace(reads=frozenset(r for r in n.reads if r < n.number)) for n in nodes]
    placed: dict[int, _Place] = {}
    y = _MARGIN
    table = rows(forward, _ACROSS)
    widest = max(map(len, table), default=1)
    width = 2 * _MARGIN + widest * (_WIDTH + _GAP) + _GAP
    tops, bottoms = [], []
    for row, line in enumerate(table):
        x = (width - len(line) * (_WIDTH + _GAP) + _GAP) // 2
        for column, node in enumerate(line):
            placed[node.number] = _Place(node, row, x + column * (_WIDTH + _GAP), y)
        tops.append(y)
        y += max(map(_height, line))
        bottoms.append(y)
        y += _ROW_GAP
    by_row = [[placed[n.number].x for n in line] for line in table]
    body = []
    for node in nodes:
        for number in sorted(node.reads):
            is_back = number > node.number
            ends = placed[number], placed[node.number]
            low, high = ends if not is_back else (ends[1], ends[0])
            path = _path(low, high, by_row, tops, bottoms)
            mark = 'class="edge back" marker-start' if is_back else 'class="edge" marker-end'
            body.append(f'<path {mark}="url(#tip)" d="{path}"/>')
    body += [_box(place) for place in placed.values()]
    return body, width, y - _ROW_GAP + _MARGIN


def _path(
    source: _Place, target: _Place, by_row: Sequence[Sequence[int]], tops: Sequence[int],
    bottoms: Sequence[int],
) -> str:  # fmt: skip
    """From box to box; in the rows between, through the gap that is nearest to the way."""
    x, y = source.x + _WIDTH // 2, source.y + source.height
    end = target.x + _WIDTH // 2
    path = f"M{x} {y}"
    if source.row >= target.row:  # beside each other, where a row was broken
        return f"{path}C{x} {y + _ROW_GAP} {end} {target.y - _ROW_GAP} {end} {target.y}"
    if y < bottoms[source.row]:
        path += f"V{bottoms[source.row]}"
        y = bottoms[source.row]
    for row in range(source.row + 1, target.row):
        gaps = [by_row[row][0] - _GAP // 2, *(b + _WIDTH + _GAP // 2 for b in by_row[row])]
        left = target.row - row
        wanted = x + (end - x) / (left + 1)
        # Arrows of different boxes through one gap keep apart.
        gap = min(gaps, key=lambda g: abs(g - wanted)) + source.node.number * 5 % 21 - 10
        path += f"C{x} {y + _ROW_GAP // 2} {gap} {tops[row] - _ROW_GAP // 2} {gap} {tops[row]}"
        path += f"V{bottoms[row]}"
        x, y = gap, bottoms[row]
    return f"{path}C{x} {y + _ROW_GAP // 2} {end} {target.y - _ROW_GAP // 2} {end} {target.y}"


def _box(place: _Place) -> str:
    node = place.node
    made = [f"<g><title>{escape(node.hint)}</title>"]
    made.append(
        f'<rect class="box" x="{place.x}" y="{place.y}" width="{_WIDTH}" height="{place.height}" '
        f'rx="5" fill="{_FILLS[node.kind]}"/>'
    )
    for number, line in enumerate(node.lines):
        kind = "more" if number else "name"
        made.append(_text(place.x + 8, place.y + 4 + _LINE * (number + 1), line, kind))
    text = "".join([*made, "</g>"])
    return f'<a href="#{node.link}">{text}</a>' if node.link else text


def _text(x: int, y: int, text: str, kind: str, most: int = _CHARACTERS) -> str:
    text = text if len(text) <= most else f"{text[: most - 1]}\u2026"
    length = f' textLength="{_LETTER * len(text)}" lengthAdjust="spacingAndGlyphs"'
    return f'<text class="{kind}" x="{x}" y="{y}"{length if text else ""}>{escape(text)}</text>'


def _svg(body: Sequence[str], width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n<style>{_STYLE}</style>\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" '
        'markerHeight="6" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#888"/>'
        f'</marker></defs>\n<rect width="{width}" height="{height}" fill="#fff"/>\n'
        + "\n".join(body) + "\n</svg>\n"
    )  # fmt: skip


def _drawings(program: ExportedProgram, sizes: Mapping[str, int]) -> list[_Drawing]:
    return [
        _Drawing(g, i, {name: sizes.get(name, least) for name, (least, _) in g.sizes.items()})
        for i, g in enumerate(program.graphs.values())
    ]


def svg(program: ExportedProgram, sizes: Mapping[str, int] | None = None) -> str:
    """The top level of every graph, one below the other, as SVG.

    ``sizes`` are those that open sizes have for the counts; the least where they are not named.
    """
    body: list[str] = []
    width, top = 0, _MARGIN
    for drawing in _drawings(program, sizes or {}):
        body.append(_text(_MARGIN, top, f"{drawing.graph.name}: {_told(drawing)}", "title", 120))
        elements, wide, high = drawing.top()
        body += [f'<g transform="translate(0 {top})">', *elements, "</g>"]
        width, top = max(width, wide, 2 * _MARGIN + 120 * _LETTER), top + high + _LINE
    return _svg(body, width, top)


def _told(drawing: _Drawing) -> str:
    flops = sum(flops for flops, _ in drawing.costs)
    return f"{len(drawing.graph.operations)} operations, {_short(flops)}flop"


def html(program: ExportedProgram, title: str, sizes: Mapping[str, int] | None = None) -> str:
    """A page of its own with every graph, in which scopes are opened by a click."""
    found = []
    for drawing in _drawings(program, sizes or {}):
        drawing.links = True
        graph = drawing.graph
        found.append(f"<h2>{escape(graph.name)}</h2>\n<p>{_told(drawing)}</p>")
        for kind, count in program.optimizations.get(graph.name, {}).items():
            found.append(f"<p>optimised at export: {escape(kind)}, {count}</p>")
        found.append(_svg(*drawing.top()))
        found += [_section(drawing, part) for part in parts_of(graph) if part.inside]
        found.append(
            f"<details><summary>the graph as text</summary><pre>{escape(str(graph))}</pre></details>"
        )
    return (
        "<!doctype html>\n<html><head><meta charset='utf-8'>"
        f"<title>{escape(title)}</title><style>{_PAGE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(found) +
        f"\n<script>{_SCRIPT}</script></body></html>\n"
    )  # fmt: skip


def _section(drawing: _Drawing, part: Part) -> str:
    inner = "\n".join(_section(drawing, p) for p in part.inside if p.inside)
    flops = sum(drawing.costs[i][0] for i in part.operations)
    return (
        f'<details id="{drawing.link(part)}"><summary>{escape(part.path or part.name)} '
        f"<code>{escape(part.name)}: {escape(summary(drawing.graph, part))}; {_short(flops)}flop"
        f"</code></summary>\n{_svg(*drawing.inner(part))}{inner}</details>"
    )


__all__ = ["html", "svg"]
