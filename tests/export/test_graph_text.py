import pytest

from treadle.ir.graph_syntax import GraphSyntaxError, parse_graph

TEXT = r"""graph "pre\"dict"
size N 1 1024
%0 = input "x" f32[N,784]
%1 = input "y.0" i64[N]
%2 = weight "0.weight" f32[10,784]
%3 = number 0.5 f32[]
%4 = number -inf f32[]
%5 = number size 2*N + 1 f32[]
%6 = number draw seed i64[]
%7 = number optimizer 0 3 f32[]
%8 = number ratio (0.1, 64*N, 64*N - 1) f32[]
%9 = permute(%2, axes=(1, 0)) : f32[784,10]  # model.py:7
%10 = matmul(%0, %9) : f32[N,10]
%11 = check(%10, words="a, (b) = \"c\"  # d", limits=(), dtype=f32, low=1e-05, shape=(2*N - 1,))
update "0.weight" %9
arguments (%0, [%1], 3)
keywords {"flag": True}
outputs {"logits": %10, "more": [None, ("text", -1.5), %3]}"""


def test_text_parses_back():
    graph = parse_graph(TEXT)
    assert str(graph) == TEXT
    assert graph.operations[2].attrs["words"] == 'a, (b) = "c"  # d'
    assert graph.operations[2].attrs["shape"][0].at({"N": 5}) == 9
    assert graph.numbers[1].value == float("-inf")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph ", "graf ", "line 1: got .*expected graph"),
        ("size N", "size f32", "line 2"),
        ("size N 1 1024", "", "expected sizes that have a 'size' line"),
        ("f32[N,784]", "f33[N,784]", "line 3: .*expected a type such as"),
        ("f32[N,784]", "f32[N,-784]", "line 3: .*sizes from 0 on"),
        ("f32[10,784]", "f32[1000000000,784000000]", r"line 5: .*2\*\*48 elements"),
        ("%1 = input", "%7 = input", "line 4: got '%7'; expected %1"),
        ('"y.0"', '"x"', "a name for each of its own"),
        ("%3 = number 0.5", '%3 = input "z"', "inputs, weights, numbers"),
        ("optimizer 0 3", "optimizer 0", "line 10"),
        ("draw seed", "draw card", "line 9"),
        ("%10 = matmul(%0, %9)", "%10 = matmul(%0, %10)", "operands above this line"),
        ("axes=(1, 0)", "axes=(1, %0)", "attributes without values"),
        ("axes=(1, 0)", "axes=(1, 0", "line 12"),
        ("axes=(1, 0)", "axes=" + "(" * 40 + ")" * 40, "structures no more than 16 deep"),
        ("axes=(1, 0)", "axes=1, axes=2", "each name once"),
        ("[%1], 3", "[%0], 3", "each of the 2 inputs once"),
        ("arguments (%0, [%1], 3)", "", r"expected arguments \(...\), a tuple"),
        ('{"flag": True}', '{"flag": True, "flag": 1}', "a key that was not there before"),
        ("%3]}", "%33]}", "got '%33'; expected a value of the graph"),
        ("%3]}", "%" + "9" * 50 + "]}", "at most 20 digits"),
        ('update "0.weight" %9', 'update "0.weight" 9', "update"),
        ("low=1e-05", "low=__import__('os')", "line 14"),
        ("low=1e-05", "low=" + "1" * 70_000, "at most 65536 characters a line"),
    ],
)
def test_broken_text_is_refused_with_its_line(old, new, message):
    assert old in TEXT
    with pytest.raises(GraphSyntaxError, match=message):
        parse_graph(TEXT.replace(old, new, 1))


def test_empty_text_is_refused():
    with pytest.raises(GraphSyntaxError, match="line 1: got 'nothing'; expected graph"):
        parse_graph("")
