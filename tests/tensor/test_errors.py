"""Bad input: what is said, on which line, and that everything goes on afterwards."""

import inspect
import os
import re
import signal
import sys
import threading
import time
import traceback

import numpy as np
import pytest

import treadle
from treadle.base.errors import EvaluationError, IndexRangeError


def ones(*shape, dtype=None):
    return treadle.ones(*shape, dtype=dtype)


def ints(*shape):
    return treadle.ones(*shape, dtype=treadle.int64)


def here():
    """The line that calls this, as an error tells it."""
    return f"[test_errors.py:{inspect.currentframe().f_back.f_lineno}]"


# --- refused when written -------------------------------------------------------------------------

SHAPES = [
    (lambda: ones(2, 3) + ones(4), "add: shapes (2, 3) and (4,) do not broadcast: dimension -1 is "
     "3 and 4; sizes must be equal or 1"),
    (lambda: ones(2, 3) * ones(3, 2), "mul: shapes (2, 3) and (3, 2) do not broadcast: dimension"),
    (lambda: ones(2) ** ones(3), "pow: shapes (2,) and (3,) do not broadcast"),
    (lambda: ones(2) == ones(3), "eq: shapes (2,) and (3,) do not broadcast"),
    (lambda: ones(3).sub_(ones(2, 3)), "an in-place operation cannot change the shape; write x = "),
    (lambda: treadle.where(ones(2) > 0, ones(3), ones(4)), "where: shapes"),
    (lambda: ones(64, 512) @ ones(256, 10), "matmul: got (64, 512) @ (256, 10); the inner sizes "
     "512 and 256 must be equal"),
    (lambda: ones(2, 3, 4) @ ones(3, 4, 5), "matmul: got (2, 3, 4) @ (3, 4, 5): shapes (2,) and "
     "(3,)"),
    (lambda: ones(2) @ treadle.tensor(1.0), "both must have at least one dimension; multiply by a"),
    (lambda: treadle.mm(ones(2, 3), ones(3)), "mm: got shapes (2, 3) and (3,); it takes tensors of "
     "2"),
    (lambda: treadle.bmm(ones(2, 3, 4), ones(3, 4, 5)), "the batches must be equal"),
    (lambda: treadle.outer(ones(2, 2), ones(3)), "outer: got shapes (2, 2) and (3,); it takes two"),
    (lambda: ones(2, 3).reshape(4, 2), "reshape: got a tensor of shape (2, 3) with 6 elements and "
     "the sizes (4, 2); their product must be 6"),
    (lambda: ones(2, 3).view(-1, 4), "sizes (-1, 4); their product must be 6"),
    (lambda: ones(2, 3).reshape(-1, -1), "one of them may be -1"),
    (lambda: ones(2, 3).permute(0, 0), "every one of its 2 dimensions must be named once"),
    (lambda: ones(2, 3).transpose(0, 2), "dim out of range: got 2, expected one of [-2, 1]"),
    (lambda: ones(2, 3, 4).t(), "it takes at most 2 dimensions; use .mT"),
    (lambda: ones(2, 3).sum(2), "sum: dim out of range: got 2"),
    (lambda: ones(2, 3).expand(4, 3), "sizes must be equal or the tensor's size 1"),
    (lambda: treadle.cat([ones(2, 3), ones(2, 4)], 0), "cat: got tensors of shapes (2, 3), (2, 4); "
     "they must have equally many dimensions, of equal sizes except in dimension 0"),
    (lambda: treadle.stack([ones(2), ones(3)]), "they must have one shape"),
    (lambda: ones(5).split([2, 2]), "must not be negative and must add up to 5"),
    (lambda: ones(5).narrow(0, 3, 4), "they must stay inside its 5 elements"),
    (lambda: ones(5)[5], "index 5 is out of range on dimension 0 of a tensor of shape (5,); it "
     "must lie in [-5, 5)"),
    (lambda: ones(5)[0, 0], "too many indices: got 2 for a tensor of shape (5,) with 1 dimensions"),
    (lambda: ones(5)[treadle.tensor([True, False])], "got a mask of shape (2,)"),
    (lambda: ones(5).copy_(ones(3)), "got a tensor of shape (3,) and the new shape (5,)"),
    (lambda: ones(2, 3).gather(1, treadle.zeros(3, 1, dtype=treadle.int64)), "gather: got a tensor "
     "of shape (2, 3) and an index of shape (3, 1)"),
    (lambda: treadle.nn.functional.linear(ones(2, 3), ones(4, 5)), "the input's last size must be "
     "5"),
    (lambda: ones(2).item(), "item: got a tensor of shape (2,) with 2 elements; it takes a tensor"),
    (lambda: bool(ones(2)), "the truth value of a tensor of shape (2,) is ambiguous; use .any()"),
    (lambda: treadle.zeros(0).max(), "there is no element to choose"),
    (lambda: treadle.zeros(0, 3).argmax(0), "argmax: got a tensor of shape (0, 3)"),
    (lambda: treadle.zeros(-1), "zeros: got the shape (-1,); sizes must not be negative"),
]  # fmt: skip

DTYPES = [
    (lambda: ones(2, 3) @ ones(3, 2, dtype=treadle.float64), "matmul: got dtypes float32 and "
     "float64; they must be equal; convert one with .to(dtype)"),
    (lambda: ints(3).mean(), "mean: got a tensor of dtype int64; it takes floating-point tensors; "
     "convert it with .float() first"),
    (lambda: ones(2) & ones(2), "bitwise_and: got an operand of dtype float32"),
    (lambda: -treadle.tensor([True]), "neg: got an operand of dtype bool"),
    (lambda: ints(2).add_(1.5), "add_: got a result of dtype float32 for a tensor of dtype int64, "
     "which cannot hold it"),
    (lambda: ones(2).gather(0, ones(1)), "it must be int64 or int32; convert it with .long()"),
    (lambda: ones(2).masked_fill(ones(2), 0), "masked_fill: got a mask of dtype float32; it must"),
    (lambda: ones(2) + "a", "add: got a str; it takes tensors and Python numbers"),
    (lambda: ones(2) @ 3, "matmul: got a int; it takes"),
    (lambda: [1, 2][treadle.tensor(1.0)], "an index must be an integer; got a tensor of dtype "
     "float32"),
    (lambda: treadle.zeros(2.5), "zeros: got the shape (2.5,); sizes must be integers"),
    (lambda: treadle.zeros(2, dtype="float31"), "zeros: got 'float31' for a dtype; there are "),
    (lambda: treadle.full((2,), "x"), "full: got the value 'x'; it must be a number"),
    (lambda: treadle.tensor([None]), "got [None], not all of which are numbers"),
    (lambda: treadle.tensor("abc"), "got 'abc', not all of which are numbers that a dtype can"),
    (lambda: treadle.tensor(2**70), "got 1180591620717411303424, not all of which are numbers"),
]  # fmt: skip

VALUES = [
    (lambda: treadle.tensor([1, 300], dtype=treadle.uint8), OverflowError, "tensor: the number 300 "
     "does not fit uint8 (0 to 255); use a wider dtype"),
    (lambda: ones(2, dtype=treadle.int8) + 1000, OverflowError, "add: the number 1000 does not "
     "fit"),
    (lambda: treadle.tensor([[1, 2], [3]]), ValueError, "got nested sequences of unequal lengths"),
    (lambda: treadle.arange(5, 0), ValueError, "the step must lead from start to end and not be 0"),
    (lambda: treadle.arange(0, float("inf")), ValueError, "they must be finite"),
    (lambda: treadle.linspace(0, 1, -1), ValueError, "got -1 steps; their number must not be "),
    (lambda: treadle.clamp(ones(2)), ValueError, "clamp: got neither min nor max"),
    (lambda: ints(2) ** -1, ValueError, "pow: got an integer tensor and the negative exponent -1"),
    (lambda: ones(2).to("cuda"), RuntimeError, "the device 'cuda' is not there: this version of "),
    (lambda: ones(2).to("gpu"), ValueError, "got the device 'gpu'; expected 'cpu', 'cuda'"),
]  # fmt: skip


def refused(function, error, text):
    with pytest.raises(error) as caught:
        function()
    told = str(caught.value)
    assert text in told
    first, lines = function.__code__.co_firstlineno, function.__code__.co_lines()
    named = re.search(r"\[test_errors\.py:(\d+)\]$", told)
    assert named, told
    assert first <= int(named[1]) <= max(line for *_, line in lines if line)
    assert told.count("[test_errors.py") == 1


@pytest.mark.parametrize("function, text", SHAPES, ids=lambda v: v[:30] if type(v) is str else "")
def test_shapes_that_do_not_fit(function, text):
    refused(function, (ValueError, IndexError, RuntimeError), text)


@pytest.mark.parametrize("function, text", DTYPES, ids=lambda v: v[:30] if type(v) is str else "")
def test_wrong_dtypes(function, text):
    refused(function, TypeError, text)


@pytest.mark.parametrize("function, error, text", VALUES)
def test_wrong_values(function, error, text):
    refused(function, error, text)


def test_the_line_is_the_callers_even_in_helpers_and_loops():
    def helper(x, y):
        return x @ y  # the innermost line that is not Treadle's

    with pytest.raises(ValueError) as caught:
        for size in (3, 4):
            helper(ones(2, 3), ones(size, 2))
    assert f"[test_errors.py:{helper.__code__.co_firstlineno + 1}]" in str(caught.value)


def test_the_line_is_told_by_errors_that_pytorch_programs_catch():
    with pytest.raises(RuntimeError):
        ones(2) + ones(3)
    with pytest.raises(ValueError):
        ones(2) + ones(3)
    with pytest.raises(IndexError):
        ones(2)[7]


def test_a_refused_operation_leaves_its_operands_alone():
    x = ones(2, 3)
    for _ in range(3):
        with pytest.raises(ValueError):
            x += ones(5)
        with pytest.raises(IndexError):
            x[7] = 1
        with pytest.raises(ValueError):
            x[0] = ones(5)
    assert x.tolist() == [[1.0] * 3] * 2


# --- found when it runs ---------------------------------------------------------------------------


def test_an_index_out_of_range_poisons_its_dependants_only():
    x = treadle.arange(5).float()
    index = treadle.tensor([1, 7])
    before = x * 2
    bad, where = x[index], here()
    dependant = (bad + 1).sum()
    after = x.sum()
    assert before.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert after.item() == 10.0
    for poisoned in (bad, dependant, dependant * 2, bad):
        with pytest.raises(IndexError) as caught:
            poisoned.tolist()
        assert isinstance(caught.value, IndexRangeError)
        assert str(caught.value) == (
            "take: index out of range: indices must lie in [-5, 5) along dimension 0 (the size of "
            f"the tensor there) {where}"
        )
    assert (x + 1).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_each_of_several_bad_indices_tells_its_own_line():
    x = treadle.arange(3)
    first, line_of_first = x[treadle.tensor([3])], here()
    good = x[treadle.tensor([2])]
    second, line_of_second = x[treadle.tensor([-4])], here()
    assert good.tolist() == [2]
    with pytest.raises(IndexError, match=re.escape(line_of_first)):
        first.tolist()
    with pytest.raises(IndexError, match=re.escape(line_of_second)):
        second.tolist()
    with pytest.raises(IndexError, match=re.escape(line_of_first)):
        (first + second).tolist()


def test_a_bad_index_inside_a_training_step():
    w = treadle.ones(4, 2).requires_grad_()
    loss = w[treadle.tensor([0, 9])].sum()
    loss.backward()
    with pytest.raises(IndexError, match="index out of range"):
        loss.item()
    with pytest.raises(IndexError, match="index out of range"):
        w.grad.tolist()
    w.grad = None
    (w * 2).sum().backward()
    assert w.grad.tolist() == [[2.0, 2.0]] * 4


def test_printing_a_failed_value_raises_its_error():
    bad = treadle.arange(3)[treadle.tensor([5])]
    with pytest.raises(IndexError, match="take: index out of range"):
        repr(bad)


def test_the_error_raised_again_does_not_grow():
    bad = treadle.arange(3)[treadle.tensor([5])]
    lengths = []
    for _ in range(3):
        with pytest.raises(IndexError) as caught:
            bad.tolist()
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1


# --- empty tensors --------------------------------------------------------------------------------


@pytest.mark.parametrize("function, expected", [
    (lambda z: z(0).sum(), 0.0),
    (lambda z: z(0).prod(), 1.0),
    (lambda z: z(0).mean(), np.nan),
    (lambda z: z(0).var(), np.nan),
    (lambda z: z(0, 3).sum(0), [0.0] * 3),
    (lambda z: z(0, 3).sum(1), []),
    (lambda z: z(0, 3).mean(0), [np.nan] * 3),
    (lambda z: z(3, 0).amax(0), []),
    (lambda z: z(2, 0).logsumexp(1), [-np.inf] * 2),
    (lambda z: z(2, 0).softmax(1), [[], []]),
    (lambda z: z(0).any(), False),
    (lambda z: z(0).all(), True),
    (lambda z: z(0).norm(), 0.0),
    (lambda z: z(2, 0) @ z(0, 3), [[0.0] * 3] * 2),
    (lambda z: z(0, 2) @ z(2, 3), []),
    (lambda z: z(3, 0) @ z(0), [0.0] * 3),
    (lambda z: z(2, 2, 0) @ z(2, 0, 1), [[[0.0], [0.0]]] * 2),
    (lambda z: treadle.cat([z(0), ones(2)]), [1.0, 1.0]),
    (lambda z: treadle.stack([z(0), z(0)]), [[], []]),
    (lambda z: z(0, 3).reshape(3, 0), [[], [], []]),
    (lambda z: z(2, 0) + ones(2, 1), [[], []]),
    (lambda z: ones(4)[5:], []),
    (lambda z: ones(4)[ones(4) < 0], []),
    (lambda z: z(0, 3)[treadle.zeros(0, dtype=treadle.int64)], []),
    (lambda z: treadle.arange(3, 3), []),
    (lambda z: treadle.nn.functional.linear(z(0, 3), ones(2, 3)), []),
    (lambda z: treadle.nn.functional.mse_loss(z(0), z(0)), np.nan),
])  # fmt: skip
def test_empty_tensors(function, expected):
    np.testing.assert_equal(function(treadle.zeros).tolist(), expected)


def test_gradients_of_empty_tensors():
    x, w = treadle.ones(2, 0).requires_grad_(), treadle.ones(0, 3).requires_grad_()
    (x @ w).sum().backward()
    assert (tuple(x.grad.shape), tuple(w.grad.shape)) == ((2, 0), (0, 3))


# --- lack of memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [
    lambda: treadle.zeros(2**48).sum(),
    lambda: treadle.arange(2**47).sum(),
    lambda: (ones(2**23, 1) @ ones(1, 2**23)).sum(),
    lambda: ones(1).expand(2**48) + 1,
    lambda: treadle.zeros(2**70),
])  # fmt: skip
def test_asking_for_too_much_memory(ask):
    x = ones(3)
    pending = x * 2
    with pytest.raises(MemoryError, match=r"the result .* needs \d+ bytes: .*test_errors.py:\d+\]"):
        ask().tolist()
    assert pending.tolist() == [2.0, 2.0, 2.0]
    assert (pending + 1).tolist() == [3.0, 3.0, 3.0]


# --- Ctrl-C ---------------------------------------------------------------------------------------


def interrupted(function, seconds):
    """Runs ``function`` with Ctrl-C after some time; whether it was hit."""

    armed = False

    def interrupt(number, frame):
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        armed = True
        function()
        hit = False
    except KeyboardInterrupt:
        hit = True
    armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    return hit


def test_an_interrupted_evaluation_can_be_asked_again():
    a = treadle.rand(200, 200)

    def chain():
        y = a
        for _ in range(30):
            y = (y @ a).tanh()
        return y

    expected = chain().tolist()
    hits = 0
    for step in range(8):
        y, beside = chain(), a[0, :2] * 2
        hits += interrupted(y.tolist, 0.0005 * (step + 1))
        assert y.tolist() == expected
        assert beside.tolist() == (a[0, :2] * 2).tolist()
    assert hits


def test_an_interrupted_step_leaves_the_weights_usable():
    x, w = treadle.rand(8, 8), treadle.ones(8, 8).requires_grad_()

    def step(times=100):
        for _ in range(times):
            (x @ w).tanh().sum().backward()
            w.data -= 0.01 * w.grad.data
            w.grad.data.zero_()

    step(1)  # what is imported when first needed is imported now
    hits = sum(interrupted(step, 0.0003 * (k + 1)) for k in range(20))
    assert hits
    assert treadle.is_grad_enabled()
    assert np.isfinite(w.detach().numpy()).all()
    w.grad = None
    (x @ w).sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), np.repeat(x.numpy().sum(0), 8).reshape(8, 8), 1e-5)


# --- threads --------------------------------------------------------------------------------------


@pytest.fixture
def eager_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*functions):
    """Runs functions at the same time; raises what they raise."""
    errors = []
    barrier = threading.Barrier(len(functions))

    def run(function):
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=(f,)) for f in functions]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]


def test_threads_record_side_by_side(eager_switching):
    results = {}

    def train(seed):
        data = np.random.default_rng(seed).normal(size=(6, 6))
        x = treadle.tensor(data, dtype=treadle.float32, requires_grad=True)
        for step in range(20):
            y = x
            for _ in range(3):
                y = (y @ x).tanh()
            y.sum().backward()
            if step % 3 == 0:
                x.grad.tolist()
        results.setdefault(seed, []).append(x.grad.tolist())

    together(*[lambda seed=seed: train(seed) for seed in range(4)])
    for seed in range(4):
        train(seed)
        assert results[seed][0] == results[seed][1]


def test_what_one_thread_recorded_others_read(eager_switching):
    expected = [[1.5**n * i for i in range(4)] for n in range(1, 9)]
    for _ in range(40):
        y, chain = treadle.arange(4).float(), []
        for _ in range(8):
            y = y * 1.5
            chain.append(y)

        def read(values, order, chain=chain):
            assert [chain[i].tolist() for i in order] == [values[i] for i in order]

        together(
            lambda read=read: read(expected, range(8)),
            lambda read=read: read(expected, range(7, -1, -1)),
            lambda read=read: read(expected, [3, 7, 0]),
        )
        read(expected, range(8))


def test_backward_in_another_thread():
    x = ones(3).requires_grad_()
    loss = (x * x * 3).sum()
    together(loss.backward)
    assert x.grad.tolist() == [6.0] * 3


def test_an_error_is_the_same_in_another_thread():
    bad, where = treadle.arange(3)[treadle.tensor([5])] + 1, here()
    with pytest.raises(IndexError, match=re.escape(where)):
        together(bad.tolist)
    with pytest.raises(IndexError, match=re.escape(where)):
        bad.tolist()


# --- fork -----------------------------------------------------------------------------------------


def in_child(function, seconds=20.0):
    """What ``function()`` gives in a forked child, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                told = repr(function())
            except BaseException as error:
                told = f"{type(error).__name__}: {error}"
            os.write(writer, told.encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    end = time.monotonic() + seconds
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the child hangs")
        time.sleep(0.005)
    with os.fdopen(reader) as stream:
        return stream.read()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
quiet_fork = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@needs_fork
@quiet_fork
def test_a_forked_child_computes():
    x = treadle.arange(4).float()
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0]
    big = treadle.rand(300, 300)
    total = (big @ big).sum().item()  # the pool has threads now
    assert in_child(lambda: (x + 1).tolist()) == "[1.0, 2.0, 3.0, 4.0]"
    assert in_child(lambda: (big @ big).sum().item()) == repr(total)

    def train():
        w = ones(3).requires_grad_()
        (w * w).sum().backward()
        return w.grad.tolist()

    assert in_child(train) == "[2.0, 2.0, 2.0]"
    assert (big @ big).sum().item() == total


@needs_fork
@quiet_fork
def test_what_was_pending_is_dropped_in_the_child_with_an_error():
    x = treadle.arange(3).float()
    x.tolist()
    pending, where = x * 2, here()
    told = in_child(lambda: (pending + 1).tolist())
    assert told == (
        f"{EvaluationError.__name__}: mul: recorded before the process forked and not evaluated by "
        f"then; read the value before forking, or compute it in the child {where}"
    )
    assert in_child(lambda: (x * 2).tolist()) == "[0.0, 2.0, 4.0]"
    assert pending.tolist() == [0.0, 2.0, 4.0]


@needs_fork
@quiet_fork
def test_a_fork_while_another_thread_computes():
    """The child sees no value that was not computed yet, and does not hang."""
    shared, stop = [], threading.Event()

    def compute():
        while not stop.is_set():
            source = treadle.rand(100, 100)
            y = source
            for _ in range(6):
                y = (y @ source).tanh()
            shared.append((source, y))
            y.tolist()

    worker = threading.Thread(target=compute)
    worker.start()

    def check():
        source, y = shared[-1]
        again = source
        for _ in range(6):
            again = (again @ source).tanh()
        return y.tolist() == again.tolist()

    try:
        while not shared:
            time.sleep(0.001)
        assert {in_child(check) for _ in range(12)} == {"True"}
    finally:
        stop.set()
        worker.join()
