"""What repeats is recorded as calls of templates: the results are those of recording every node."""

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle import nn, optim
from treadle.base.errors import GradientError
from treadle.base.flags import flags
from treadle.compiler.tier0 import evaluator
from treadle.ir.call import Call, Part, nodes_of
from treadle.ir.node import recorder
from treadle.ir.scan import scan
from treadle.tensor import repeated

TIMES = 6


@pytest.fixture(params=["beside", "wait"])
def programs(request):
    with flags.context(programs=request.param):
        yield


def both_ways(function):
    """What the function gives, node by node and by calls (a list of arrays each)."""
    with flags.context(programs="off"):
        expected = function()
    return expected, function()


def assert_same(function):
    expected, found = both_ways(function)
    assert len(expected) == len(found)
    for position, (a, b) in enumerate(zip(expected, found, strict=True)):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), position


def data(*shape, seed=0):
    return treadle.tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def leaf(*shape, seed=0):
    return data(*shape, seed=seed).requires_grad_()


def network():
    treadle.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 3))


def arrays(tensors):
    return [t.detach().numpy(copy=True) for t in tensors]


def test_a_repeated_step_is_a_few_calls():
    net = network()
    optimizer = optim.Adam(net.parameters())
    for _ in range(4):
        optimizer.zero_grad()
        F.cross_entropy(net(data(4, 6)), treadle.tensor([0, 1, 2, 0])).backward()
        pending = list(recorder.state.pending)
        optimizer.step()
    assert [type(item) for item in pending] == [Call] * 6  # four layers, the loss, the gradient


@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, lr=0.1), lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    lambda p: optim.AdamW(p, lr=0.1), lambda p: optim.RMSprop(p, momentum=0.5, centered=True),
    lambda p: optim.Adagrad(p, lr_decay=0.1),
])  # fmt: skip
def test_training(programs, make):
    def train():
        net = network()
        optimizer = make(net.parameters())
        schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        losses = []
        for step in range(TIMES):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(data(4, 6, seed=step)), treadle.tensor([0, 1, 2, 0]))
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        return [losses, *arrays(net.parameters())]

    assert_same(train)


def test_numbers_of_the_graph_that_its_gradient_reads_may_change(programs):
    def run():
        x, w = data(5), leaf(5, seed=1)
        found = []
        for a, b, n in ((2.0, 2.0, 4), (2.0, 2.0, 4), (2.0, 2.0, 4), (2.0, 3.0, 5), (0.5, 1.0, 1)):
            w.grad = None
            loss = ((x * w * a).sum() * b + (w * w).sum() * a) / n
            loss.backward()
            found += [loss.item(), w.grad.numpy(copy=True)]
        return found

    assert_same(run)


def test_the_same_tensor_twice_and_then_two(programs):
    def run():
        x, y = leaf(3, 3), leaf(3, 3, seed=1)
        found = []
        for a, b in ((x, x), (x, x), (x, y), (x, x), (y, x), (x, y), (x, y)):
            x.grad = y.grad = None
            F.mse_loss(treadle.matmul(a, b), F.gelu(a)).backward()
            found += [g.numpy(copy=True) for g in (x.grad, y.grad) if g is not None]
        return found

    assert_same(run)


def test_a_loss_read_before_its_gradient(programs):
    def run():
        net = network()
        found = []
        for step in range(TIMES):
            net.zero_grad()
            loss = F.mse_loss(net(data(4, 6, seed=step)), data(4, 3))
            if step % 3:
                found.append(loss.item())
            loss.backward()
            found += [p.grad.numpy(copy=True) for p in net.parameters()]
        return found

    assert_same(run)


def test_gradients_that_add_up_and_graphs_that_are_kept(programs):
    def run():
        net = network()
        found = []
        for step in range(TIMES):
            if step % 2 == 0:
                net.zero_grad()
            loss = F.mse_loss(net(data(4, 6, seed=step)), data(4, 3))
            loss.backward(retain_graph=True)
            if step > 3:
                loss.backward()
            found += [p.grad.numpy(copy=True) for p in net.parameters()]
        return found

    assert_same(run)


def test_a_released_graph_is_refused_however_it_was_recorded():
    x = leaf(3)
    for _ in range(4):
        loss = F.mse_loss(F.gelu(x), data(3))
        loss.backward()
        with pytest.raises(GradientError, match="released by an earlier backward"):
            loss.backward()


def test_second_derivatives_go_through_calls(programs):
    def run():
        x = leaf(3)
        found = []
        for _ in range(TIMES):
            y = F.gelu(x).sum()
            (g,) = treadle.autograd.grad(y, x, create_graph=True)
            (h,) = treadle.autograd.grad((g * g).sum(), x)
            found += [g.detach().numpy(copy=True), h.numpy(copy=True)]
        return found

    assert_same(run)


def test_results_that_are_held_or_not(programs):
    def run():
        net = network()
        found, held = [], []
        for step in range(TIMES):
            net.zero_grad()
            hidden = net[1](net[0](data(4, 6, seed=step)))
            if step % 2:
                held.append(hidden)
            F.mse_loss(net[3](net[2](hidden)), data(4, 3)).backward()
            found += [p.grad.numpy(copy=True) for p in net.parameters()]
        return found + arrays(held)

    assert_same(run)


def test_only_one_of_two_results_is_used(programs):
    def run():
        x = leaf(4, 5)
        found = []
        for step in range(TIMES):
            x.grad = None
            std, mean = treadle.std_mean(F.softmax(x, 1), 1)
            (std if step % 3 else mean * std).sum().backward()
            found.append(x.grad.numpy(copy=True))
        return found

    assert_same(run)


def test_an_error_in_a_repeated_step_is_on_its_line():
    net = network()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    target = treadle.tensor([0, 1, 2, 0])
    for step in range(5):
        if step == 4:
            target = treadle.tensor([0, 1, 7, 0])
            before = arrays(net.parameters())
        loss = F.cross_entropy(net(data(4, 6)), target)
        line = 201
        loss.backward()
        if step < 4:
            optimizer.step()
    with pytest.raises(IndexError, match="target 7 is out of range for 3 classes") as error:
        optimizer.step()
    assert "test_repeated.py" in str(error.value)
    del line
    for p, old in zip(net.parameters(), before, strict=True):
        assert p.detach().numpy().tobytes() == old.tobytes()


def test_the_nodes_of_a_call_are_there_for_who_asks():
    x = leaf(3)
    for _ in range(3):
        y = F.gelu(x)
    node = y.node
    assert type(node) is Part
    assert node.call is not None
    names = [n.op.name for n in nodes_of(node.call)]
    assert "erf" in names
    assert node.inputs[0] in nodes_of(node.call)
    assert y.tolist() == F.gelu(x.detach()).tolist()


def test_random_numbers_are_never_repeated(programs):
    def run():
        treadle.manual_seed(3)
        x = leaf(100)
        found = []
        for _ in range(TIMES):
            x.grad = None
            F.dropout(F.gelu(x), 0.5).sum().backward()
            found.append(x.grad.numpy(copy=True))
        assert found[-1].tobytes() != found[-2].tobytes()
        return found

    assert_same(run)


def test_memory_of_graphs_that_nobody_reads_is_returned():
    net = network()
    x = data(64, 6)
    held = []
    for _ in range(30):
        out = net(x)  # with gradients that nobody asks for
        out.sum().item()
        held.append(treadle.memory_stats()["allocated.current"])
    assert held[-1] == held[10]


def test_what_nobody_holds_is_not_kept_where_nodes_were_asked_for():
    x, w, b, g = leaf(8, 16), leaf(16, seed=1), leaf(16, seed=2), data(8, 16, seed=3)
    for _ in range(3):
        y = F.layer_norm(x, (16,), w, b)
        grads = treadle.autograd.grad(y, [x, w, b], g)
        scanned = scan(recorder.state)
        assert len(scanned.written_out) == 1
        held, open_ = scanned.held(scanned.expected())
        assert len(held) == 4  # the result and three gradients
        assert open_ == []
        del scanned
        arrays(grads)


def test_numbers_given_to_functions_are_no_part_of_the_structure(programs):
    def run():
        x = leaf(4, 5)
        found = []
        for rate in (1.0, 1.0, 0.5, 2.0, 1.0, 0.25, 3.0, 0.5):
            x.grad = None
            y = F.leaky_relu(x, rate) + F.elu(x, 1 + rate) * F.elu(x * 2, rate)
            y.mean().backward()
            found += [y.detach().numpy(copy=True), x.grad.numpy(copy=True)]
        return found

    replays = evaluator().programs.replays
    assert_same(run)
    assert evaluator().programs.replays > replays


def _passes_called(monkeypatch):
    called = []
    recorded = repeated._called
    monkeypatch.setattr(repeated, "_called", lambda *a: called.append(a) or recorded(*a))
    return called


def test_grad_is_repeated_for_what_is_wanted(monkeypatch):
    def gradients(programs):
        with flags.context(programs=programs):
            treadle.manual_seed(0)
            net = nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))
            target = treadle.tensor([0, 1, 2, 1])
            found = []
            for i in range(8):
                x = (treadle.randn(4, 7) * (i + 1)).requires_grad_()
                h = net[:2](x)
                loss = F.cross_entropy(net[2:](h), target)
                dw, dh, dx = treadle.autograd.grad(loss, [net[0].weight, h, x])
                found.append([t.tolist() for t in (dw, dh, dx, net[1].running_var)])
            return found

    expected = gradients("off")
    called = _passes_called(monkeypatch)
    assert gradients("beside") == expected
    assert len(called) >= 3
    x = treadle.ones(2, requires_grad=True)
    y = (x * 3.0).sum()
    treadle.autograd.grad(y, x)
    with pytest.raises(GradientError, match="released by an earlier"):
        treadle.autograd.grad(y, x)


def test_hooks_of_leaves_leave_the_pass_as_it_is(monkeypatch):
    def train(programs):
        with flags.context(programs=programs):
            treadle.manual_seed(0)
            net = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
            order = []
            net[0].weight.register_hook(lambda g: order.append("first") or g * 2.0)
            net[2].bias.register_hook(lambda g: order.append("second") or g.clamp(-0.1, 0.1))
            optimizer = optim.SGD(net.parameters(), lr=0.1)
            for _ in range(8):
                optimizer.zero_grad()
                net(treadle.randn(4, 7)).square().sum().backward()
                optimizer.step()
            return order, [p.tolist() for p in net.parameters()]

    expected = train("off")
    called = _passes_called(monkeypatch)
    assert train("beside") == expected
    assert len(called) >= 3
