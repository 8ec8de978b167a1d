"""The drawing of a program: few boxes at the top, no text over another, pages without network."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations

import pytest

import treadle
from treadle import nn
from treadle.export import export
from treadle.export.drawing import html, svg
from treadle.export.parts import MOST, parts_of
from treadle.nn import functional as F

SVG = "{http://www.w3.org/2000/svg}"


class Layer(nn.Module):
    """Attention and a wide part, each with a way around it."""

    def __init__(self, width):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        """(N, T, width) to the same."""
        x = x + F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x))
        return x + self.wide(self.norm(x))


class Net(nn.Module):
    """Layers, and one that is used twice."""

    def __init__(self, depth=3, width=8):
        super().__init__()
        self.table = nn.Embedding(11, width)
        self.layers = nn.ModuleList([Layer(width) for _ in range(depth)])
        self.gate = nn.Linear(width, width)
        self.head = nn.Linear(width, 11)

    def forward(self, tokens):
        """(N, T) to (N, T, 11)."""
        first = x = self.table(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.gate(x * F.sigmoid(self.gate(first))))


@pytest.fixture(scope="module")
def trained():
    """A program of a prediction and a training step."""
    net = Net()
    optimizer = treadle.optim.Adam(net.parameters())

    def train(tokens, wanted):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(tokens).flatten(0, 1), wanted.flatten())
        loss.backward()
        optimizer.step()
        return loss

    tokens = treadle.zeros(2, 5, dtype=treadle.int64)
    return export({"predict": net, "train": train}, {"predict": (tokens,), "train": (tokens,) * 2})


def _chain(x):
    """250 operations in no layer."""
    for i in range(125):
        x = (x * (1 + i)).relu()
    return x


class _Wide(nn.Module):
    """Many layers side by side."""

    def __init__(self, count):
        super().__init__()
        self.parts = nn.ModuleList([nn.Linear(2, 2) for _ in range(count)])

    def forward(self, x):
        """Their sum."""
        return sum(part(x) for part in self.parts)


def _programs(trained):
    x = treadle.ones(1, 2)
    names = {f"x{i}": treadle.ones(1, 2) for i in range(40)}
    return {
        "trained": trained,
        "chain": export(_chain, (x,)),
        "wide": export(_Wide(70), (x,)),
        "many inputs": export(lambda **xs: sum(xs.values()), (), names),
        "nothing": export(lambda x: x, (x,)),
        "long names": export(nn.Sequential(_named("a" * 300, nn.Linear(2, 2))), (x,)),
    }


def _named(name, module):
    made = nn.Sequential()
    made.add_module(name, module)
    return made


def _elements(element, dy=0.0):
    """All elements of a drawing with how far they are moved down."""
    moved = re.fullmatch(r"translate\(0 (\d+)\)", element.get("transform", ""))
    dy += float(moved[1]) if moved else 0.0
    if element.tag != f"{SVG}defs":
        yield element, dy
        for child in element:
            yield from _elements(child, dy)


def _rectangles(root):
    """Of boxes and of texts (whose width the drawing sets): left, top, right, bottom."""
    boxes, texts = [], []
    for e, dy in _elements(root):
        if e.tag == f"{SVG}rect" and e.get("class") == "box":
            x, y, w, h = (float(e.get(k)) for k in ("x", "y", "width", "height"))
            boxes.append((x, y + dy, x + w, y + dy + h))
        elif e.tag == f"{SVG}text" and e.text:
            x, y, w = float(e.get("x")), float(e.get("y")) + dy, float(e.get("textLength"))
            texts.append((x, y - 9, x + w, y + 3))
    return boxes, texts


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _check(text):
    root = ET.fromstring(text)
    boxes, texts = _rectangles(root)
    width, height = float(root.get("width")), float(root.get("height"))
    for a, b in (*combinations(boxes, 2), *combinations(texts, 2)):
        assert not _overlap(a, b), (a, b)
    for t in texts:
        touched = [b for b in boxes if _overlap(t, b)]
        assert all(b[0] <= t[0] and t[2] <= b[2] and b[1] <= t[1] and t[3] <= b[3] for b in touched)
        assert len(touched) <= 1
    for r in (*boxes, *texts):
        assert 0 <= r[0] and r[2] <= width and 0 <= r[1] and r[3] <= height
    return boxes


def test_few_boxes_and_no_overlaps(trained):
    for name, program in _programs(trained).items():
        boxes = _check(svg(program))
        assert 2 <= len(boxes) <= MOST * len(program.graphs), name
        for graph in program.graphs.values():
            assert len(parts_of(graph)) + min(len(graph.inputs), MOST // 4) + 1 <= MOST, name


def test_arrows_go_through_no_box_that_they_do_not_join(trained):
    root = ET.fromstring(svg(trained))
    boxes, _ = _rectangles(root)
    for e, dy in _elements(root):
        if e.tag == f"{SVG}path":
            for x, top, bottom in _verticals(e.get("d"), dy):
                assert not any(_overlap((x, top + 1, x, bottom - 1), b) for b in boxes)


def _verticals(path, dy):
    """The straight parts of an arrow below its beginning."""
    x = y = 0.0
    for command, told in re.findall(r"([MCV])([^MCV]*)", path):
        numbers = [float(n) for n in told.split()]
        if command == "V":
            yield x, y + dy, numbers[0] + dy
            y = numbers[0]
        else:
            x, y = numbers[-2:]


def test_layers_are_collapsed_by_scope(trained):
    predict, train = trained.graphs.values()
    names = [p.name for p in parts_of(predict)]
    assert names == ["table", "layers", "gate", "sigmoid", "mul", "head"]
    layers = parts_of(predict)[1]
    assert [p.path for p in layers.inside] == [f"net.layers.{i}" for i in range(3)]
    assert {"query", "key", "value", "norm", "wide"} <= {p.name for p in layers.inside[0].inside}
    names = [p.name for p in parts_of(train)]
    assert names[0] == "net" and {"backward", "step"} <= set(names)
    backward = parts_of(train)[names.index("backward")]
    assert "backward.net.layers" in {p.path for p in backward.inside[-1].inside} | {
        q.path for p in backward.inside for q in p.inside
    }


def test_every_operation_that_reads_an_input_is_somewhere(trained):
    for program in _programs(trained).values():
        for graph in program.graphs.values():
            parts = parts_of(graph)
            shown = [i for p in parts for i in p.operations]
            assert len(shown) == len(set(shown))
            stack = list(parts)
            while stack:
                part = stack.pop()
                if part.inside:
                    inner = [i for p in part.inside for i in p.operations]
                    assert sorted(inner) == sorted(part.operations) and len(part.inside) <= MOST
                    stack += part.inside
                else:
                    assert len(part.operations) == 1


def test_the_page_needs_nothing_else(trained):
    page = html(trained, "a <net>")
    assert "<title>a &lt;net&gt;</title>" in page
    addresses = set(re.findall(r"\w+://[^\s\"'<]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}  # the name of a language, never fetched
    assert not re.search(r"<(script|img|link|iframe)[^>]*(src|href)=", page)
    ids = re.findall(r'<details id="([^"]+)"', page)
    links = re.findall(r'<a href="#([^"]+)"', page)
    assert len(ids) == len(set(ids)) and set(links) == set(ids) and len(ids) > 10
    for drawn in re.findall(r"<svg.*?</svg>", page, re.S):
        _check(drawn)


def test_sizes_that_are_open_are_counted_as_told():
    n = treadle.export.Dim("N", min=1, max=64)
    program = export(nn.Linear(8, 4), (treadle.ones(2, 8),), dynamic_shapes={"input": {0: n}})
    assert "operations, 68 flop" in svg(program)  # 2 * 8 * 4, and 4 of the bias
    assert "operations, 136 flop" in svg(program, {"N": 2})
