"""What PyTorch has and this framework has not, and what to do instead."""

from __future__ import annotations

from typing import Any

from treadle.ir.node import located
from treadle.tensor.handle import Handle

_SPARSE = (
    "there are no sparse tensors: use a dense one (index_add, scatter_add and embedding do with "
    "dense gradients what sparse ones are usually for)"
)
_QUANTISED = "there are no quantised tensors: use a float dtype, or int8 with a scale of your own"
_SYMBOLIC = "sizes are ints: use Python's own functions"
_PREFIXES = {
    "sparse_": _SPARSE, "to_sparse": _SPARSE, "crow_indices": _SPARSE, "ccol_indices": _SPARSE,
    "row_indices": _SPARSE, "col_indices": _SPARSE, "resize_as_sparse": _SPARSE,
    "quantize": _QUANTISED, "fake_quantize": _QUANTISED, "q_": _QUANTISED, "qint": _QUANTISED,
    "quint": _QUANTISED, "dequantize": _QUANTISED, "qscheme": _QUANTISED, "int_repr": _QUANTISED,
    "per_channel_": _QUANTISED, "per_tensor_": _QUANTISED, "choose_qparams": _QUANTISED,
    "sym_": _SYMBOLIC, "Sym": _SYMBOLIC,
}  # fmt: skip
_NAMES = {
    **dict.fromkeys(
        ("hsmm", "dsmm", "hspmm", "smm", "spmm", "saddmm", "sspaddmm", "sparse", "coalesce",
         "is_coalesced", "indices", "values", "dense_dim", "sparse_dim", "sparse_mask", "to_mkldnn",
         "to_padded_tensor"),
        _SPARSE,
    ),
    "symeig": "it was removed from PyTorch: use linalg.eigh",
    "eig": "it was removed from PyTorch: use linalg.eig",
    "solve": "it was removed from PyTorch: use linalg.solve(A, B)",
    "complex32": "use complex64", "chalf": "use complex64",
}  # fmt: skip


def why_absent(name: str) -> str | None:
    """Why there is no such name; None where nothing is known of it."""
    prefixed = (why for prefix, why in _PREFIXES.items() if name.startswith(prefix))
    return _NAMES.get(name) or next(prefixed, None)


def _refusing(name: str) -> Any:
    def refuse(self: Any, *args: Any, **options: Any) -> Any:
        raise located(NotImplementedError(f"{name}: {why_absent(name)}"))

    refuse.__name__ = refuse.__qualname__ = name
    refuse.__doc__ = f"Raises: {why_absent(name)}."
    return refuse


class Methods(Handle):
    """Methods of sparse and quantised tensors, which say what to use instead."""

    __slots__ = ()

    to_sparse, to_sparse_coo = _refusing("to_sparse"), _refusing("to_sparse_coo")
    to_sparse_csr, to_sparse_csc = _refusing("to_sparse_csr"), _refusing("to_sparse_csc")
    to_sparse_bsr, to_sparse_bsc = _refusing("to_sparse_bsr"), _refusing("to_sparse_bsc")
    coalesce, indices, values = map(_refusing, ("coalesce", "indices", "values"))
    sparse_mask, sparse_dim, dense_dim = map(_refusing, ("sparse_mask", "sparse_dim", "dense_dim"))
    dequantize, int_repr, q_scale = map(_refusing, ("dequantize", "int_repr", "q_scale"))

    def to_dense(self: Any, dtype: Any = None, *, masked_grad: bool = True) -> Any:
        """The tensor itself: all are dense."""
        return self if dtype is None else self.to(dtype)


__all__ = ["why_absent"]
