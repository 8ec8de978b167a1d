"""The array API standard: names, signatures and promotion against array-api-strict, and values."""

import inspect
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
import treadle.array_api as xp

strict: Any = pytest.importorskip("array_api_strict")
ROOT = Path(__file__).resolve().parents[2]
VERSION = "2024.12"
FLAGS = {"ArrayAPIStrictFlags", "Device", "__version__"}
KINDS = {
    "bool": ["bool"], "integral": ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"],
    "floating": ["float32", "float64"],
}  # fmt: skip
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def _version() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strict.set_array_api_strict_flags(api_version=VERSION)
    yield
    strict.reset_array_api_strict_flags()


def _names(module: Any) -> list[str]:
    return [n for n in module.__all__ if n not in FLAGS and "strict_flags" not in n]


def _draw(dtype: str, shape: tuple[int, ...] = (3, 4)) -> np.ndarray:
    if dtype == "bool":
        return RNG.integers(0, 2, shape).astype(bool)
    if dtype.startswith("complex"):
        return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(dtype)
    if dtype.startswith("float"):
        return RNG.normal(size=shape).astype(dtype)
    return RNG.integers(0 if dtype[0] == "u" else -5, 6, shape).astype(dtype)


def _both(array: Any) -> tuple[Any, Any]:
    return xp.asarray(array), strict.asarray(array)


def _agree(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    if isinstance(theirs, (tuple, list)):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            _agree(a, b, tolerance)
        return
    expected = np.asarray(theirs)
    assert str(ours.dtype).removeprefix("treadle.") == expected.dtype.name
    assert tuple(ours.shape) == expected.shape
    np.testing.assert_allclose(np.asarray(ours), expected, rtol=tolerance, atol=tolerance)


# --- names and signatures -------------------------------------------------------------------------


def test_all_names_are_there() -> None:
    assert xp.__array_api_version__ == VERSION
    for ours, theirs in ((xp, strict), (xp.linalg, strict.linalg), (xp.fft, strict.fft)):
        assert set(_names(theirs)) <= set(ours.__all__)
        assert all(hasattr(ours, name) for name in ours.__all__)
        assert all(getattr(ours, name).__doc__ for name in ours.__all__
                   if inspect.isfunction(getattr(ours, name)))  # fmt: skip


def _functions() -> list[Any]:
    found = []
    for part in ("", "linalg", "fft"):
        theirs = getattr(strict, part) if part else strict
        names = [n for n in _names(theirs) if inspect.isfunction(getattr(theirs, n))]
        found += [(part, name) for name in names]
    return found


@pytest.mark.parametrize(("part", "name"), _functions())
def test_signatures(part: str, name: str) -> None:
    ours, theirs = (
        inspect.signature(getattr(getattr(module, part) if part else module, name)).parameters
        for module in (xp, strict)
    )
    assert list(ours) == list(theirs)
    for parameter in theirs:
        assert ours[parameter].kind is theirs[parameter].kind, parameter
        wanted = theirs[parameter].default
        if "Undef" not in str(type(wanted)):
            assert ours[parameter].default == wanted, parameter


# --- promotion ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["integral", "floating", "complex"])
def test_promotion(kind: str) -> None:
    names = KINDS.get(kind, [*KINDS["floating"], "complex64", "complex128"])
    for a in names:
        for b in names:
            expected = strict.result_type(getattr(strict, a), getattr(strict, b))
            name = str(expected).rsplit(".", 1)[-1].strip("'<>")
            assert xp.result_type(getattr(xp, a), getattr(xp, b)).name in name
            for shapes in (((2,), (2,)), ((), (2,)), ((2,), ())):  # 0-d arrays count as others do
                x, y = (
                    xp.ones(s, dtype=getattr(xp, d)) for s, d in zip(shapes, (a, b), strict=True)
                )
                assert xp.add(x, y).dtype.name in name, (a, b, shapes)


def test_numbers_take_the_dtype_of_the_array() -> None:
    for dtype in ("int8", "uint8", "float32", "float64"):
        x = xp.ones(2, dtype=getattr(xp, dtype))
        assert xp.add(x, 1).dtype is xp.multiply(2, x).dtype is x.dtype
    with pytest.raises(TypeError, match=r"add: got 1\.5 with an array of dtype int8; a number"):
        xp.add(xp.ones(2, dtype=xp.int8), 1.5)
    with pytest.raises(TypeError, match="expected one array at least"):
        xp.add(1, 2)


# --- values ---------------------------------------------------------------------------------------

ONE = {
    "bool": "logical_not bitwise_invert",
    "integral": "abs positive negative sign square bitwise_invert ceil floor trunc round isnan "
                "isinf isfinite",
    "floating": "abs acos acosh asin asinh atan atanh ceil cos cosh exp expm1 floor isfinite isinf "
                "isnan log log10 log1p log2 negative positive reciprocal round sign signbit sin "
                "sinh sqrt square tan tanh trunc",
}  # fmt: skip
TWO = {
    "bool": "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor equal not_equal",
    "integral": "add subtract multiply equal not_equal less less_equal greater greater_equal "
                "maximum minimum bitwise_and bitwise_or bitwise_xor",
    "floating": "add subtract multiply divide atan2 copysign equal not_equal less less_equal "
                "greater greater_equal hypot logaddexp maximum minimum nextafter",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, d) for k, names in ONE.items() for n in names.split() for d in KINDS[k]],
)
def test_of_one_array(name: str, dtype: str) -> None:
    if name == "negative" and dtype[0] == "u":
        pytest.skip("numbers without a sign")
    ours, theirs = _both(_draw(dtype))
    with np.errstate(all="ignore"):
        _agree(getattr(xp, name)(ours), getattr(strict, name)(theirs))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(n, d) for k, names in TWO.items() for n in names.split() for d in KINDS[k]],
)
def test_of_two_arrays(name: str, dtype: str) -> None:
    (a, a2), (b, b2) = _both(_draw(dtype)), _both(_draw(dtype, (4,)))
    _agree(getattr(xp, name)(a, b), getattr(strict, name)(a2, b2))


@pytest.mark.parametrize("dtype", [d for k in KINDS for d in KINDS[k]])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(dtype: str, axis: Any, keepdims: bool) -> None:
    ours, theirs = _both(_draw(dtype))
    names = ["all", "any", "count_nonzero"]
    if dtype != "bool":
        names += ["sum", "prod", "max", "min"]
    if dtype.startswith("float"):
        names += ["mean", "std", "var"]
    if not isinstance(axis, tuple) and dtype != "bool":
        names += ["argmax", "argmin"]
    for name in names:
        options = {"axis": axis, "keepdims": keepdims}
        _agree(getattr(xp, name)(ours, **options), getattr(strict, name)(theirs, **options))


def _cases() -> dict[str, Any]:
    """Calls by name: a function of a namespace and of what makes arrays in it."""
    x, y, v = _draw("float32"), _draw("float32"), _draw("int64", (5,))
    square = _draw("float64", (2, 3, 3))
    wave = _draw("complex128", (2, 6))
    repeated = RNG.integers(0, 4, (4, 3))
    return {
        "clip": lambda m, a: m.clip(a(x), -0.5, 0.5),
        "clip one side": lambda m, a: m.clip(a(x), max=0.25),
        "where": lambda m, a: m.where(a(x) > 0, a(x), a(y)),
        "concat": lambda m, a: m.concat([a(x), a(y)], axis=1),
        "concat flat": lambda m, a: m.concat([a(x), a(y)], axis=None),
        "stack": lambda m, a: m.stack([a(x), a(y)], axis=-1),
        "unstack": lambda m, a: m.unstack(a(x), axis=1),
        "expand_dims": lambda m, a: m.expand_dims(a(x), axis=-2),
        "squeeze": lambda m, a: m.squeeze(a(x[None, :, None]), (0, 2)),
        "flip": lambda m, a: m.flip(a(x)),
        "moveaxis": lambda m, a: m.moveaxis(a(square), 0, -1),
        "permute_dims": lambda m, a: m.permute_dims(a(square), (2, 0, 1)),
        "reshape": lambda m, a: m.reshape(a(x), (2, -1)),
        "roll": lambda m, a: m.roll(a(x), (1, -1), axis=(0, 1)),
        "tile": lambda m, a: m.tile(a(x), (2, 1, 2)),
        "repeat": lambda m, a: m.repeat(a(x), 2, axis=1),
        "broadcast_to": lambda m, a: m.broadcast_to(a(v), (2, 5)),
        "broadcast_arrays": lambda m, a: m.broadcast_arrays(a(x), a(x[0])),
        "meshgrid": lambda m, a: m.meshgrid(a(v), a(v[:2])),
        "take": lambda m, a: m.take(a(x), a(np.array([2, 0])), axis=0),
        "take_along_axis": lambda m, a: m.take_along_axis(
            a(x), a(np.array([[0, -1], [1, 1], [2, 3]]))),
        "nonzero": lambda m, a: m.nonzero(a(repeated)),
        "searchsorted": lambda m, a: m.searchsorted(a(np.arange(5.0)), a(np.array([0.5, 9.0]))),
        "sort": lambda m, a: m.sort(a(x), axis=0, descending=True),
        "argsort": lambda m, a: m.argsort(a(repeated)),
        "argsort down": lambda m, a: m.argsort(a(repeated), descending=True),
        "unique_counts": lambda m, a: m.unique_counts(a(repeated)),
        "unique_inverse": lambda m, a: m.unique_inverse(a(repeated)),
        "unique_values": lambda m, a: m.unique_values(a(repeated)),
        "cumulative_sum": lambda m, a: m.cumulative_sum(a(x), axis=1, include_initial=True),
        "cumulative_prod": lambda m, a: m.cumulative_prod(a(v)),
        "diff": lambda m, a: m.diff(a(x), axis=0, n=2),
        "diff between": lambda m, a: m.diff(a(v), prepend=a(v[:1]), append=a(v[:2])),
        "matmul": lambda m, a: m.matmul(a(x), m.matrix_transpose(a(y))),
        "tensordot": lambda m, a: m.tensordot(a(x), a(y), axes=((0, 1), (0, 1))),
        "vecdot": lambda m, a: m.vecdot(a(wave), a(wave)),
        "arange": lambda m, a: m.arange(5, 0, -2),
        "linspace": lambda m, a: m.linspace(0, 1, 4, endpoint=False, dtype=m.float64),
        "eye": lambda m, a: m.eye(3, 4, k=-1, dtype=m.float64),
        "full": lambda m, a: m.full((2,), True),
        "tril": lambda m, a: m.tril(a(square), k=1),
        "real": lambda m, a: (m.real(a(wave)), m.imag(a(wave)), m.conj(a(wave))),
    }  # fmt: skip


def _extensions() -> dict[str, Any]:
    """The same for linalg and fft."""
    x, y, v = _draw("float32"), _draw("float32"), _draw("int64", (5,))
    square = _draw("float64", (2, 3, 3))
    positive = square @ np.swapaxes(square, 1, 2) + np.eye(3)
    wave = _draw("complex128", (2, 6))
    return {
        "cholesky": lambda m, a: m.linalg.cholesky(a(positive)),
        "cross": lambda m, a: m.linalg.cross(a(x[:, :3]), a(y[:, :3])),
        "det": lambda m, a: m.linalg.det(a(square)),
        "diagonal": lambda m, a: m.linalg.diagonal(a(square), offset=1),
        "eigvalsh": lambda m, a: m.linalg.eigvalsh(a(positive)),
        "eigh": lambda m, a: m.linalg.eigh(a(positive)).eigenvalues,
        "inv": lambda m, a: m.linalg.inv(a(square)),
        "matrix_norm": lambda m, a: m.linalg.matrix_norm(a(square), ord=1, keepdims=True),
        "matrix_power": lambda m, a: m.linalg.matrix_power(a(square), 3),
        "matrix_rank": lambda m, a: m.linalg.matrix_rank(a(square)),
        "outer": lambda m, a: m.linalg.outer(a(v), a(v)),
        "pinv": lambda m, a: m.linalg.pinv(a(square)),
        "qr": lambda m, a: m.linalg.qr(a(square)).R,
        "slogdet": lambda m, a: m.linalg.slogdet(a(square)),
        "solve": lambda m, a: m.linalg.solve(a(square), a(positive)),
        "solve one": lambda m, a: m.linalg.solve(a(square[0]), a(positive[0, 0])),
        "svdvals": lambda m, a: m.linalg.svdvals(a(square)),
        "svd": lambda m, a: m.linalg.svd(a(square), full_matrices=False).S,
        "trace": lambda m, a: m.linalg.trace(a(square)),
        "vector_norm": lambda m, a: m.linalg.vector_norm(a(square), axis=(0, 2), ord=1),
        "fft": lambda m, a: m.fft.fft(a(wave), n=8),
        "ifftn": lambda m, a: m.fft.ifftn(a(wave)),
        "rfft": lambda m, a: m.fft.rfft(a(positive), axis=1),
        "irfft": lambda m, a: m.fft.irfft(a(wave)),
        "hfft": lambda m, a: m.fft.hfft(a(wave), norm="ortho"),
        "fftshift": lambda m, a: m.fft.fftshift(a(x), axes=1),
        "fftfreq": lambda m, a: m.fft.fftfreq(5, d=0.5, dtype=m.float64),
    }  # fmt: skip


CASES = _cases() | _extensions()


@pytest.mark.parametrize("name", CASES)
def test_values(name: str) -> None:
    _agree(CASES[name](xp, xp.asarray), CASES[name](strict, strict.asarray))


def test_unique_all_finds_the_first_of_each_and_every_nan() -> None:
    x = xp.asarray([3.0, math.nan, 1.0, 3.0, math.nan])
    values, indices, inverse, counts = xp.unique_all(x)
    assert values.tolist()[:2] == [1, 3]
    assert indices.tolist()[:2] == [2, 0]
    assert counts.tolist() == [1, 2, 1, 1]
    assert xp.take(values, inverse).tolist()[0] == 3
    assert [n.shape for n in xp.unique_all(xp.asarray([]))] == [(0,)] * 4


def test_isin() -> None:
    x = xp.asarray([[1, 2], [3, 1]])
    assert xp.isin(x, xp.asarray([1, 7])).tolist() == [[True, False], [False, True]]
    assert xp.isin(x, 3, invert=True).tolist() == [[True, True], [False, True]]


# --- the namespace --------------------------------------------------------------------------------


def test_an_array_knows_its_namespace() -> None:
    x = treadle.ones(2)
    space = x.__array_namespace__()
    assert space.asarray is xp.asarray
    assert x.__array_namespace__(api_version="2023.12") is space
    with pytest.raises(ValueError, match=r"got api_version='2999'; this is 2024\.12"):
        x.__array_namespace__(api_version="2999")
    assert x.to_device("cpu") is x


def test_what_there_is() -> None:
    info = xp.__array_namespace_info__()
    theirs = strict.__array_namespace_info__()
    assert set(info.dtypes()) == set(theirs.dtypes())
    for kind in ("bool", "integral", "real floating", "complex floating", ("bool", "numeric")):
        assert set(info.dtypes(kind=kind)) == set(theirs.dtypes(kind=kind))
        for dtype in info.dtypes(kind=kind).values():
            assert xp.isdtype(dtype, kind)
    assert info.devices() == [info.default_device()] == [treadle.device("cpu")]
    assert info.default_dtypes()["integral"] is treadle.int64
    assert info.capabilities()["boolean indexing"]


def test_asarray_copies_when_asked_to() -> None:
    x = xp.asarray([1.0, 2.0])
    assert xp.asarray(x) is x
    assert xp.asarray(x, copy=True) is not x
    with pytest.raises(ValueError, match="got copy=False for a list"):
        xp.asarray([1], copy=False)
    with pytest.raises(TypeError, match="take its real or imag part first"):
        xp.astype(xp.asarray([1j]), xp.float32)


def test_estimators_of_scikit_learn_run_on_tensors() -> None:
    pytest.importorskip("sklearn")
    # SciPy reads the variable when it is imported.
    environment = {**os.environ, "SCIPY_ARRAY_API": "1", "PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("run_scikit_learn.py")
    subprocess.run([sys.executable, str(script)], env=environment, check=True)
