"""Printing: PyTorch's texts (2.13, with our module's name), options, formats."""

import numpy as np
import pytest

import treadle
from treadle.base.errors import ShapeError

# name, expression, options, text
CASES = [
    (
        "number",
        "m.tensor(1.5)",
        {},
        "tensor(1.5000)",
    ),
    (
        "whole number",
        "m.tensor(2.0)",
        {},
        "tensor(2.)",
    ),
    (
        "int",
        "m.tensor(-3)",
        {},
        "tensor(-3)",
    ),
    (
        "bool",
        "m.tensor(True)",
        {},
        "tensor(True)",
    ),
    (
        "float64",
        "m.tensor(1.5, dtype=m.float64)",
        {},
        "tensor(1.5000, dtype=treadle.float64)",
    ),
    (
        "vector",
        "m.tensor([1.0, 2.5, -3.25])",
        {},
        "tensor([ 1.0000,  2.5000, -3.2500])",
    ),
    (
        "whole floats",
        "m.tensor([1.0, -20.0, 300.0])",
        {},
        "tensor([  1., -20., 300.])",
    ),
    (
        "bools",
        "m.tensor([True, False])",
        {},
        "tensor([ True, False])",
    ),
    (
        "int32",
        "m.tensor([1, 200], dtype=m.int32)",
        {},
        "tensor([  1, 200], dtype=treadle.int32)",
    ),
    (
        "uint8",
        "(m.arange(60) * 3).to(m.uint8)",
        {},
        "tensor([  0,   3,   6,   9,  12,  15,  18,  21,  24,  27,  30,  33,  36,  39,\n"
        "         42,  45,  48,  51,  54,  57,  60,  63,  66,  69,  72,  75,  78,  81,\n"
        "         84,  87,  90,  93,  96,  99, 102, 105, 108, 111, 114, 117, 120, 123,\n"
        "        126, 129, 132, 135, 138, 141, 144, 147, 150, 153, 156, 159, 162, 165,\n"
        "        168, 171, 174, 177], dtype=treadle.uint8)",
    ),
    (
        "bfloat16",
        "m.tensor([1.1, 2.2], dtype=m.bfloat16)",
        {},
        "tensor([1.1016, 2.2031], dtype=treadle.bfloat16)",
    ),
    (
        "float16",
        "m.tensor([65504.0, 0.1], dtype=m.float16)",
        {},
        "tensor([6.5504e+04, 9.9976e-02], dtype=treadle.float16)",
    ),
    (
        "not finite",
        "m.tensor([1.5, float('nan'), float('inf'), -float('inf')])",
        {},
        "tensor([1.5000,    nan,    inf,   -inf])",
    ),
    (
        "not finite, whole",
        "m.tensor([1.0, float('nan'), -float('inf')])",
        {},
        "tensor([1., nan, -inf])",
    ),
    (
        "only infinite",
        "m.tensor([float('inf'), 0.0])",
        {},
        "tensor([inf, 0.])",
    ),
    (
        "wide range",
        "m.tensor([1e-5, 1.0, 1e5])",
        {},
        "tensor([1.0000e-05, 1.0000e+00, 1.0000e+05])",
    ),
    (
        "large",
        "m.tensor([1e9, 2e9])",
        {},
        "tensor([1.0000e+09, 2.0000e+09])",
    ),
    (
        "small",
        "m.tensor([1.5e-5, 0.0])",
        {},
        "tensor([1.5000e-05, 0.0000e+00])",
    ),
    (
        "ratio of 1000",
        "m.tensor([1.0, 1000.0, 0.0])",
        {},
        "tensor([   1., 1000.,    0.])",
    ),
    (
        "ratio above 1000",
        "m.tensor([1.0, 1001.0])",
        {},
        "tensor([1.0000e+00, 1.0010e+03])",
    ),
    (
        "rounding",
        "m.tensor([0.99999, 2.00005])",
        {},
        "tensor([1.0000, 2.0001])",
    ),
    (
        "matrix",
        "m.arange(6).reshape(2, 3) / 4",
        {},
        "tensor([[0.0000, 0.2500, 0.5000],\n        [0.7500, 1.0000, 1.2500]])",
    ),
    (
        "three dimensions",
        "m.arange(8).reshape(2, 2, 2)",
        {},
        "tensor([[[0, 1],\n         [2, 3]],\n\n        [[4, 5],\n         [6, 7]]])",
    ),
    (
        "four dimensions",
        "m.arange(8).reshape(2, 1, 2, 2)",
        {},
        "tensor([[[[0, 1],\n          [2, 3]]],\n\n\n        [[[4, 5],\n          [6, 7]]]])",
    ),
    (
        "empty",
        "m.zeros(0)",
        {},
        "tensor([])",
    ),
    (
        "empty matrix",
        "m.zeros(0, 3)",
        {},
        "tensor([], size=(0, 3))",
    ),
    (
        "empty ints",
        "m.zeros(0, dtype=m.int64)",
        {},
        "tensor([], dtype=treadle.int64)",
    ),
    (
        "empty bools",
        "m.zeros(2, 0, dtype=m.bool)",
        {},
        "tensor([], size=(2, 0), dtype=treadle.bool)",
    ),
    (
        "long",
        "m.arange(30) / 8",
        {},
        "tensor([0.0000, 0.1250, 0.2500, 0.3750, 0.5000, 0.6250, 0.7500, 0.8750, 1.0000,\n"
        "        1.1250, 1.2500, 1.3750, 1.5000, 1.6250, 1.7500, 1.8750, 2.0000, 2.1250,\n"
        "        2.2500, 2.3750, 2.5000, 2.6250, 2.7500, 2.8750, 3.0000, 3.1250, 3.2500,\n"
        "        3.3750, 3.5000, 3.6250])",
    ),
    (
        "summary",
        "m.arange(1001)",
        {},
        "tensor([   0,    1,    2,  ...,  998,  999, 1000])",
    ),
    (
        "summary of a matrix",
        "m.arange(1600).reshape(40, 40)",
        {},
        "tensor([[   0,    1,    2,  ...,   37,   38,   39],\n"
        "        [  40,   41,   42,  ...,   77,   78,   79],\n"
        "        [  80,   81,   82,  ...,  117,  118,  119],\n"
        "        ...,\n"
        "        [1480, 1481, 1482,  ..., 1517, 1518, 1519],\n"
        "        [1520, 1521, 1522,  ..., 1557, 1558, 1559],\n"
        "        [1560, 1561, 1562,  ..., 1597, 1598, 1599]])",
    ),
    (
        "summary of one wide row",
        "m.arange(1200).reshape(1, 1200) / 2",
        {},
        "tensor([[0.0000e+00, 5.0000e-01, 1.0000e+00,  ..., 5.9850e+02, 5.9900e+02,\n"
        "         5.9950e+02]])",
    ),
    (
        "summary, three dimensions",
        "m.arange(1400).reshape(7, 2, 100)",
        {},
        "tensor([[[   0,    1,    2,  ...,   97,   98,   99],\n"
        "         [ 100,  101,  102,  ...,  197,  198,  199]],\n"
        "\n"
        "        [[ 200,  201,  202,  ...,  297,  298,  299],\n"
        "         [ 300,  301,  302,  ...,  397,  398,  399]],\n"
        "\n"
        "        [[ 400,  401,  402,  ...,  497,  498,  499],\n"
        "         [ 500,  501,  502,  ...,  597,  598,  599]],\n"
        "\n"
        "        ...,\n"
        "\n"
        "        [[ 800,  801,  802,  ...,  897,  898,  899],\n"
        "         [ 900,  901,  902,  ...,  997,  998,  999]],\n"
        "\n"
        "        [[1000, 1001, 1002,  ..., 1097, 1098, 1099],\n"
        "         [1100, 1101, 1102,  ..., 1197, 1198, 1199]],\n"
        "\n"
        "        [[1200, 1201, 1202,  ..., 1297, 1298, 1299],\n"
        "         [1300, 1301, 1302,  ..., 1397, 1398, 1399]]])",
    ),
    (
        "requires grad",
        "m.tensor([1.5] * 3, requires_grad=True)",
        {},
        "tensor([1.5000, 1.5000, 1.5000], requires_grad=True)",
    ),
    (
        "requires grad, new line",
        "m.tensor([1.5] * 9, requires_grad=True)",
        {},
        "tensor([1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000, 1.5000],\n"
        "       requires_grad=True)",
    ),
    (
        "precision",
        "m.tensor([1.23456, 2.0])",
        {"precision": 2},
        "tensor([1.23, 2.00])",
    ),
    (
        "precision 0",
        "m.tensor([1.6, 2.0])",
        {"precision": 0},
        "tensor([2, 2])",
    ),
    (
        "short",
        "m.arange(2000) / 8",
        {"profile": "short"},
        "tensor([0.00e+00, 1.25e-01,  ..., 2.50e+02, 2.50e+02])",
    ),
    (
        "scientific",
        "m.tensor([1.5, 20.0, 0.0])",
        {"sci_mode": True},
        "tensor([1.5000e+00, 2.0000e+01, 0.0000e+00])",
    ),
    (
        "never scientific",
        "m.tensor([1e-7, 1e7])",
        {"sci_mode": False},
        "tensor([       0.0000, 10000000.0000])",
    ),
    (
        "edge items",
        "m.arange(7).reshape(7, 1)",
        {"threshold": 5, "edgeitems": 1},
        "tensor([[0],\n        ...,\n        [6]])",
    ),
    (
        "no edge items",
        "m.arange(7)",
        {"threshold": 5, "edgeitems": 0},
        "tensor([...], size=(7,))",
    ),
    (
        "line width",
        "m.arange(12)",
        {"linewidth": 20},
        "tensor([ 0,  1,  2,\n         3,  4,  5,\n         6,  7,  8,\n         9, 10, 11])",
    ),
    (
        "full",
        "m.arange(1001).reshape(7, 143)[:, :3]",
        {"profile": "full"},
        "tensor([[  0,   1,   2],\n"
        "        [143, 144, 145],\n"
        "        [286, 287, 288],\n"
        "        [429, 430, 431],\n"
        "        [572, 573, 574],\n"
        "        [715, 716, 717],\n"
        "        [858, 859, 860]])",
    ),
]


@pytest.mark.parametrize(("name", "code", "options", "text"), CASES, ids=[c[0] for c in CASES])
def test_the_text_is_pytorchs(name: str, code: str, options: dict[str, object], text: str) -> None:
    value = eval(code, {"m": treadle})
    with treadle.printoptions(**options):
        assert repr(value) == str(value) == text


def test_the_operation_is_named_where_a_gradient_flows() -> None:
    x = treadle.tensor([1.0, 2.0], requires_grad=True)
    assert repr(x * x) == "tensor([1., 4.], grad_fn=<mul>)"
    assert repr((x * x).detach()) == "tensor([1., 4.])"


def test_views_print_what_they_show() -> None:
    x = treadle.arange(6).reshape(2, 3)
    assert repr(x.t()) == "tensor([[0, 3],\n        [1, 4],\n        [2, 5]])"
    assert repr(x.flip(1)[0]) == "tensor([2, 1, 0])"
    assert repr(treadle.ones(1).expand(2, 2)) == "tensor([[1., 1.],\n        [1., 1.]])"


def test_the_default_dtype_is_not_named() -> None:
    before = treadle.get_default_dtype()
    treadle.set_default_dtype(treadle.float64)
    try:
        assert repr(treadle.tensor([1.5])) == "tensor([1.5000])"
        assert repr(treadle.ones(1, dtype=treadle.float32)) == "tensor([1.], dtype=treadle.float32)"
    finally:
        treadle.set_default_dtype(before)


def test_a_summary_does_not_look_at_the_rest() -> None:
    x = np.ones((3000, 3000), np.float32)
    x[1500, 1500] = 1e9  # would decide the format
    assert repr(treadle.tensor(x)).startswith("tensor([[1., 1., 1.,  ..., 1., 1., 1.],\n")


def test_format() -> None:
    assert f"{treadle.tensor(1.23456):.3f}" == "1.235"
    assert f"{treadle.tensor(7)}" == "7"
    assert f"{treadle.tensor(3):5d}|" == "    3|"
    assert f"{treadle.tensor([1.5])}" == "tensor([1.5000])"
    with pytest.raises(ShapeError, match=r"the format '\.2f' for a tensor of shape \(2,\); only a"):
        format(treadle.ones(2), ".2f")


def test_options_are_kept_and_put_back() -> None:
    before = treadle.get_printoptions()
    with treadle.printoptions(precision=1, linewidth=50):
        assert treadle.get_printoptions() == {**before, "precision": 1, "linewidth": 50}
        treadle.set_printoptions(profile="full")
        assert treadle.get_printoptions()["threshold"] == float("inf")
    assert treadle.get_printoptions() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": -1}, r"got precision=-1; it must be a number that is not negative"),
        ({"edgeitems": "3"}, r"got edgeitems='3'"),
        ({"profile": "long"}, r"got profile='long'; expected one of 'default', 'short', 'full'"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    before = treadle.get_printoptions()
    with pytest.raises(ValueError, match=message):
        treadle.set_printoptions(**options)  # type: ignore[arg-type]
    assert treadle.get_printoptions() == before
