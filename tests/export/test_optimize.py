"""``export(..., optimize=True)``: what it folds, what it leaves, what it says, and its numbers."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.export import Dim, ProgramFileError, export, load, save


def _drawn(model):
    """The model with statistics that are not those of the beginning, for inference."""
    treadle.manual_seed(7)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            for p, draw in ((module.weight, "uniform_"), (module.bias, "normal_")):
                if p is not None:
                    getattr(p.data, draw)()
    return model.eval()


def _network():
    return _drawn(nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8, affine=False), nn.Dropout(),
        nn.Flatten(), nn.Linear(288, 10), nn.BatchNorm1d(10),
    ))  # fmt: skip


def _ops(graph):
    return [o.op for o in graph.operations]


def test_batch_norm_goes_into_convolutions():
    model, x = _network(), treadle.randn(2, 3, 8, 8)
    program = export(model, (x,), optimize=True)
    assert program.optimizations == {"forward": {"fold_batch_norm": 2, "fold_constants": 1}}
    ops = _ops(program.graph)
    assert "sqrt" not in ops and "div" not in ops
    folded = program.weights["0.weight.folded"]
    conv, norm = model[0], model[1]
    scale = np.float64(norm.weight.detach()) / np.sqrt(
        np.float32(norm.running_var) + np.float32(1e-5)
    )
    expected = np.float64(conv.weight.detach()) * scale[:, None, None, None]
    np.testing.assert_allclose(np.asarray(folded), expected, rtol=3e-7)
    with treadle.no_grad():
        wide = model.double()(x.double())
    np.testing.assert_allclose(np.asarray(program(x)), np.asarray(wide), rtol=2e-5, atol=2e-6)


def test_running_the_optimised_file_changes_no_bit(tmp_path):
    x = treadle.randn(2, 3, 8, 8)
    program = export(_network(), (x,), optimize=True)
    save(program, tmp_path / "net.treadle")
    loaded = load(tmp_path / "net.treadle")
    assert loaded.optimizations == program.optimizations
    first = np.asarray(program(x))
    for _ in range(4):
        np.testing.assert_array_equal(np.asarray(loaded(x)), first)


def test_open_sizes_stay_open():
    model, x = _network(), treadle.randn(2, 3, 8, 8)
    n = Dim("N")
    program = export(model, (x,), dynamic_shapes={"input": {0: n}}, optimize=True)
    assert program.optimizations["forward"]["fold_batch_norm"] == 2
    x = treadle.randn(5, 3, 8, 8)
    with treadle.no_grad():
        expected = model(x)
    np.testing.assert_allclose(np.asarray(program(x)), np.asarray(expected), rtol=1e-4, atol=1e-5)


def test_what_is_read_elsewhere_or_trained_stays():
    conv, norm = nn.Conv2d(2, 4, 1), _drawn(nn.BatchNorm2d(4))

    def both(x):
        y = conv(x)
        return y, norm(y)

    x = treadle.randn(1, 2, 3, 3)
    program = export(both, (x,), optimize=True)
    assert program.optimizations["both"]["fold_batch_norm"] == 0
    with treadle.no_grad():
        np.testing.assert_array_equal(np.asarray(program(x)[1]), np.asarray(both(x)[1]))

    model = nn.Sequential(conv, norm)
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1)

    def train(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    program = export({"f": model, "train": train}, {"f": (x,), "train": (x,)}, optimize=True)
    assert program.optimizations["f"]["fold_batch_norm"] == 0
    assert program.run("train", x).item() > program.run("train", x).item()


def test_bits_are_kept_unless_asked():
    model, x = _network(), treadle.randn(2, 3, 8, 8)
    program = export(model, (x,))
    assert program.optimizations == {}
    with treadle.no_grad():
        np.testing.assert_array_equal(np.asarray(program(x)), np.asarray(model(x)))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'optimized "f" {"fold_batch_norm": 1}', "there is no graph of this name"),
        (b'optimized "forward" {"fold_batch_norm": 1.5}', "how often each optimization was done"),
    ],
)
def test_a_file_that_tells_nonsense_is_refused(tmp_path, line, text):
    path = tmp_path / "net.treadle"
    save(export(nn.ReLU(), (treadle.ones(2),)), path)
    head, _, rest = path.read_bytes().partition(b"\n")
    body = line + b"\n" + rest.rstrip(b"\0")
    length = len(head) + 1 + len(body)
    whole = b"treadle program 2 %010d %016d\n" % (length, 0) + body
    path.write_bytes(whole + bytes(-len(whole) % 64))
    with pytest.raises(ProgramFileError, match=text):
        load(path)
