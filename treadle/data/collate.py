"""Items to batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from treadle.base import dtypes
from treadle.base.dtypes import DType
from treadle.base.lazy_numpy import np
from treadle.base.shapes import Shape, prod
from treadle.compiler.device import get_device
from treadle.data.dataset import Subset, TensorDataset
from treadle.ir.node import located
from treadle.tensor.creation import tensor
from treadle.tensor.handle import wrap
from treadle.tensor.joining import stack
from treadle.tensor.storage import array_of, node_from_memory
from treadle.tensor.tensor import Tensor

Array = np.ndarray[Any, Any]


def default_collate(batch: Sequence[Any]) -> Any:
    """A batch from a list of items of the same structure, one more dimension in front.

    Tensors and NumPy arrays of equal shapes are stacked, numbers become a tensor (float64 for
    floats), strings a list. Dicts, tuples, lists and named tuples are collated element by element;
    tuples become lists, as in PyTorch.

    >>> default_collate([{"x": 1, "name": "a"}, {"x": 2, "name": "b"}])
    {'x': tensor([1, 2]), 'name': ['a', 'b']}
    """
    items = list(batch)
    if not items:
        raise located(ValueError("default_collate: got no items; a batch needs one at least"))
    return _collate(items, "item")


def default_convert(data: Any) -> Any:
    """An item with its NumPy arrays as tensors, all else as it is: what unbatched loading gives."""
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind not in "SUO":
        return tensor(data)
    if isinstance(data, (str, bytes)):
        return data
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, Sequence):
        return _like(data, [default_convert(value) for value in data])
    return data


def _collate(items: list[Any], path: str) -> Any:
    """The batch of these items, which stand at ``path`` inside the items of the data set."""
    first = items[0]
    kinds = {type(item) for item in items}
    if isinstance(first, Tensor) and _all(items, Tensor):
        return _stack_tensors(items, path)
    if isinstance(first, (np.ndarray, np.generic)) and _all(items, (np.ndarray, np.generic)):
        return _stack_arrays([np.asarray(item) for item in items], path)
    if kinds <= {bool, int, float}:
        return tensor(items, dtype=dtypes.float64 if float in kinds else None)
    if isinstance(first, (str, bytes)) and _all(items, (str, bytes)):
        return items
    if isinstance(first, Mapping) and _all(items, Mapping):
        return _collate_mappings(items, path)
    if isinstance(first, Sequence) and _all(items, Sequence):
        return _collate_sequences(items, path)
    names = sorted(kind.__name__ for kind in kinds)
    raise located(TypeError(
        f"default_collate: got {' and '.join(names)} at {path}; it takes tensors, NumPy arrays, "
        f"numbers, strings, and dicts, tuples and lists of these, of one kind in all items; give "
        f"DataLoader a collate_fn for others"
    ))  # fmt: skip


def _all(items: list[Any], kinds: Any) -> bool:
    return all(isinstance(item, kinds) for item in items)


def _collate_mappings(items: list[Any], path: str) -> Any:
    first = items[0]
    for item in items:
        if item.keys() != first.keys():
            raise located(ValueError(
                f"default_collate: got dicts with the keys {list(first)} and {list(item)} at "
                f"{path}; the keys must be equal in all items of a batch"
            ))  # fmt: skip
    return _like(
        first,
        {key: _collate([item[key] for item in items], f"{path}[{key!r}]") for key in first},
    )


def _collate_sequences(items: list[Any], path: str) -> Any:
    first = items[0]
    sizes = sorted({len(item) for item in items})
    if len(sizes) > 1:
        raise located(ValueError(
            f"default_collate: got sequences of {' and '.join(map(str, sizes))} elements at "
            f"{path}; their lengths must be equal in a batch; pad them, or give DataLoader a "
            f"collate_fn"
        ))  # fmt: skip
    parts = enumerate(zip(*items, strict=True))
    return _like(first, [_collate(list(part), f"{path}[{i}]") for i, part in parts])


def _like(container: Any, content: Any) -> Any:
    """A dict or list in the class of ``container`` where that takes it; tuples become lists."""
    if hasattr(container, "_fields"):
        return type(container)(*content)
    if type(container) is dict or isinstance(container, (tuple, list)):
        return content
    try:
        return type(container)(content)
    except TypeError:
        return content


def _stack_tensors(tensors: list[Tensor], path: str) -> Tensor:
    if any(x.requires_grad for x in tensors):
        return stack(tensors)
    # One copy in NumPy: a graph with an input for each item would cost more.
    return _stack_arrays([array_of(x.node) for x in tensors], path)


def _stack_arrays(arrays: list[Array], path: str) -> Tensor:
    """One tensor from arrays of one shape, copied once."""
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        texts = " and ".join(map(str, sorted(shapes)))
        raise located(ValueError(
            f"default_collate: got shapes {texts} at {path}; the shapes must be equal in a batch; "
            f"resize or pad the items, or give DataLoader a collate_fn"
        ))  # fmt: skip
    try:
        dtype = dtypes.from_numpy(np.result_type(*{array.dtype for array in arrays}))
    except TypeError as error:
        raise located(TypeError(f"default_collate: at {path}: {error}")) from None
    shape = arrays[0].shape
    if not shape:
        return _filled(dtype, (len(arrays),), lambda out: np.copyto(out, arrays))
    joined = (len(arrays) * shape[0], *shape[1:])  # joining is faster than stacking
    return _filled(
        dtype,
        (len(arrays), *shape),
        lambda out: np.concatenate(arrays, out=out.reshape(joined)),
    )


def _filled(dtype: DType, shape: Shape, fill: Callable[[Array], Any]) -> Tensor:
    """A tensor whose memory ``fill`` writes."""
    memory: Any = get_device("cpu").allocate(prod(shape) * dtype.itemsize)
    fill(memory.array(dtype, shape))
    return wrap(node_from_memory(memory, dtype, shape))


# --- batches without items ------------------------------------------------------------------------

_ITEM_OF_TENSORS = TensorDataset.__getitem__


def gathered(dataset: Any, indices: Sequence[Any]) -> list[Tensor] | Tensor | None:
    """The batch of a ``TensorDataset``, a tensor, or a ``Subset`` of one: a gather per tensor.

    The same as ``default_collate([dataset[i] for i in indices])``. None, so that items are read one
    by one, for other data sets, for classes that define items of their own, and for indices that
    are out of range or no plain numbers.
    """
    while type(dataset).__getitem__ is Subset.__getitem__:
        try:
            indices = [dataset.indices[i] for i in indices]
        except (TypeError, IndexError):
            return None
        dataset = dataset.dataset
    is_tensor = type(dataset) is Tensor
    if not is_tensor and getattr(type(dataset), "__getitem__", None) is not _ITEM_OF_TENSORS:
        return None
    if not indices or hasattr(dataset, "__getitems__") or (is_tensor and not dataset.ndim):
        return None
    index = np.asarray(indices)
    size = len(dataset)
    if index.ndim != 1 or index.dtype.kind != "i" or index.min() < -size or index.max() >= size:
        return None
    index = np.where(index < 0, index + size, index)
    return _gather(dataset, index) if is_tensor else [_gather(x, index) for x in dataset.tensors]


def _gather(source: Tensor, index: Array) -> Tensor:
    if source.requires_grad:
        return source[index]
    # Done at once: for a batch, NumPy is quicker than a kernel and the check of its indices.
    array = array_of(source.node)
    shape = (len(index), *array.shape[1:])
    return _filled(source.dtype, shape, lambda out: np.take(array, index, 0, out, "clip"))
