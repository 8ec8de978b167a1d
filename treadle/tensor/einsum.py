"""Sums of products by index: einsum, tensordot, inner, kron.

An einsum of several operands is taken apart into contractions of two, in the order that needs the
fewest multiplications. Which one that is depends on the shapes alone, and so do the bits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.errors import ShapeError
from treadle.base.shapes import prod
from treadle.ir.node import located
from treadle.tensor import arithmetic as a
from treadle.tensor.contraction import matmul
from treadle.tensor.handle import Handle
from treadle.tensor.movement import diagonal, movedim, node_of, permute, reshape, sizes_of
from treadle.tensor.reduction import sum as sum_over

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

# A letter, or the place, counted from the right, of a dimension that ... stands for.
Label = str | int
Labels = tuple[Label, ...]
_TRIED = 8  # operands, up to which all orders are compared; beyond it the cheapest step is next


def einsum(equation: str, *operands: Any) -> Tensor:
    """Products of the operands' elements, summed over the indices that the result does not have.

    ``einsum("ij,jk->ik", a, b)`` is the matrix product. A letter names a dimension; a letter that
    occurs twice in one operand takes its diagonal; ``...`` stands for the dimensions that are left,
    which broadcast. Without ``->`` the result has the letters that occur once, sorted. Indices can
    also be lists of numbers, each after its operand: ``einsum(a, [0, 1], b, [1, 2], [0, 2])``.

    >>> import treadle
    >>> x = treadle.tensor([[1, 2], [3, 4]])
    >>> treadle.einsum("ij,j->i", x, treadle.tensor([1, 10])).tolist()
    [21, 43]
    """
    if not isinstance(equation, str):
        equation, operands = _from_lists((equation, *operands))
    elif len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    shapes = [node_of("einsum", x).shape for x in operands]
    terms, result = _parsed(equation, shapes)
    sizes = _sizes(equation, terms, shapes)
    parts = [_prepared(*pair, sizes) for pair in zip(operands, terms, strict=True)]
    while len(parts) > 1:
        i, j = _next_pair([labels for _, labels in parts], result, sizes)
        (x, left), (y, right) = parts[i], parts[j]
        rest = [labels for n, (_, labels) in enumerate(parts) if n not in (i, j)]
        kept = {*result}.union(*rest)
        parts = [p for n, p in enumerate(parts) if n not in (i, j)]
        parts.append(_contracted(x, left, y, right, kept))
    out, labels = _summed(*parts[0], result)
    missing = [label for label in result if label not in labels]  # of size 1 in every operand
    out = reshape(out, (*out.shape, *(1 for _ in missing)))
    labels += tuple(missing)
    return permute(out, [labels.index(label) for label in result]) if labels != result else out


# --- the equation ---------------------------------------------------------------------------------


def _from_lists(items: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The equation and operands of ``einsum(a, [0, 1], b, [1, 2], [0, 2])``."""

    def letters(indices: Iterable[Any]) -> str:
        return "".join("..." if i is Ellipsis else _letter(i) for i in indices)

    count = len(items) // 2
    inputs = ",".join(letters(items[2 * i + 1]) for i in range(count))
    result = f"->{letters(items[-1])}" if len(items) % 2 else ""
    return inputs + result, tuple(items[: 2 * count : 2])


def _letter(index: Any) -> str:
    if not isinstance(index, int) or not 0 <= index < 52:
        raise located(ValueError(
            f"einsum: got the index {index!r} in a list; it takes ints from 0 to 51 and ..."
        ))  # fmt: skip
    return chr(ord("A" if index < 26 else "a") + index % 26)


def _parsed(equation: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[Labels], Labels]:
    """The labels of every operand and of the result."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    texts = inputs.split(",")
    if len(texts) != len(shapes):
        raise located(ValueError(
            f"einsum: got the equation {equation!r} with indices for {len(texts)} operands, and "
            f"{len(shapes)} operands; separate the indices of each with a comma"
        ))  # fmt: skip
    terms = [_labels(equation, *pair) for pair in zip(texts, shapes, strict=True)]
    most = max((sum(isinstance(x, int) for x in term) for term in terms), default=0)
    ellipsis = tuple(range(most - 1, -1, -1))
    if arrow:
        named = output.replace("...", "")  # without ... its dimensions are summed
        result = _labels(equation, output, (0,) * (len(named) + most * (named != output)))
    else:
        every = [x for term in terms for x in term if isinstance(x, str)]
        result = (*ellipsis, *sorted(x for x in {*every} if every.count(x) == 1))
    known = {x for term in terms for x in term}
    if len({*result}) < len(result) or not {*result} <= known:
        raise located(ValueError(
            f"einsum: got the equation {equation!r}; every index of the result must be there once, "
            f"and in an operand too"
        ))  # fmt: skip
    return terms, result


def _labels(equation: str, text: str, shape: tuple[int, ...]) -> Labels:
    """``"ij..."`` with a label for every dimension."""
    before, dots, after = text.partition("...")
    if not all("a" <= x <= "z" or "A" <= x <= "Z" for x in before + after):
        raise located(ValueError(
            f"einsum: got {text!r} in the equation {equation!r}; it takes letters, '...', ',' and "
            f"'->'"
        ))  # fmt: skip
    left = len(shape) - len(before) - len(after)
    if left < 0 or (left and not dots):
        raise located(ShapeError(
            f"einsum: got {text!r} in the equation {equation!r} for an operand of shape {shape}; "
            f"it must have an index for each of the {len(shape)} dimensions, or '...'"
        ))  # fmt: skip
    return (*before, *range(left - 1, -1, -1), *after)


def _sizes(
    equation: str, terms: Sequence[Labels], shapes: Sequence[tuple[int, ...]]
) -> dict[Label, int]:
    """The size that each label stands for; sizes of 1 broadcast."""
    sizes: dict[Label, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            known = sizes.setdefault(label, size)
            if known == 1:
                sizes[label] = size
            elif size not in (1, known):
                what = f"the index {label!r}" if isinstance(label, str) else "a dimension of '...'"
                raise located(ShapeError(
                    f"einsum: got shapes {', '.join(map(str, shapes))} for the equation "
                    f"{equation!r}; the sizes {known} and {size} of {what} must be equal, or 1"
                ))  # fmt: skip
    return sizes


# --- the order ------------------------------------------------------------------------------------


def _next_pair(terms: Sequence[Labels], result: Labels, sizes: dict[Label, int]) -> tuple[int, int]:
    """The two operands to contract next."""
    if len(terms) == 2:
        return 0, 1
    sets = [frozenset(term) for term in terms]
    if len(terms) > _TRIED:
        pairs = [(i, j) for j in range(len(sets)) for i in range(j)]
        return min(pairs, key=lambda p: _cost(sets[p[0]] | sets[p[1]], sizes))
    return _cheapest(sets, frozenset(result), sizes)


def _cost(labels: Iterable[Label], sizes: dict[Label, int]) -> int:
    return prod(sizes[label] for label in labels)


def _cheapest(
    sets: Sequence[frozenset[Label]], result: frozenset[Label], sizes: dict[Label, int]
) -> tuple[int, int]:
    """The first pair of the order with the fewest multiplications: all subsets, smallest first."""
    count = len(sets)
    whole = (1 << count) - 1

    def outside(subset: int) -> frozenset[Label]:
        return result.union(*(sets[i] for i in range(count) if not subset >> i & 1))

    best: dict[int, tuple[int, frozenset[Label], tuple[int, int]]] = {
        1 << i: (0, sets[i], (i, i)) for i in range(count)
    }
    for subset in sorted(range(1, whole + 1), key=int.bit_count):
        if subset in best:
            continue
        needed = outside(subset)
        part = (subset - 1) & subset
        while part > subset ^ part:  # each way of cutting it in two
            x, y = best[part], best[subset ^ part]
            cost = x[0] + y[0] + _cost(x[1] | y[1], sizes)
            if subset not in best or cost < best[subset][0]:
                singles = part.bit_count() == 1 and (subset ^ part).bit_count() == 1
                low, high = sorted((part.bit_length() - 1, (subset ^ part).bit_length() - 1))
                first = (low, high) if singles else x[2] if part.bit_count() > 1 else y[2]
                best[subset] = cost, (x[1] | y[1]) & needed, first
            part = (part - 1) & subset
    return best[whole][2]


# --- one step -------------------------------------------------------------------------------------


def _prepared(x: Tensor, labels: Labels, sizes: dict[Label, int]) -> tuple[Tensor, Labels]:
    """Diagonals taken, and dimensions that only broadcast dropped."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            x = movedim(diagonal(x, 0, i, j), -1, i)
            labels = labels[:j] + labels[j + 1 :]
    shape = x.shape
    kept = [i for i, label in enumerate(labels) if shape[i] != 1]
    return reshape(x, [shape[i] for i in kept]), tuple(labels[i] for i in kept)


def _summed(x: Tensor, labels: Labels, kept: Collection[Label]) -> tuple[Tensor, Labels]:
    """The sum over the labels that nobody needs any more."""
    gone = [i for i, label in enumerate(labels) if label not in kept]
    if not gone:
        return x, labels
    return sum_over(x, gone, dtype=x.dtype), tuple(label for label in labels if label in kept)


def _contracted(
    x: Tensor, left: Labels, y: Tensor, right: Labels, kept: Collection[Label]
) -> tuple[Tensor, Labels]:
    """One operand for two: a batched matrix product, or a product where nothing is summed."""
    x, left = _summed(x, left, {*kept, *right})
    y, right = _summed(y, right, {*kept, *left})
    shared = [label for label in left if label in right]
    batch = [label for label in shared if label in kept]
    inner = [label for label in shared if label not in kept]
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]
    x, x_sizes = _grouped(x, left, (batch, rows, inner))
    y, y_sizes = _grouped(y, right, (batch, inner, columns))
    out = matmul(x, y) if inner else a.mul(x, y)
    labels = (*batch, *rows, *columns)
    return reshape(out, (*x_sizes[0], *x_sizes[1], *y_sizes[2])), labels


def _grouped(
    x: Tensor, labels: Labels, groups: Sequence[Sequence[Label]]
) -> tuple[Tensor, list[list[int]]]:
    """The tensor with three dimensions, one per group of labels, and the sizes in each group."""
    order = [labels.index(label) for group in groups for label in group]
    sizes = [[x.shape[labels.index(label)] for label in group] for group in groups]
    return reshape(permute(x, order), [prod(group) for group in sizes]), sizes


# --- products with names of their own -------------------------------------------------------------


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The sum of products over several dimensions.

    ``dims`` is how many of the last dimensions of ``a`` meet the first ones of ``b``, or two lists:
    which of ``a`` and which of ``b``.

    >>> import treadle
    >>> treadle.tensordot(treadle.ones(2, 3, 4), treadle.ones(4, 3), dims=([1, 2], [1, 0])).tolist()
    [12.0, 12.0]
    """
    x, y = node_of("tensordot", a).shape, node_of("tensordot", b).shape
    if isinstance(dims, int):
        pairs = [list(range(len(x) - dims, len(x))), list(range(dims))]
    else:
        given = dims.tolist() if isinstance(dims, Handle) else dims  # type: ignore[attr-defined]
        pairs = [list(sizes_of("tensordot", (d,), "a dimension")) for d in map(_as_list, given)]
    left, right = ([d % max(len(s), 1) for d in p] for p, s in zip(pairs, (x, y), strict=True))
    known = all(d < len(s) for p, s in ((left, x), (right, y)) for d in p)
    fits = known and len(left) == len(right)
    if not fits or any(
        x[i] != y[j] and 1 not in (x[i], y[j]) for i, j in zip(left, right, strict=True)
    ):
        raise located(ShapeError(
            f"tensordot: got shapes {x} and {y} and dims={dims}; it must name as many dimensions "
            f"of both, of equal sizes or 1"
        ))  # fmt: skip
    names = list(range(len(x))), list(range(len(x), len(x) + len(y)))
    for i, j in zip(left, right, strict=True):
        names[1][j] = names[0][i]
    free = [n for n in (*names[0], *names[1]) if n not in {names[0][i] for i in left}]
    return einsum(a, names[0], b, names[1], free)  # type: ignore[arg-type]


def _as_list(dims: Any) -> list[Any]:
    return list(dims) if isinstance(dims, (list, tuple)) else [dims]


def inner(input: Tensor, other: Tensor) -> Tensor:
    """The sum of products over the last dimension of both: (..., k), (..., k) -> (..., ...)."""
    x, y = node_of("inner", input).shape, node_of("inner", other).shape
    if not x or not y:
        return a.mul(input, other)
    if x[-1] != y[-1]:
        raise located(ShapeError(
            f"inner: got shapes {x} and {y}; the last sizes {x[-1]} and {y[-1]} must be equal"
        ))  # fmt: skip
    return tensordot(input, other, ([-1], [-1]))


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: every element of ``input`` times all of ``other``, side by side.

    >>> import treadle
    >>> treadle.kron(treadle.tensor([1, 10]), treadle.tensor([1, 2])).tolist()
    [1, 2, 10, 20]
    """
    x, y = node_of("kron", input).shape, node_of("kron", other).shape
    ndim = max(len(x), len(y))
    x, y = ((1,) * (ndim - len(s)) + s for s in (x, y))
    spread = reshape(input, [n for size in x for n in (size, 1)])
    beside = reshape(other, [n for size in y for n in (1, size)])
    return reshape(a.mul(spread, beside), [m * n for m, n in zip(x, y, strict=True)])


class Methods:
    """The functions of this module that PyTorch has as methods."""

    __slots__ = ()

    inner, kron = inner, kron


__all__ = ["einsum", "inner", "kron", "tensordot"]
