"""Graphs as text."""

from __future__ import annotations

import treadle
from treadle.base.flags import flags
from treadle.ir.graph_text import print_graph


def test_a_line_a_node_with_types_attributes_and_lines():
    x = treadle.ones(2, 3)
    x.numpy()
    y = (x * 2.125).sum(1)
    text = print_graph([y.node, y.node.inputs[0], y.node.inputs[0].inputs[1]])
    lines = text.splitlines()
    assert lines[0].startswith(("%0 = buffer : f32[2,3]", "%0 = scalar 2.125 : f32[]"))
    assert any("scalar 2.125 : f32[]" in line for line in lines)
    assert any("= expand(%" in x and "shape=(2, 3) : f32[2,3]  # test_graph" in x for x in lines)
    assert "reduce_sum(%" in lines[-1] and "axes=(1,) : f32[2]" in lines[-1]
    assert lines[-1].endswith("# test_graph_text.py:13")


def test_the_debug_flag_prints_what_is_evaluated(capsys):
    x = treadle.ones(4)
    x.numpy()
    with flags.context(debug="graph"):
        (x + x).numpy()
    told = capsys.readouterr().err
    assert "add(%" in told and "f32[4]" in told
