"""Gradients as people use them. The numbers are also those that PyTorch 2.13 gives."""

import gc
import weakref

import numpy as np
import pytest

import treadle
from treadle.autograd import Variable, grad
from treadle.testing.gradients import check_grads


def leaf(data, dtype=treadle.float32):
    return treadle.tensor(data, dtype=dtype, requires_grad=True)


def close(x, expected, rtol=1e-6):
    np.testing.assert_allclose(x.detach().numpy(), expected, rtol=rtol)


# --- accumulation ---------------------------------------------------------------------------------


def test_gradients_of_several_backward_calls_add_up():
    x = leaf([1.0, 2.0])
    for times in (1, 2, 3):
        (x * x).sum().backward()
        assert x.grad.tolist() == [2.0 * times, 4.0 * times]


def test_the_same_tensor_collects_later_gradients():
    x = leaf([1.0])
    x.sum().backward()
    g = x.grad
    x.sum().backward()
    assert g is x.grad
    assert g.tolist() == [2.0]


def test_a_value_used_many_times_gets_the_sum():
    x = leaf([2.0])
    y = x * 3
    (y * y + y + x).sum().backward()
    assert x.grad.tolist() == [2 * 9 * 2.0 + 3 + 1]


def test_the_same_operand_twice():
    x, y = leaf([3.0]), leaf([3.0])
    (x + x).sum().backward()
    (y - y).sum().backward()
    assert x.grad.tolist() == [2.0]
    assert y.grad.tolist() == [0.0]


def test_setting_grad_to_none_starts_anew():
    x = leaf([1.0])
    (x * 5).sum().backward()
    x.grad = None
    (x * 7).sum().backward()
    assert x.grad.tolist() == [7.0]


def test_broadcast_operands_get_gradients_of_their_own_shape():
    x, b, s = leaf(np.ones((3, 2))), leaf([1.0, 2.0]), leaf(3.0)
    ((x + b) * s).sum().backward()
    assert b.grad.tolist() == [9.0, 9.0]
    assert s.grad.item() == 15.0
    assert x.grad.tolist() == [[3.0, 3.0]] * 3


def test_a_chain_of_many_thousands_does_not_recurse():
    x = leaf([1.0])
    y = x
    for _ in range(5000):
        y = y + 1
    y.sum().backward()
    assert x.grad.tolist() == [1.0]


def test_a_diamond_of_many_levels_is_walked_once_per_node():
    x = leaf([1.0], treadle.float64)
    y = x
    for _ in range(60):  # 2**60 paths
        y = y + y
    y.sum().backward()
    assert x.grad.tolist() == [2.0**60]


# --- what the gradient stops at -------------------------------------------------------------------


def test_detach_stops_the_gradient():
    x = leaf([2.0])
    y = x * x
    (y.detach() * x).sum().backward()
    assert x.grad.tolist() == [4.0]
    assert not y.detach().requires_grad
    assert y.detach().is_leaf


def test_detach_in_place():
    x = leaf([2.0])
    y = x * x
    y.detach_()
    assert not y.requires_grad
    (y * x).sum().backward()
    assert x.grad.tolist() == [4.0]


def test_a_detached_leaf_becomes_one_of_its_own():
    x = leaf([2.0])
    y = (x * 3).detach().requires_grad_()
    (y * y).sum().backward()
    assert y.grad.tolist() == [12.0]
    assert x.grad is None


def test_data_has_no_history_and_shares_memory():
    x = leaf([1.0, 2.0])
    assert not x.data.requires_grad
    x.data[0] = 5
    assert x.tolist() == [5.0, 2.0]
    assert x.requires_grad
    assert x.is_leaf


def test_the_training_loop_of_the_old_days():
    w = Variable(treadle.tensor([1.0, -2.0]), requires_grad=True)
    seen = []
    for _ in range(3):
        (w * w).sum().backward()
        seen.append(w.grad.data.tolist())
        w.data -= 0.25 * w.grad.data
        w.grad.data.zero_()
        assert w.grad.tolist() == [0.0, 0.0]
    assert w.tolist() == [0.125, -0.25]
    assert seen == [[2.0, -4.0], [1.0, -2.0], [0.5, -1.0]]


def test_variable_without_gradient_and_volatile():
    assert not Variable(treadle.ones(2)).requires_grad
    with pytest.raises(TypeError, match=r"volatile=True is gone; use `with treadle.no_grad\(\):`"):
        Variable(treadle.ones(2), volatile=True)


def test_the_gradient_seen_by_earlier_backward_is_not_changed_by_an_update():
    w = leaf([1.0, 2.0])
    loss = (w * w).sum()
    with treadle.no_grad():
        w += 100  # recorded before backward, but the loss belongs to the old value
    loss.backward()
    assert w.grad.tolist() == [2.0, 4.0]


# --- retain_graph ---------------------------------------------------------------------------------


def test_a_second_backward_is_refused_with_the_remedy():
    x = leaf([3.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match=r"released by an earlier backward\(\); pass retain_gr"):
        y.backward()
    assert x.grad.tolist() == [6.0]


def test_the_error_names_the_line_of_the_released_operation():
    x = leaf([3.0])
    y = x * x  # this line
    y.sum().backward()
    line = test_the_error_names_the_line_of_the_released_operation.__code__.co_firstlineno + 2
    with pytest.raises(RuntimeError, match=rf"the graph of mul \[test_autograd.py:{line}\] was"):
        y.sum().backward()


def test_retain_graph_allows_a_second_backward():
    x = leaf([3.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [12.0]


def test_a_shared_part_is_kept_until_the_last_backward():
    x = leaf([2.0])
    shared = x.exp()
    shared.sum().backward(retain_graph=True)
    (shared * 2).sum().backward()
    close(x.grad, [3 * np.exp(2.0)])


def test_a_graph_that_nobody_holds_is_freed():
    x = leaf(np.ones(10))
    y = x * 2
    held = weakref.ref(y.node)
    y.sum().backward()
    x.grad.tolist()
    del y
    gc.collect()
    assert held() is None


def test_a_gradient_is_no_part_of_the_graph_unless_asked():
    x = leaf([3.0])
    (x**3).sum().backward()
    assert not x.grad.requires_grad
    x.grad = None
    (x**3).sum().backward(create_graph=True)
    assert x.grad.requires_grad


# --- autograd.grad --------------------------------------------------------------------------------


def test_grad_leaves_the_leaves_alone():
    x = leaf([2.0])
    (g,) = grad((x * x).sum(), x)
    assert g.tolist() == [4.0]
    assert x.grad is None


def test_grad_of_several_outputs_and_inputs():
    x, y = leaf([2.0]), leaf([5.0])
    gx, gy = grad([(x * y).sum(), (x + y).sum()], [x, y])
    assert (gx.tolist(), gy.tolist()) == ([6.0], [3.0])


def test_grad_outputs_weigh_the_elements():
    x = leaf([1.0, 2.0])
    (g,) = grad(x * x, x, grad_outputs=treadle.tensor([1.0, 10.0]))
    assert g.tolist() == [2.0, 40.0]


def test_grad_of_an_intermediate_value():
    x = leaf([2.0])
    y = x * 3
    z = (y * y).sum()
    gy, gx = grad(z, [y, x])
    assert gy.tolist() == [12.0]
    assert gx.tolist() == [36.0]


def test_grad_of_a_value_with_respect_to_itself():
    x = leaf([2.0])
    y = (x * 3).sum()
    (g,) = grad(y, y)
    assert g.item() == 1.0


def test_unused_inputs():
    x, unused = leaf([2.0]), leaf([1.0, 1.0])
    with pytest.raises(RuntimeError, match=r"grad: input 1 was not used .* allow_unused=True"):
        grad((x * x).sum(), [x, unused])
    gx, nothing = grad((x * x).sum(), [x, unused], allow_unused=True)
    assert gx.tolist() == [4.0]
    assert nothing is None
    _, zero = grad((x * x).sum(), [x, unused], materialize_grads=True)
    assert zero.tolist() == [0.0, 0.0]


def test_grad_of_an_input_without_gradient_is_refused():
    x, plain = leaf([2.0]), treadle.ones(1)
    with pytest.raises(RuntimeError, match=r"grad: input 0 does not require a gradient; call req"):
        grad((x * plain).sum(), plain)


def test_grad_walks_only_what_leads_to_the_inputs():
    x, w = leaf([2.0]), leaf([3.0])
    y = (w * w).sum()
    y.backward()  # releases the part that does not lead to x
    z = (x * x).sum() + y
    (g,) = grad(z, x, retain_graph=True)
    assert g.tolist() == [4.0]
    with pytest.raises(RuntimeError, match="released by an earlier backward"):
        z.backward()


def test_grad_releases_only_what_it_walked():
    x, w = leaf([2.0]), leaf([3.0])
    y = (w * w).sum()
    grad((x * x).sum() + y, x)
    y.backward()
    assert w.grad.tolist() == [6.0]


def test_grad_stops_where_the_inputs_are():
    x = leaf([2.0])
    y = x * 3
    grad((y * y).sum(), y)
    y.sum().backward()  # nothing before y was walked
    assert x.grad.tolist() == [3.0]


# --- higher orders --------------------------------------------------------------------------------


def test_gradient_of_a_gradient():
    x = leaf([2.0])
    (g,) = grad((x**4).sum(), x, create_graph=True)
    (h,) = grad(g.sum(), x, create_graph=True)
    (k,) = grad(h.sum(), x)
    assert (g.tolist(), h.tolist(), k.tolist()) == ([32.0], [48.0], [48.0])


def test_a_penalty_on_the_gradient_trains():
    x, w = treadle.tensor([1.0, 2.0]).requires_grad_(), leaf([3.0, 4.0])
    out = (w * x * x).sum()
    (g,) = grad(out, x, create_graph=True)  # 2 w x
    (g * g).sum().backward()  # 4 w^2 x^2
    assert w.grad.tolist() == [8 * 3.0 * 1, 8 * 4.0 * 4]
    assert x.grad.tolist() == [8 * 9.0 * 1, 8 * 16.0 * 2]


def test_hessian_row_by_row():
    x = leaf([1.0, 2.0, 3.0])
    (g,) = grad((x[0] * x[1] * x[2] + x[0] ** 3), x, create_graph=True)
    rows = [grad(g[i], x, retain_graph=True)[0].tolist() for i in range(3)]
    assert rows == [[6.0, 3.0, 2.0], [3.0, 0.0, 1.0], [2.0, 1.0, 0.0]]


@pytest.mark.parametrize("name, function", [
    ("net", lambda x, w: (x @ w).tanh().softmax(-1).log()),
    ("index", lambda x, w: x[1:, ::2].exp() * w[:2, :2].t()),
    ("norm", lambda x, w: (x - x.mean(0)) / (x.var(0) + 1).sqrt() * w.sum()),
    ("reduce", lambda x, w: x.logsumexp(1) + w.prod(0).sum() + x.std(1)),
    ("join", lambda x, w: treadle.cat([x.t() @ x, w @ w.t()], 0).sigmoid()),
    ("gather", lambda x, w: x[[0, 0, 2]] * w.index_select(1, treadle.tensor([1, 1, 0, 2]))),
    ("where", lambda x, w: treadle.where(x > 0, x**3, x.sin() * w.sum())),
    ("in place", lambda x, w: in_place(x, w)),
], ids=lambda v: v if isinstance(v, str) else "")  # fmt: skip
def test_gradients_to_second_order(name, function):
    rng = np.random.default_rng(0)
    x = leaf(rng.normal(size=(3, 4)), treadle.float64)
    w = leaf(rng.normal(size=(4, 3)), treadle.float64)
    if name in ("gather", "in place"):
        w = leaf(rng.normal(size=(3, 4)), treadle.float64)
    check_grads(function, [x, w], order=2, rtol=1e-4, atol=1e-5)


def in_place(x, w):
    y = x * 2
    y[0] = w[1] * x[0]
    y[:, 1] *= w[:, 0].exp()
    y += y.t().sum(0)[:1]
    return y**2


# --- backward's arguments -------------------------------------------------------------------------


def test_backward_with_a_gradient():
    x = leaf([1.0, 2.0, 3.0])
    (x * x).backward(treadle.tensor([1.0, 0.0, -1.0]))
    assert x.grad.tolist() == [2.0, 0.0, -6.0]


def test_backward_with_inputs_fills_only_those():
    x, y = leaf([2.0]), leaf([3.0])
    (x * y).sum().backward(inputs=[x])
    assert x.grad.tolist() == [3.0]
    assert y.grad is None


def test_backward_with_a_computed_input_fills_its_grad():
    x = leaf([2.0])
    y = x * 3
    (y * y).sum().backward(inputs=[y])
    assert y.grad.tolist() == [12.0]
    assert x.grad is None


def test_backward_of_several_tensors():
    x = leaf([1.0, 2.0])
    treadle.autograd.backward([x.sum(), x * x], [None, treadle.tensor([1.0, 1.0])])
    assert x.grad.tolist() == [3.0, 5.0]


def test_retain_grad():
    x = leaf([2.0])
    y = x * 3
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [12.0]
    assert x.grad.tolist() == [36.0]
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        treadle.ones(1).retain_grad()


def test_a_leaf_is_its_own_output():
    x = leaf(3.0)
    x.backward()
    assert x.grad.item() == 1.0


# --- values read before backward ------------------------------------------------------------------


def test_reading_values_before_backward_changes_nothing():
    data = np.random.default_rng(0).normal(size=(4, 4))
    results = []
    for read in (False, True):
        x, w = leaf(data), leaf(data.T)
        h = (x @ w).tanh()
        if read:
            h.tolist()
        loss = (h.softmax(-1) * h).sum()
        if read:
            loss.item()
        loss.backward()
        if read:
            x.grad.tolist()
        results.append((x.grad.numpy().tobytes(), w.grad.numpy().tobytes()))
    assert results[0] == results[1]


def test_backward_long_after_the_values_were_dropped():
    x = leaf([0.5, 1.5])
    y = (x.exp() * x.sin()).sum()
    y.item()
    for _ in range(20):  # memory handed on meanwhile must not be the residuals'
        (treadle.ones(2) * 7).tolist()
    y.backward()
    v = np.array([0.5, 1.5])
    close(x.grad, np.exp(v) * (np.sin(v) + np.cos(v)))


# --- values written in place ----------------------------------------------------------------------


def test_a_write_after_the_use_leaves_the_gradient_right():
    x, data = leaf([2.0, 3.0]), treadle.tensor([5.0, 7.0])
    y = (x * data).sum()
    data.zero_()
    y.backward()
    assert x.grad.tolist() == [5.0, 7.0]


def test_a_write_to_a_result_that_its_own_gradient_reads():
    x = leaf([1.0])
    y = x.exp()
    z = y * y
    y.zero_()  # PyTorch refuses the backward; here values never change under a gradient
    z.sum().backward()
    close(x.grad, [2 * np.exp(2.0)])


def test_writes_into_parts_cut_the_gradient_there():
    x = leaf([1.0, 2.0, 3.0])
    y = x * 2
    y[1] = 10
    (y * y).sum().backward()
    assert y.tolist() == [2.0, 10.0, 6.0]
    assert x.grad.tolist() == [8.0, 0.0, 24.0]


def test_a_written_value_gets_the_gradient_of_its_place():
    x, v = leaf([1.0, 2.0, 3.0]), leaf(4.0)
    y = x * 1
    y[1:] = v
    (y * treadle.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]
    assert v.grad.item() == 110.0


def test_in_place_operators_are_differentiated():
    x = leaf([2.0])
    y = x * 1
    y *= x
    y += 1
    y **= 2
    y.sum().backward()  # (x^2 + 1)^2
    assert x.grad.tolist() == [2 * 5 * 4.0]


def test_a_tensor_without_history_takes_that_of_what_is_written():
    x = leaf([3.0])
    out = treadle.zeros(2)
    out[0] = (x * x).sum()
    out.sum().backward()
    assert x.grad.tolist() == [6.0]


@pytest.mark.parametrize("write", [
    lambda x: x.add_(1), lambda x: x.zero_(), lambda x: x.__setitem__(0, 5.0),
    lambda x: x.__iadd__(1), lambda x: x.copy_(treadle.ones(2)), lambda x: x.fill_(1),
])  # fmt: skip
def test_writing_to_a_leaf_is_refused(write):
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"on a (view of a )?leaf tensor .*no_grad\(\)"):
        write(x)
    assert x.tolist() == [1.0, 2.0]


def test_writing_to_a_view_of_a_leaf_is_refused():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"on a view of a leaf tensor that requires a gradient"):
        x[:1].zero_()


# --- what has no gradient -------------------------------------------------------------------------


def test_the_gradient_of_several_elements_is_refused():
    x = leaf([1.0, 2.0])
    with pytest.raises(RuntimeError, match=r"got a tensor of shape \(2,\); without a gradient arg"):
        (x * 2).backward()
    with pytest.raises(RuntimeError, match=r"reduce it, for example with .sum\(\), or pass the gr"):
        grad(x * 2, x)


def test_the_gradient_of_what_has_none_is_refused():
    with pytest.raises(RuntimeError, match=r"no gradient flows: .* call requires_grad_\(\) on a"):
        treadle.ones(1).sum().backward()
    x = leaf([1.0])
    with treadle.no_grad():
        y = (x * 2).sum()
    with pytest.raises(RuntimeError, match=r"do not compute under no_grad\(\)"):
        y.backward()
    with pytest.raises(RuntimeError, match="no gradient flows"):
        (x > 0).sum().backward()


def test_a_weight_of_the_wrong_shape_is_refused():
    x = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"gradient of shape \(3,\) for a tensor of shape \(2,"):
        (x * 2).backward(treadle.ones(3))


@pytest.mark.parametrize("dtype", [treadle.int64, treadle.uint8, treadle.bool])
def test_integers_have_no_gradient(dtype):
    with pytest.raises(RuntimeError, match=rf"dtype {dtype.name}; only floating-point and complex"):
        treadle.ones(2, dtype=dtype).requires_grad_()
    with pytest.raises(RuntimeError, match="complex tensors have"):
        treadle.tensor([1, 2], dtype=dtype, requires_grad=True)


def test_integer_results_are_constants_of_the_gradient():
    x = leaf([1.5, -2.5])
    y = x * x.sign() + (x > 0).float() * x.long().float() + x.argmax()
    y.sum().backward()
    assert x.grad.tolist() == [1.0, -1.0]


def test_a_computed_tensor_cannot_stop_requiring_a_gradient():
    y = leaf([1.0]) * 2
    with pytest.raises(RuntimeError, match=r"only leaves can stop .* call \.detach\(\)"):
        y.requires_grad_(False)


def test_a_gradient_of_another_type_is_refused():
    x = leaf([1.0])
    with pytest.raises(ValueError, match=r"grad: got f32\[2\] for a tensor f32\[1\]; they must be"):
        x.grad = treadle.ones(2)


def test_dtypes_of_gradients_are_those_of_the_leaves():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0], treadle.float64)
    h = treadle.tensor([1.0, 1.0], dtype=treadle.bfloat16, requires_grad=True)
    (x * w * h).sum().backward()
    assert (x.grad.dtype, w.grad.dtype, h.grad.dtype) == (
        treadle.float32, treadle.float64, treadle.bfloat16,
    )  # fmt: skip
    assert h.grad.tolist() == [3.0, 8.0]
