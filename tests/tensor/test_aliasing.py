"""Programs that share memory, with the results that PyTorch 2.13 gives for the same lines."""

import gc

import numpy as np
import pytest

import treadle
from treadle.base.errors import GradientError


def ramp(t, *shape):
    return t.arange(int(np.prod(shape)), dtype=t.float32).reshape(*shape).clone()


def write_through_a_flat_view(t):
    x = ramp(t, 2, 2)
    y = x.view(-1)
    y[0] = 9
    return x.tolist()


def add_to_a_row(t):
    x = ramp(t, 3, 2)
    x[1] += 10
    x[-1] *= 2
    return x.tolist()


def a_view_sees_writes_to_its_base(t):
    x = ramp(t, 2, 3)
    row, flat = x[1], x.view(6)
    x += 1
    x[1, 0] = -1
    return row.tolist(), flat.tolist()


def views_of_one_base_see_each_other(t):
    x = ramp(t, 2, 3)
    first, second = x[:, 1:], x.t()
    second[2] = 50
    first[0, 0] = 40
    return first.tolist(), second.tolist(), x.tolist()


def write_through_the_transpose(t):
    x = ramp(t, 2, 3)
    x.t()[0] = -1
    x.T[1, 1] = -2
    return x.tolist()


def write_into_chunks(t):
    x = ramp(t, 6)
    a, b, c = x.chunk(3)
    a.fill_(1)
    c.copy_(b)
    return x.tolist()


def write_into_parts_of_a_split(t):
    x = ramp(t, 2, 4)
    left, right = x.split([1, 3], dim=1)
    right.mul_(10)
    left.zero_()
    return x.tolist()


def write_through_narrow_and_select(t):
    x = ramp(t, 3, 3)
    x.narrow(0, 1, 2).select(1, 0).fill_(7)
    return x.tolist()


def write_through_unbind(t):
    x = ramp(t, 2, 2)
    for i, row in enumerate(x.unbind(0)):
        row += 100 * i
    for column in x.unbind(1):
        column[0] = -1
    return x.tolist()


def iterating_gives_views(t):
    x = ramp(t, 2, 2)
    for row in x:
        row += 1
    return x.tolist()


def a_view_of_a_view_of_a_view(t):
    x = ramp(t, 4, 4)
    x[1:, 1:][1:, 1:].t()[0].fill_(0)
    return x.tolist()


def write_through_a_step(t):
    x = ramp(t, 8)
    x[1::3] = 0
    x[::2][1:] += 100
    return x.tolist()


def write_through_the_diagonal(t):
    x = ramp(t, 3, 3)
    x.diagonal().fill_(0)
    x.diagonal(1).add_(10)
    return x.tolist()


def write_through_squeeze_and_unsqueeze(t):
    x = ramp(t, 1, 3)
    x.squeeze(0)[0] = 5
    x.unsqueeze(-1)[0, 1, 0] = 6
    x[:, None, 2] = 7
    return x.tolist()


def write_through_permute_and_flatten(t):
    x = ramp(t, 2, 1, 2)
    x.permute(2, 0, 1)[1, 0] = -1
    x.flatten()[0] = -2
    x.movedim(0, -1)[0, 0, 1] = -3
    return x.tolist()


def reshape_of_a_transpose_is_a_copy(t):
    x = ramp(t, 2, 3)
    y = x.t().reshape(-1)
    y[1] = 99
    return x.tolist(), y.tolist()


def contiguous_of_a_transpose_is_a_copy(t):
    x = ramp(t, 2, 2)
    y, z = x.t().contiguous(), x.contiguous()
    y[0, 0] = 99
    z[1, 1] = 77
    return x.tolist(), y.tolist()


def copies_do_not_alias(t):
    x = ramp(t, 4)
    for y in (x.clone(), x.repeat(1), x.flip(0), x.roll(0), x[[0, 1, 2, 3]], x[x >= 0], t.cat([x])):
        y.fill_(-1)
    return x.tolist()


def expanding_without_repeats_is_a_view(t):
    x = ramp(t, 3)
    x.expand(1, 3)[0, 1] = 8
    return x.tolist()


def an_expanded_tensor_sees_its_base(t):
    x = ramp(t, 2)
    wide = x.expand(2, 2)
    x[0] = 5
    return wide.tolist()


def swap_two_rows(t):
    x = ramp(t, 3, 2)
    kept = x[0].clone()
    x[0] = x[2]
    x[2] = kept
    return x.tolist()


def a_swap_without_a_copy_loses_a_row(t):
    x = ramp(t, 2, 2)
    x[0], x[1] = x[1], x[0]
    return x.tolist()


def swap_by_index(t):
    x = ramp(t, 3, 2)
    x[[0, 2]] = x[[2, 0]]
    return x.tolist()


def shift_within_itself(t):
    x = ramp(t, 5)
    x[1:] = x[:-1].clone()
    return x.tolist()


def detached_shares_memory(t):
    x = ramp(t, 3).requires_grad_()
    d = x.detach()
    d[0] = 9
    with t.no_grad():
        x[1] = 8
    return x.tolist(), d.tolist(), x.requires_grad, d.requires_grad


def data_of_a_leaf(t):
    w = ramp(t, 3).requires_grad_()
    (w * w).sum().backward()
    w.data -= 0.5 * w.grad.data
    w.data[1:].fill_(4)
    return w.tolist(), w.grad.tolist(), w.requires_grad, w.is_leaf


def data_of_a_computed_tensor(t):
    w = ramp(t, 3).requires_grad_()
    y = w * 2
    y.data.fill_(10)
    y.data[0] += 1
    (y * t.tensor([1.0, 2.0, 3.0])).sum().backward()
    return y.tolist(), w.grad.tolist()


def assigned_data(t):
    w = ramp(t, 2).requires_grad_()
    w.data = t.tensor([5.0, 6.0])
    (w * w).sum().backward()
    return w.tolist(), w.grad.tolist()


def in_place_without_gradients_keeps_the_history(t):
    w = ramp(t, 2).requires_grad_()
    y = w * 3
    with t.no_grad():
        y += 100
        y[0] = 0
    y.sum().backward()
    return y.tolist(), w.grad.tolist()


def in_place_on_a_view_with_gradients(t):
    w = (ramp(t, 2, 2) + 1).requires_grad_()
    y = w * 1
    row = y[0]
    row *= 3
    (y * y).sum().backward()
    return y.tolist(), row.tolist(), w.grad.tolist()


def a_base_overwritten_in_part(t):
    w, v = ramp(t, 3).requires_grad_(), t.tensor([7.0]).requires_grad_()
    y = w * 2
    y[1:2] = v * v
    y.sum().backward()
    return y.tolist(), w.grad.tolist(), v.grad.tolist()


def a_base_overwritten_by_numbers(t):
    w = ramp(t, 3).requires_grad_()
    y = w * 2
    y[0] = 5
    z = y * 1
    y.zero_()
    (y + z).sum().backward()
    return y.tolist(), z.tolist(), w.grad.tolist()


def all_overwritten_by_numbers(t):
    w = ramp(t, 2).requires_grad_()
    y = w * 2
    y.fill_(3)
    y.sum().backward()
    return y.requires_grad, w.grad.tolist()


def values_used_before_a_write(t):
    x = ramp(t, 3)
    y = x * 2
    x.zero_()
    return y.tolist(), x.tolist()


def a_write_into_a_buffer_with_gradients(t):
    w = t.tensor([1.0, 2.0]).requires_grad_()
    out = t.zeros(2, 2)
    for i in range(2):
        out[i] = w * (i + 1)
    (out * out).sum().backward()
    return out.tolist(), out.requires_grad, w.grad.tolist()


def masked_writes(t):
    x = ramp(t, 2, 3)
    x[x > 3] = 0
    x[:, t.tensor([True, False, True])] += 10
    x[0][x[0] > 5] = -1
    return x.tolist()


def indexed_writes(t):
    x = t.zeros(4)
    x[t.tensor([1, 3])] = t.tensor([5.0, 6.0])
    x[[1, 1, 1]] += 1
    x.index_add_(0, t.tensor([0, 0]), t.tensor([1.0, 2.0]))
    return x.tolist()


def writes_after_the_base_is_gone(t):
    def parts():
        x = ramp(t, 4)
        return x[:3], x[1:]

    a, b = parts()
    gc.collect()
    a += 10
    return a.tolist(), b.tolist()


def a_view_made_without_gradients(t):
    w = ramp(t, 3).requires_grad_()
    with t.no_grad():
        v = w[1:]
        w += 1
        v[0] = -5
    return v.tolist(), w.tolist(), w.requires_grad


def a_view_read_without_gradients(t):
    w = ramp(t, 2).requires_grad_()
    y = w * 1
    v = y.view(2, 1)
    y *= 3
    with t.no_grad():
        before = v.tolist()
    v.sum().backward()
    return before, w.grad.tolist()


def a_leaf_that_shares_memory(t):
    x = ramp(t, 3)
    w = x[1:].detach().requires_grad_()
    (w * w).sum().backward()
    x[2] = 10
    with t.no_grad():
        w -= w.grad
    return x.tolist(), w.tolist(), w.is_leaf, w.requires_grad


def random_into_a_slice_of_data(t):
    w = t.zeros(3, 2).requires_grad_()
    w.data[:2].normal_(5.0, 0.001)
    return w.data.round().tolist(), w.requires_grad


def copies_into_a_view(t):
    w = t.zeros(3, 2).requires_grad_()
    with t.no_grad():
        w[1:].copy_(t.tensor([1.0, 2.0]))
        w[:, 0].mul_(10).add_(1)
    return w.tolist()


EXPECTED = {
    write_through_a_flat_view: [[9.0, 1.0], [2.0, 3.0]],
    add_to_a_row: [[0.0, 1.0], [12.0, 13.0], [8.0, 10.0]],
    a_view_sees_writes_to_its_base: ([-1.0, 5.0, 6.0], [1.0, 2.0, 3.0, -1.0, 5.0, 6.0]),
    views_of_one_base_see_each_other: (
        [[40.0, 50.0], [4.0, 50.0]],
        [[0.0, 3.0], [40.0, 4.0], [50.0, 50.0]],
        [[0.0, 40.0, 50.0], [3.0, 4.0, 50.0]],
    ),
    write_through_the_transpose: [[-1.0, 1.0, 2.0], [-1.0, -2.0, 5.0]],
    write_into_chunks: [1.0, 1.0, 2.0, 3.0, 2.0, 3.0],
    write_into_parts_of_a_split: [[0.0, 10.0, 20.0, 30.0], [0.0, 50.0, 60.0, 70.0]],
    write_through_narrow_and_select: [[0.0, 1.0, 2.0], [7.0, 4.0, 5.0], [7.0, 7.0, 8.0]],
    write_through_unbind: [[-1.0, -1.0], [102.0, 103.0]],
    iterating_gives_views: [[1.0, 2.0], [3.0, 4.0]],
    a_view_of_a_view_of_a_view: [
        [0.0, 1.0, 2.0, 3.0],
        [4.0, 5.0, 6.0, 7.0],
        [8.0, 9.0, 0.0, 11.0],
        [12.0, 13.0, 0.0, 15.0],
    ],
    write_through_a_step: [0.0, 0.0, 102.0, 3.0, 100.0, 5.0, 106.0, 0.0],
    write_through_the_diagonal: [[0.0, 11.0, 2.0], [3.0, 0.0, 15.0], [6.0, 7.0, 0.0]],
    write_through_squeeze_and_unsqueeze: [[5.0, 6.0, 7.0]],
    write_through_permute_and_flatten: [[[-2.0, -1.0]], [[-3.0, 3.0]]],
    reshape_of_a_transpose_is_a_copy: (
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        [0.0, 99.0, 1.0, 4.0, 2.0, 5.0],
    ),
    contiguous_of_a_transpose_is_a_copy: ([[0.0, 1.0], [2.0, 77.0]], [[99.0, 2.0], [1.0, 3.0]]),
    copies_do_not_alias: [0.0, 1.0, 2.0, 3.0],
    expanding_without_repeats_is_a_view: [0.0, 8.0, 2.0],
    an_expanded_tensor_sees_its_base: [[5.0, 1.0], [5.0, 1.0]],
    swap_two_rows: [[4.0, 5.0], [2.0, 3.0], [0.0, 1.0]],
    a_swap_without_a_copy_loses_a_row: [[2.0, 3.0], [2.0, 3.0]],
    swap_by_index: [[4.0, 5.0], [2.0, 3.0], [0.0, 1.0]],
    shift_within_itself: [0.0, 0.0, 1.0, 2.0, 3.0],
    detached_shares_memory: ([9.0, 8.0, 2.0], [9.0, 8.0, 2.0], True, False),
    data_of_a_leaf: ([0.0, 4.0, 4.0], [0.0, 2.0, 4.0], True, True),
    data_of_a_computed_tensor: ([11.0, 10.0, 10.0], [2.0, 4.0, 6.0]),
    assigned_data: ([5.0, 6.0], [10.0, 12.0]),
    in_place_without_gradients_keeps_the_history: ([0.0, 103.0], [3.0, 3.0]),
    in_place_on_a_view_with_gradients: (
        [[3.0, 6.0], [3.0, 4.0]],
        [3.0, 6.0],
        [[18.0, 36.0], [6.0, 8.0]],
    ),
    a_base_overwritten_in_part: ([0.0, 49.0, 4.0], [2.0, 0.0, 2.0], [14.0]),
    a_base_overwritten_by_numbers: ([0.0, 0.0, 0.0], [5.0, 2.0, 4.0], [0.0, 2.0, 2.0]),
    all_overwritten_by_numbers: (True, [0.0, 0.0]),
    values_used_before_a_write: ([0.0, 2.0, 4.0], [0.0, 0.0, 0.0]),
    a_write_into_a_buffer_with_gradients: ([[1.0, 2.0], [2.0, 4.0]], True, [10.0, 20.0]),
    masked_writes: [[-1.0, 1.0, -1.0], [13.0, 0.0, 10.0]],
    indexed_writes: [3.0, 6.0, 0.0, 6.0],
    writes_after_the_base_is_gone: ([10.0, 11.0, 12.0], [11.0, 12.0, 3.0]),
    a_view_made_without_gradients: ([-5.0, 3.0], [1.0, -5.0, 3.0], True),
    a_view_read_without_gradients: ([[0.0], [3.0]], [3.0, 3.0]),
    a_leaf_that_shares_memory: ([0.0, -1.0, 6.0], [-1.0, 6.0], True, True),
    random_into_a_slice_of_data: ([[5.0, 5.0], [5.0, 5.0], [0.0, 0.0]], True),
    copies_into_a_view: [[1.0, 0.0], [11.0, 2.0], [11.0, 2.0]],
}


@pytest.mark.parametrize("program", EXPECTED, ids=lambda program: program.__name__)
def test_program(program):
    assert program(treadle) == EXPECTED[program]


def test_writing_into_repeated_elements_is_refused():
    wide = treadle.zeros(2).expand(3, 2)
    with pytest.raises(RuntimeError, match=r"made by expand\(\).*call \.clone\(\) first"):
        wide += 1
    with pytest.raises(RuntimeError, match=r"several elements share one place"):
        wide[0] = 1


def test_writing_into_a_leaf_is_refused():
    w = treadle.zeros(2, 2, requires_grad=True)
    with pytest.raises(GradientError, match=r"a leaf tensor .*\(2, 2\).*no_grad.*test_aliasing"):
        w += 1
    with pytest.raises(GradientError, match=r"a view of a leaf tensor"):
        w[0] = 1
    with pytest.raises(GradientError, match=r"a leaf tensor"):
        w[w == 0] = 1
    with pytest.raises(GradientError, match=r"a view of a leaf tensor"):
        w.view(-1).zero_()
    assert w.tolist() == [[0, 0], [0, 0]]


def test_an_array_keeps_the_values_of_its_moment():
    """Unlike PyTorch's, which share memory: values that somebody holds never change."""
    x = treadle.zeros(3)
    before = x.numpy()
    x[1] = 5
    assert before.tolist() == [0, 0, 0]
    assert x.numpy().tolist() == [0, 5, 0]
    source = np.zeros(2, np.float32)
    y = treadle.from_numpy(source)
    source[:] = 9
    assert y.tolist() == [0, 0]


def test_a_view_made_without_gradients_never_has_any():
    w = treadle.ones(2, requires_grad=True)
    with treadle.no_grad():
        v = w[:1]
        w *= 2
    assert v.tolist() == [2.0]
    assert not v.requires_grad
    assert w.is_leaf


def test_a_long_chain_of_writes_through_views_keeps_every_gradient():
    w = treadle.ones(4, requires_grad=True)
    y = w * 1
    half = y[:2]
    for _ in range(5):
        half *= 2
        y[1:3] += half.flip(0) * 0
    y.sum().backward()
    assert w.grad.tolist() == [32.0, 32.0, 1.0, 1.0]
