"""To and from other libraries, and copies of tensors."""

import copy
import ctypes
import gc
import pickle
import re
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.base import dtypes
from treadle.base.errors import DeviceError, GradientError
from treadle.tensor.exchange import _BFLOAT, _struct

NUMPY_DTYPES = [d for d in dtypes.ALL if d is not dtypes.bfloat16]


def address(array: np.ndarray[Any, Any]) -> int:
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]


# --- DLPack, out ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=lambda d: d.name)
def test_numpy_imports_without_a_copy(dtype: dtypes.DType) -> None:
    x = treadle.tensor([[1, 0, 3], [4, 5, 6]], dtype=dtype)
    for view in (x, x.t(), x[:, ::2], x[1, 1], x[:0]):
        array = np.from_dlpack(view)
        assert array.dtype == dtype.numpy
        assert array.tolist() == view.tolist()
        assert not array.flags.writeable
    assert address(np.from_dlpack(x)) == address(x.numpy())


def test_negative_strides_are_copied() -> None:
    x = treadle.arange(4).flip(0)
    array = np.from_dlpack(x)
    assert array.tolist() == [3, 2, 1, 0]
    assert array.strides == (8,)


def test_exported_memory_is_not_reused_while_it_is_held() -> None:
    x = treadle.arange(1000) + 1
    array = np.from_dlpack(x)
    del x
    others = [treadle.arange(1000) * 0 + i for i in range(8)]
    for other in others:
        other.numpy()
    del others
    gc.collect()
    for i in range(8):
        (treadle.arange(1000) * 0 - i).numpy()
    assert array.tolist() == list(range(1, 1001))


def test_a_receiver_that_cannot_tell_read_only_memory_gets_a_copy() -> None:
    x = treadle.arange(3)
    capsule = x.__dlpack__()  # as DLPack before 1.0 asks
    assert _struct(capsule).data != address(x.numpy())
    assert treadle.from_dlpack(capsule).tolist() == [0, 1, 2]
    with pytest.raises(BufferError, match=r"got copy=False, but the memory is read-only"):
        x.__dlpack__(copy=False)


def test_copy() -> None:
    x = treadle.ones(3)
    array = np.from_dlpack(x, copy=True)  # type: ignore[call-arg]
    array += 1
    assert x.tolist() == [1, 1, 1]


def test_bfloat16_is_told_as_such() -> None:
    x = treadle.tensor([1.0, -2.5, 3.0], dtype=treadle.bfloat16)
    capsule = x.__dlpack__(max_version=(1, 0))
    described = _struct(capsule)
    assert (described.code, described.bits, described.lanes) == (_BFLOAT, 16, 1)
    bits = (ctypes.c_uint16 * 3).from_address(described.data)
    assert [b << 16 for b in bits] == np.array([1, -2.5, 3], np.float32).view(np.uint32).tolist()
    back = treadle.from_dlpack(capsule)
    assert back.dtype is treadle.bfloat16
    assert back.tolist() == [1.0, -2.5, 3.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stream": 1}, "got stream=1; the CPU has no streams"),
        ({"dl_device": (2, 0)}, r"got dl_device=\(2, 0\); the tensor is on the CPU, \(1, 0\)"),
    ],
)
def test_what_an_export_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BufferError, match=message):
        treadle.ones(2).__dlpack__(**options)


def test_a_gradient_is_not_lost_in_silence() -> None:
    x = treadle.ones(2, requires_grad=True)
    with pytest.raises(BufferError, match=r"would be lost; export x\.detach\(\)"):
        np.from_dlpack(x)
    assert np.from_dlpack(x.detach()).tolist() == [1, 1]


def test_the_device_is_the_cpu() -> None:
    assert treadle.ones(1).__dlpack_device__() == (1, 0)


# --- DLPack, in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=lambda d: d.name)
def test_import(dtype: dtypes.DType) -> None:
    array = np.array([[1, 0, 3], [4, 5, 6]], dtype.numpy)
    for view in (array, array.T, array[:, ::2], array[::-1], array[1, 1:2], array[:0]):
        x = treadle.from_dlpack(view)
        assert x.dtype is dtype
        assert x.tolist() == view.tolist()


def test_an_import_is_a_copy() -> None:
    array = np.ones(3)
    x = treadle.from_dlpack(array)
    array[:] = 7
    assert x.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"got copy=False; memory of other libraries is always"):
        treadle.from_dlpack(array, copy=False)


class Old:
    """A library from before DLPack 1.0: no keywords."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array

    def __dlpack__(self, stream: Any = None) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class Elsewhere(Old):
    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 1


def test_older_libraries() -> None:
    assert treadle.from_dlpack(Old(np.arange(3))).tolist() == [0, 1, 2]


def test_a_tensor_is_its_own_source() -> None:
    assert treadle.from_dlpack(treadle.arange(3), device="cpu").tolist() == [0, 1, 2]


def test_what_an_import_refuses() -> None:
    with pytest.raises(DeviceError, match=r"got memory of DLPack device \(2, 1\), expected memory"):
        treadle.from_dlpack(Elsewhere(np.arange(3)))
    with pytest.raises(TypeError, match=r"got a list, which has no __dlpack__; use treadle\.tens"):
        treadle.from_dlpack([1, 2])
    with pytest.raises(DeviceError, match=r"'cuda' is not there"):
        treadle.from_dlpack(np.ones(2), device="cuda")
    capsule = np.ones(2).__dlpack__()
    treadle.from_dlpack(capsule)
    with pytest.raises(TypeError, match=r"no DLPack capsule or one already used"):
        treadle.from_dlpack(capsule)


# --- NumPy ----------------------------------------------------------------------------------------


def test_the_array_protocol() -> None:
    x = treadle.tensor([1.5, 2.5])
    array = np.asarray(x)
    assert address(array) == address(x.numpy())
    assert not array.flags.writeable
    assert np.asarray(x, dtype=np.int32).tolist() == [1, 2]
    assert np.array(x).flags.writeable
    with pytest.raises(ValueError, match="avoid copy"):
        np.asarray(x, dtype=np.int32, copy=False)
    with pytest.raises(GradientError, match=r"call \.detach\(\)\.numpy\(\)"):
        np.asarray(treadle.ones(1, requires_grad=True))


def test_numpys_functions_give_tensors() -> None:
    x = treadle.tensor([0.0, 1.0])
    y = np.add(np.ones(2), x)
    assert isinstance(y, treadle.Tensor)
    assert y.dtype is treadle.float64
    assert y.tolist() == [1, 2]
    assert np.sin(x).tolist() == np.sin(np.array([0, 1], np.float32)).tolist()
    with pytest.raises(GradientError, match="requires a gradient"):
        np.sin(treadle.ones(1, requires_grad=True))


@pytest.mark.parametrize("number", [np.float64(2), np.float32(2), np.int64(2)])
def test_numpys_numbers_are_numbers(number: Any) -> None:
    for product in (number * treadle.ones(2), treadle.ones(2) * number):
        assert isinstance(product, treadle.Tensor)
        assert product.dtype is treadle.float32
        assert product.tolist() == [2, 2]


def test_operators_leave_arrays_to_the_tensor() -> None:
    for operate in (
        lambda a, x: a * x, lambda a, x: x * a, lambda a, x: a - x, lambda a, x: a @ x,
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"make a tensor with treadle\.tensor\(value\)"):
            operate(np.ones(2), treadle.ones(2))


def test_no_tensor_equals_none() -> None:
    x = treadle.ones(2)
    assert (x == None) is False  # noqa: E711
    assert (x != None) is True  # noqa: E711
    assert x not in [None]
    assert None not in [x]
    with pytest.raises(TypeError, match="eq: got a str; it takes tensors and Python numbers"):
        _ = x == "a"


# --- copies ---------------------------------------------------------------------------------------


def test_a_shallow_copy_shares_memory() -> None:
    x = treadle.arange(3)
    x.note = "mine"
    y = copy.copy(x)
    y[0] = 7
    assert y is not x
    assert x.tolist() == [7, 1, 2]
    x.add_(1)
    assert y.tolist() == [8, 2, 3]
    assert y.note == "mine"


def test_a_shallow_copy_of_a_leaf_is_a_leaf_of_its_own() -> None:
    x = treadle.ones(2, requires_grad=True)
    y = copy.copy(x)
    (y * 3).sum().backward()
    assert y.grad.tolist() == [3, 3]
    assert x.grad is None
    with treadle.no_grad():
        x.mul_(5)
    assert y.tolist() == [5, 5]
    assert y.is_leaf
    assert y.requires_grad


def test_a_deep_copy_has_memory_of_its_own() -> None:
    x = treadle.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    y = copy.deepcopy([x, x])
    assert y[0] is y[1]
    with treadle.no_grad():
        y[0].mul_(5)
    assert x.tolist() == [1, 1]
    assert y[0].tolist() == [5, 5]
    assert y[0].requires_grad
    assert y[0].grad.tolist() == [3, 3]
    assert y[0].grad is not x.grad


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_computed_tensors_are_not_copied_with_their_history(how: Any) -> None:
    y = treadle.ones(2, requires_grad=True) * 2
    with pytest.raises(GradientError, match=re.escape(".detach().clone()")):
        how(y)
    assert how(y.detach()).tolist() == [2, 2]


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
def test_pickle(dtype: dtypes.DType) -> None:
    x = treadle.tensor([[1, 0, 3], [4, 5, 6]], dtype=dtype)
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        for view in (x, x.t(), x[:, ::2], x.flip(0), x[1, 1], x[:0]):
            y = pickle.loads(pickle.dumps(view, protocol))
            assert type(y) is treadle.Tensor
            assert y.dtype is dtype
            assert y.shape == view.shape
            assert y.tolist() == view.tolist()


def test_pickle_keeps_leaves_and_attributes() -> None:
    x = treadle.ones(2, requires_grad=True)
    x.note = "mine"
    y = pickle.loads(pickle.dumps(x))
    assert y.requires_grad
    assert y.is_leaf
    assert y.note == "mine"
    (y * 2).sum().backward()
    assert y.grad.tolist() == [2, 2]
    z = pickle.loads(pickle.dumps(x * 2))
    assert not z.requires_grad
    assert z.tolist() == [2, 2]
