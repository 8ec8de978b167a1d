"""One sample of PyTorch's test tables, run by PyTorch and by Treadle, and what differed.

Imported by the processes of ``tools.sweep_torch`` only: it needs both frameworks, and the package
``expecttest``, which PyTorch's tables import.
"""

from __future__ import annotations

import functools
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.testing._internal.common_device_type import precisionOverride, tol, toleranceOverride
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import treadle

PASSED, FAILED, REFUSED = "passed", "failed", "refused"
KINDS = (torch.float32, torch.float64, torch.complex64, torch.complex128, torch.int64, torch.bool)

_NAMES = (
    "float64", "float32", "float16", "bfloat16", "complex128", "complex64", "int64", "int32",
    "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip
_DTYPES = {getattr(torch, name): getattr(treadle, name) for name in _NAMES}
_FORMATS = {
    getattr(torch, name): getattr(treadle, name)
    for name in ("preserve_format", "contiguous_format", "channels_last", "channels_last_3d")
}
# Their results are whatever the memory held.
_UNSET = {
    "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted",
    "resize_", "resize_as_",
}  # fmt: skip
# Differences allowed by default, as (absolute, relative); gradients get ten times as much.
_CLOSE = {
    torch.float64: tol(1e-7, 1e-7),
    torch.complex128: tol(1e-7, 1e-7),
    torch.float32: tol(1e-4, 1e-4),
    torch.complex64: tol(1e-4, 1e-4),
    torch.float16: tol(1e-2, 1e-2),
    torch.bfloat16: tol(2e-2, 2e-2),
}
# Equal elements: which of their indices comes is not said.
_ANY_INDEX = {"kthvalue", "mode", "median", "nanmedian", "topk"}
_EXACT = tol(0.0, 0.0)
_ROOTS = (torch, torch.Tensor)


class Outcome(NamedTuple):
    """What came of a sample: one of the three words, and why it is not ``passed``.

    ``forms`` says how many of the other spellings (method, in-place, ``out=``) were tried, and
    which were wrong.
    """

    verdict: str
    why: str = ""
    tried: int = 0
    wrong: tuple[str, ...] = ()


class Difference(Exception):
    """What Treadle gave that PyTorch did not."""


# --- from PyTorch's values to Treadle's -----------------------------------------------------------


class Converter:
    """Turns PyTorch's arguments into Treadle's; the same tensor stays the same tensor."""

    def __init__(self, keeps_views: bool = False) -> None:
        self._keeps_views = keeps_views  # of a part of the memory; only ``as_strided`` tells
        self._made: dict[int, treadle.Tensor] = {}
        self.pairs: list[tuple[torch.Tensor, treadle.Tensor]] = []

    def __call__(self, x: Any) -> Any:
        """The same for Treadle."""
        if isinstance(x, torch.Tensor):
            if id(x) not in self._made:
                self._made[id(x)] = self._tensor(x)
                self.pairs.append((x, self._made[id(x)]))
            return self._made[id(x)]
        if isinstance(x, torch.dtype):
            return _DTYPES[x]
        if isinstance(x, torch.memory_format):
            return _FORMATS[x]
        if isinstance(x, torch.layout):
            return treadle.strided
        if isinstance(x, torch.device):
            return treadle.device(str(x))
        if isinstance(x, torch.Generator):
            return treadle.Generator()
        if isinstance(x, torch.nn.TransformerEncoderLayer):
            return treadle.nn.TransformerEncoderLayer(
                x.self_attn.embed_dim, x.self_attn.num_heads, x.linear1.out_features, x.dropout.p,
                x.activation.__name__, batch_first=x.self_attn.batch_first,
                norm_first=x.norm_first, bias=x.linear1.bias is not None,
            )  # fmt: skip
        if isinstance(x, torch.nn.Module):
            return getattr(treadle.nn, type(x).__name__)()
        if isinstance(x, dict):
            return {k: self(v) for k, v in x.items()}
        if isinstance(x, torch.Size) or (isinstance(x, tuple) and type(x) is not tuple):
            return tuple(self(i) for i in x)
        if isinstance(x, (list, tuple)):
            return type(x)(self(i) for i in x)
        return x

    def _tensor(self, x: torch.Tensor) -> treadle.Tensor:
        if self._keeps_views:
            memory = array(torch.empty(0, dtype=x.dtype).set_(x.untyped_storage()))
            made = treadle.tensor(memory).as_strided(x.shape, x.stride(), x.storage_offset())
        else:
            made = treadle.tensor(array(x)).to(_DTYPES[x.dtype])
        return made.requires_grad_() if x.requires_grad else made


def array(x: torch.Tensor) -> np.ndarray:
    """A tensor's values; NumPy has no bfloat16, so that comes as float32."""
    x = x.detach().resolve_conj().resolve_neg()
    return np.array((x.float() if x.dtype is torch.bfloat16 else x).numpy(force=True))


def _leaves(x: Any, kind: type | tuple[type, ...]) -> list[Any]:
    """Everything of a type in a structure of lists, tuples and dictionaries."""
    if isinstance(x, kind):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [leaf for i in x for leaf in _leaves(i, kind)] if isinstance(x, (list, tuple)) else []


# --- comparing ------------------------------------------------------------------------------------


def _tolerance(info: Any, dtype: torch.dtype) -> tol:
    """The widest of PyTorch's own tolerances of an entry."""
    found = _EXACT
    for decorator in info.decorators:
        active = getattr(decorator, "active_if", True) and (
            getattr(decorator, "device_type", None) in (None, "cpu")
        )
        for part in getattr(decorator, "decorators", [decorator]):
            if active and isinstance(part, precisionOverride) and dtype in part.d:
                found = _wider(found, tol(part.d[dtype], 0.0))
            if active and isinstance(part, toleranceOverride) and dtype in part.d:
                found = _wider(found, part.d[dtype])
    return found


def _wider(a: tol, b: tol) -> tol:
    return tol(max(a.atol, b.atol), max(a.rtol, b.rtol))


def compare(expected: Any, got: Any, allowed: tol | None, times: float = 1.0,
            any_index: bool = False) -> None:  # fmt: skip
    """Raises ``Difference`` where two results differ; with None values may.

    Allowed is the wider of ``allowed`` and what the dtype's precision asks for, ``times`` over.
    With ``any_index`` integers may differ too.
    """
    numbers = (bool, int, float, complex)
    ours = _leaves(got, (treadle.Tensor, *numbers))
    theirs = _leaves(expected, (torch.Tensor, *numbers))
    if len(theirs) != len(ours):
        raise Difference(f"{len(ours)} results, not {len(theirs)}")
    for x, y in zip(theirs, ours, strict=True):
        if isinstance(x, torch.Tensor):
            close = None
            if allowed is not None and not (any_index and x.dtype is torch.int64):
                wide = _wider(_CLOSE.get(x.dtype, _EXACT), allowed)
                close = tol(wide.atol * times, wide.rtol * times)
            _compare_tensors(x, y, close)
        elif isinstance(y, treadle.Tensor):
            raise Difference("a tensor, not a number")
        elif allowed is not None and not np.isclose(y, x, *_CLOSE[torch.float32], True):
            raise Difference(f"the number {y}, not {x}")


def _compare_tensors(x: torch.Tensor, y: Any, allowed: tol | None) -> None:
    if not isinstance(y, treadle.Tensor):
        raise Difference(f"the number {y}, not a tensor")
    if tuple(x.shape) != tuple(y.shape):
        raise Difference(f"shape {tuple(y.shape)}, not {tuple(x.shape)}")
    if _DTYPES.get(x.dtype) is not y.dtype:
        raise Difference(f"{y.dtype}, not {x.dtype}")
    if allowed is None:
        return
    a, b = array(x), (y.float() if x.dtype is torch.bfloat16 else y).numpy(force=True)
    with np.errstate(all="ignore"):
        if not np.allclose(b, a, rtol=allowed.rtol, atol=allowed.atol, equal_nan=True):
            wide = complex if np.iscomplexobj(a) else float
            worst = np.nanmax(np.abs(a.astype(wide) - b)) if a.size else 0
            raise Difference(f"values differ by up to {worst:.3g}")


def _process(function: Callable[[Any], Any], expected: Any, got: Any) -> tuple[Any, Any]:
    """What a sample says its result is to be reduced to before it is compared."""
    try:
        return function(expected), function(got)
    except Exception:  # the function calls PyTorch's functions, which know no other tensors
        return expected, got


def _gradients(converter: Converter, expected: Any, got: Any, allowed: tol | None) -> None:
    """Compares the gradients of all inputs, for one set of cotangents."""
    inputs = [(x, y) for x, y in converter.pairs if x.requires_grad]
    outputs = list(zip(_leaves(expected, torch.Tensor), _leaves(got, treadle.Tensor), strict=True))
    outputs = [(x, y) for x, y in outputs if x.requires_grad]
    if not inputs or not outputs:
        return
    draws = np.random.default_rng(0)
    cotangents = [torch.from_numpy(np.asarray(draws.normal(size=x.shape))) for x, _ in outputs]
    for i, (x, _) in enumerate(outputs):
        if x.is_complex():
            cotangents[i] = torch.complex(cotangents[i], cotangents[i].flip(-1) if x.dim() else
                                          cotangents[i])  # fmt: skip
        cotangents[i] = cotangents[i].to(x.dtype)
    try:
        theirs = torch.autograd.grad(
            [x for x, _ in outputs], [x for x, _ in inputs], cotangents, allow_unused=True
        )
    except NotImplementedError:  # PyTorch has no derivative
        return
    some = [(y, converter(c)) for (_, y), c in zip(outputs, cotangents, strict=True)
            if y.requires_grad]  # fmt: skip
    ours = [None] * len(inputs) if not some else treadle.autograd.grad(
        [y for y, _ in some], [y for _, y in inputs], [c for _, c in some], allow_unused=True
    )  # fmt: skip
    for (x, _), a, b in zip(inputs, theirs, ours, strict=True):
        a = torch.zeros_like(x) if a is None else a.to_dense()
        b = treadle.zeros(tuple(x.shape), dtype=_DTYPES[x.dtype]) if b is None else b
        try:
            compare(a, b, allowed, times=10)
        except Difference as difference:
            raise Difference(f"gradient: {difference}") from None


def _refusal(error: Exception) -> bool:
    """Whether Treadle said that it does not do this, rather than breaking."""
    return isinstance(error, (treadle.base.errors.TreadleError, TypeError, NotImplementedError))


# --- entries of op_db -----------------------------------------------------------------------------


def _resolve(root: Any, name: str) -> Any:
    for part in name.split("."):
        root = getattr(root, part, None)
    return root


def is_documented(name: str) -> bool:
    """Whether an entry is of PyTorch's public, documented surface for dense tensors.

    That is: no part of the name begins with an underscore, it is not in the namespaces of sparse
    tensors, and the name is a function or method of PyTorch that has a docstring.
    """
    parts = name.split(".")
    if any(part.startswith("_") for part in parts) or parts[0] in ("sparse", "ops", "torch"):
        return False
    if "sparse" in name:
        return False
    found = [_resolve(root, n) for root in _ROOTS for n in (name, f"{name}_")]
    return any(x is not None and (x.__doc__ or "").strip() for x in found)


def _without_seed(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """In place of PyTorch's ``wrapper_set_seed``."""
    return function(*args, **kwargs)


def _for(framework: Any, op: Any) -> Callable | None:
    """A lambda of PyTorch's table that calls a framework; None where it is no lambda."""
    if not isinstance(op, types.FunctionType) or "testing" not in op.__module__:
        return None
    names = {**op.__globals__, "torch": framework, "wrapper_set_seed": _without_seed}
    for name in op.__code__.co_names:
        if name.startswith("gradcheck_wrapper_"):
            names[name] = _for(framework, op.__globals__[name])
    made = types.FunctionType(op.__code__, names, op.__name__, op.__defaults__)
    made.__kwdefaults__ = op.__kwdefaults__
    return made


def _skips_gradients(info: Any) -> bool:
    """Whether PyTorch leaves out its own test of an entry's gradients, which are then not exact."""
    return any(
        x.cls_name == "TestBwdGradients" and x.test_name in (None, "test_fn_grad")
        and x.device_type in (None, "cpu") and x.dtypes is None and x.active_if
        for x in info.skips if hasattr(x, "cls_name")
    )  # fmt: skip


class Entry:
    """An entry of ``op_db``, and the function of Treadle that does the same."""

    def __init__(self, info: Any) -> None:
        self.info = info
        variant = info.variant_test_name
        self.name = f"{info.name}.{variant}" if variant else info.name
        self.is_documented = is_documented(info.name)
        self.theirs = _for(torch, info.op) or info.op
        self.is_seeded = self.theirs is not info.op
        self.has_sure_gradients = not _skips_gradients(info)
        wrapper = info.gradcheck_wrapper
        is_plain = wrapper.__name__ == "<lambda>" and wrapper.__module__.endswith("opinfo.core")
        self.wrappers = () if is_plain or "masked" in wrapper.__name__ else tuple(
            _for(framework, wrapper) for framework in (torch, treadle)
        )  # fmt: skip
        self.function = self._find()

    def _find(self) -> Callable | None:
        """Treadle's function; where the entry is a lambda, that with Treadle for PyTorch."""
        name = self.info.name
        found = _resolve(treadle, name)
        method = getattr(treadle.Tensor, name, getattr(treadle.Tensor, f"{name}_", None))
        if found is None and method is None:
            return None
        if made := _for(treadle, self.info.op):
            return made
        return found if callable(found) and not isinstance(found, type) else method

    def dtypes(self) -> list[torch.dtype]:
        """The dtypes to run it in."""
        supported = self.info.supported_dtypes("cpu")
        return [d for d in KINDS if d in supported]

    def samples(self, dtype: torch.dtype) -> Iterator[Any]:
        """PyTorch's sample inputs."""
        differentiable = (
            (dtype.is_floating_point or dtype.is_complex)
            and self.info.supports_autograd
            and dtype in self.info.supported_backward_dtypes("cpu")
        )
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - PyTorch's samples draw from it
        yield from self.info.sample_inputs("cpu", dtype, requires_grad=differentiable)

    def run(self, sample: Any, dtype: torch.dtype) -> Outcome | None:
        """Runs a sample in both; None where PyTorch itself does not take it."""
        try:
            expected = self.theirs(sample.input, *sample.args, **sample.kwargs)
            if expected is sample.input:  # written in place
                expected = expected.clone()
            is_fixed = self.info.name not in _UNSET and all(
                _same(expected, self.theirs(sample.input, *sample.args, **sample.kwargs))
                for _ in range(16 if self.is_seeded else 1)
            )
        except Exception:
            return None
        allowed = _tolerance(self.info, dtype) if is_fixed else None
        converter = Converter(self.info.name == "as_strided")
        try:
            args, kwargs = converter((sample.input, *sample.args)), converter(sample.kwargs)
            got = self.function(*args, **kwargs)
            expected, got = _process(sample.output_process_fn_grad, expected, got)
            compare(expected, got, allowed, any_index=self.info.name in _ANY_INDEX)
            if self.has_sure_gradients:
                if self.wrappers:  # the same function of inputs made fit, say symmetric
                    theirs, ours = self.wrappers
                    expected = theirs(self.theirs, sample.input, *sample.args, **sample.kwargs)
                    got = ours(self.function, *args, **kwargs)
                    expected, got = _process(sample.output_process_fn_grad, expected, got)
                _gradients(converter, expected, got, allowed)
        except Exception as error:
            verdict = REFUSED if _refusal(error) else FAILED
            return Outcome(verdict, f"{_told(error)} | {describe(sample)}")
        forms = list(self._forms(sample, allowed))
        wrong = tuple(f"{form}: {why}" for form, why in forms if why)
        return Outcome(PASSED, "", len(forms), wrong)

    def _forms(self, sample: Any, allowed: tol | None) -> Iterator[tuple[str, str]]:
        """The other spellings of the same, and what is wrong with each."""
        info = self.info
        for form, function in (("method", info.method_variant), ("in-place", info.inplace_variant)):
            if function is None or not isinstance(sample.input, torch.Tensor):
                continue
            ours = self._ours(function)
            try:
                with torch.no_grad():
                    expected = function(sample.input.detach().clone(), *sample.args,
                                        **sample.kwargs)  # fmt: skip
            except Exception:
                continue
            yield form, self._form(ours, sample, expected, allowed)
        if info.supports_out:
            with torch.no_grad():
                expected = self.theirs(sample.input, *sample.args, **sample.kwargs)
            if isinstance(expected, torch.Tensor):
                yield "out", self._out(sample, expected, allowed)

    def _ours(self, function: Any) -> Callable:
        """What in Treadle is the same as a method, a lambda or a partial function of PyTorch's."""
        if made := _for(treadle, function):
            return made
        if isinstance(function, functools.partial):
            return functools.partial(self.function, **function.keywords)
        name = function.__name__
        return lambda input, *args, **kwargs: getattr(input, name)(*args, **kwargs)

    def _form(self, ours: Callable, sample: Any, expected: Any, allowed: tol | None) -> str:
        convert = Converter()
        with treadle.no_grad():
            try:
                target = convert(sample.input).detach().clone()
                args, kwargs = convert(sample.args), convert(sample.kwargs)
                got = ours(target, *args, **kwargs)
                compare(*_process(sample.output_process_fn_grad, expected, got), allowed,
                        any_index=self.info.name in _ANY_INDEX)  # fmt: skip
            except Exception as error:
                return f"{_told(error)} | {describe(sample)}"
        return ""

    def _out(self, sample: Any, expected: torch.Tensor, allowed: tol | None) -> str:
        convert = Converter()
        with treadle.no_grad():
            try:
                out = treadle.empty(tuple(expected.shape), dtype=_DTYPES[expected.dtype])
                args = convert((sample.input, *sample.args))
                got = self.function(*args, **convert(sample.kwargs), out=out)
                if got is not out:
                    raise Difference("the result is not out")
                compare(*_process(sample.output_process_fn_grad, expected, out), allowed)
            except Exception as error:
                return f"{_told(error)} | {describe(sample)}"
        return ""

    def mistakes(self) -> Iterator[Any]:
        """The inputs that PyTorch says it refuses."""
        if self.info.error_inputs_func is not None:
            yield from self.info.error_inputs("cpu")

    def refuses(self, mistake: Any) -> Outcome | None:
        """Whether such an input raises here too; None where PyTorch takes it on the CPU."""
        sample = mistake.sample_input
        try:
            self.theirs(sample.input, *sample.args, **sample.kwargs)
        except Exception as error:
            wanted = str(error).split("\n")[0][:160]
        else:
            return None
        try:
            convert = Converter()
            args = convert((sample.input, *sample.args))
            got = self.function(*args, **convert(sample.kwargs))
            for leaf in _leaves(got, treadle.Tensor):
                leaf.numpy(force=True)
        except KeyError as error:
            if not isinstance(error.args[0], (torch.dtype, torch.memory_format)):
                return Outcome(FAILED, f"{_told(error)} | {describe(sample)}")
            return None  # made of what Treadle has no name for
        except Exception as error:
            if not isinstance(error, (treadle.base.errors.TreadleError, TypeError, ValueError,
                                      RuntimeError, IndexError, NotImplementedError)):  # fmt: skip
                return Outcome(FAILED, f"{_told(error)} | {describe(sample)}")
            return Outcome(PASSED)
        return Outcome(FAILED, f"taken, where PyTorch says: {wanted} | {describe(sample)}")


def _same(a: Any, b: Any) -> bool:
    """Whether PyTorch gave the same result twice."""
    x, y = _leaves(a, torch.Tensor), _leaves(b, torch.Tensor)
    return len(x) == len(y) and all(
        p.shape == q.shape and np.array_equal(array(p), array(q), p.dtype not in (torch.bool,))
        for p, q in zip(x, y, strict=True)
    )


def _told(error: Exception) -> str:
    """An error in one line."""
    kind = "" if isinstance(error, Difference) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())[:220]}"


def describe(sample: Any) -> str:
    """A sample's arguments in short."""

    def short(x: Any) -> str:
        if isinstance(x, torch.Tensor):
            return f"{str(x.dtype)[6:]}{list(x.shape)}"
        if isinstance(x, (list, tuple)):
            return f"({', '.join(map(short, x))})"
        if isinstance(x, dict):
            return f"{{{', '.join(f'{k}={short(v)}' for k, v in x.items())}}}"
        return repr(x)

    return " ".join(map(short, (sample.input, sample.args, sample.kwargs)))[:240]


# --- entries of module_db -------------------------------------------------------------------------


class ModuleEntry:
    """An entry of ``module_db``, and the class of Treadle of the same name."""

    def __init__(self, info: Any) -> None:
        self.info = info
        self.name = info.name
        self.is_documented = True
        self.function = getattr(treadle.nn, info.module_cls.__name__, None)

    def dtypes(self) -> list[torch.dtype]:
        """The dtypes to run it in."""
        return [d for d in KINDS if d in self.info.dtypes]

    def samples(self, dtype: torch.dtype) -> Iterator[Any]:
        """PyTorch's constructors and inputs, in training and in evaluation."""
        is_inexact = dtype.is_floating_point or dtype.is_complex
        for training in (True, False):
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002 - PyTorch's samples draw from it
            for made in self.info.module_inputs_func(
                self.info, device="cpu", dtype=dtype, requires_grad=is_inexact, training=training
            ):
                if made.forward_input is not None:
                    yield training, made

    def run(self, sample: Any, dtype: torch.dtype) -> Outcome | None:
        """Builds the module in both with the same state and compares what it does."""
        training, made = sample
        built, given = made.constructor_input, made.forward_input
        told = f"{_arguments(built)} on {_arguments(given)}, {'train' if training else 'eval'}"
        try:
            theirs = self.info.module_cls(*built.args, **built.kwargs).to(dtype).train(training)
            is_lazy = any(map(torch.nn.parameter.is_lazy, theirs.parameters()))
            if is_lazy:
                theirs(*given.args, **given.kwargs)
            before = {name: value.clone() for name, value in theirs.state_dict().items()}
            first = theirs(*given.args, **given.kwargs)
            theirs.load_state_dict(before)
            expected = theirs(*given.args, **given.kwargs)
            allowed = _tolerance(self.info, dtype) if _same(first, expected) else None
        except Exception:
            return None
        convert = Converter()
        try:
            settings = {k: v for k, v in built.kwargs.items() if k not in ("device", "dtype")}
            ours = self.function(*convert(built.args), **convert(settings))
            ours = ours.to(_DTYPES[dtype]).train(training)
            if is_lazy:
                ours(*convert(given.args), **convert(given.kwargs))
            ours.load_state_dict(convert(before))
            got = ours(*convert(given.args), **convert(given.kwargs))
            compare(expected, got, allowed)
            parameters = dict(ours.named_parameters())
            for name, parameter in theirs.named_parameters():
                convert.pairs.append((parameter, parameters[name]))
            _gradients(convert, expected, got, allowed)
            compare(list(theirs.buffers()), list(ours.buffers()), allowed)
        except Exception as error:
            return Outcome(REFUSED if _refusal(error) else FAILED, f"{_told(error)} | {told}")
        return Outcome(PASSED)

    def mistakes(self) -> Iterator[Any]:
        """What PyTorch says the module refuses, when built or when called."""
        if self.info.module_error_inputs_func is not None:
            yield from self.info.module_error_inputs_func(
                self.info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
            )

    def refuses(self, mistake: Any) -> Outcome | None:
        """Whether that raises here too."""
        built = mistake.module_error_input.constructor_input
        given = mistake.module_error_input.forward_input
        told = f"{_arguments(built)}, {_arguments(given) if given else ''}"
        convert = Converter()
        try:
            settings = {k: v for k, v in built.kwargs.items() if k not in ("device", "dtype")}
            module = self.function(*convert(built.args), **convert(settings))
            if given is not None:
                module(*convert(given.args), **convert(given.kwargs))
        except (treadle.base.errors.TreadleError, TypeError, ValueError, RuntimeError, IndexError,
                NotImplementedError):  # fmt: skip
            return Outcome(PASSED)
        except Exception as error:
            return Outcome(FAILED, f"{_told(error)} | {told}")
        return Outcome(FAILED, f"taken | {told}")


def _arguments(given: Any) -> str:
    return describe(types.SimpleNamespace(input=(), args=given.args, kwargs=given.kwargs))


def entries() -> dict[str, Entry | ModuleEntry]:
    """Every entry of both tables, by a name of its own."""
    warnings.filterwarnings("ignore")
    made: list[Entry | ModuleEntry] = [*map(Entry, op_db), *map(ModuleEntry, module_db)]
    return {f"{type(x).__name__}:{x.name}": x for x in made}
