"""The one registry of flags; no other code of Treadle reads the environment.

A flag has a name, a type, a default, a help line and the environment variable ``TREADLE_<NAME>``,
read once when this module is imported. Reading a flag is reading an attribute; setting one checks
the value:

>>> from treadle.base.flags import flags
>>> with flags.context(num_threads=1):
...     flags.NUM_THREADS
1

Flags hold for the whole process, all threads included.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from treadle.base.record import Record

PREFIX = "TREADLE_"
DEBUG_TOPICS = ("graph", "passes", "source", "asm", "time", "explain")


class Flag(Record):
    """One flag: ``parse`` turns text or a value into the flag's type or raises ValueError."""

    name: str
    parse: Callable[[Any], Any]
    expected: str
    default: Any
    help: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name


def _integer(
    low: int, choices: tuple[int, ...] = (), high: float = math.inf
) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, float):
            raise ValueError
        number = int(value)
        if not low <= number <= high or (choices and number not in choices):
            raise ValueError
        return number

    return parse


def _boolean(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True,
             "0": False, "false": False, "no": False, "off": False}  # fmt: skip
    text = str(value).strip().lower()
    if text not in words:
        raise ValueError
    return words[text]


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        word = str(value).strip().lower()
        if word not in words:
            raise ValueError
        return word

    return parse


def _path(value: Any) -> str:
    text = os.fspath(value)
    if not isinstance(text, str) or not text:
        raise ValueError
    return os.path.abspath(os.path.expanduser(text))


def _topics(value: Any) -> frozenset[str]:
    items = value.split(",") if isinstance(value, str) else list(value)
    topics = frozenset(item.strip() for item in items if item.strip())
    if not topics <= set(DEBUG_TOPICS):
        raise ValueError
    return topics


_UNITS = {"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def _bytes(value: Any) -> int:
    """A number of bytes, or a text such as 500M or 1.5GiB (of 1024 each)."""
    text = str(value).strip().upper()
    number = text.rstrip("BIKMGT")
    unit = text[len(number) :].removesuffix("B").removesuffix("I")
    count = int(float(number) * (1 << _UNITS[unit])) if unit in _UNITS else -1
    if count < 0 or isinstance(value, float):
        raise ValueError
    return count


def _default_cache_dir() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return _path(os.path.join(base, "treadle"))


_FLAGS = {
    flag.name: flag
    for flag in (
        Flag("CACHE_DIR", _path, "a folder", _default_cache_dir(),
             "where compiled kernels are kept between runs"),
        Flag("CACHE_LIMIT_MB", _integer(0), "a whole number of megabytes, 0 or more", 1024,
             "bound of the kernel cache on disk; 0 turns it off"),
        Flag("KEEP_PROGRAMS", _boolean, "one of 1, 0, true, false, yes, no, on, off", True,
             "keep fused programs beside the kernels, for the next process"),
        Flag("NUM_THREADS", _integer(0, high=4096), "a whole number from 0 to 4096", 0,
             "threads of CPU kernels; 0 takes the cores this process may use"),
        Flag("DEBUG", _topics, "a comma list out of " + ",".join(DEBUG_TOPICS), frozenset(),
             "artefacts to print to stderr"),
        Flag("VECTOR_BITS", _integer(0, (0, 128, 256, 512)), "one of 0, 128, 256, 512", 0,
             "width of vectors in CPU kernels; 0 takes what the CPU has"),
        Flag("TUNE", _boolean, "one of 1, 0, true, false, yes, no, on, off", False,
             "measure the best few ways of every matrix product and remember the winners"),
        Flag("HUGE_PAGES", _boolean, "one of 1, 0, true, false, yes, no, on, off", True,
             "ask the system for huge pages behind large blocks of memory"),
        Flag("PENDING_NODES", _integer(1), "a whole number, 1 or more", 16384,
             "recorded operations after which evaluation starts by itself"),
        Flag("PENDING_BYTES", _integer(1), "a whole number of bytes, 1 or more", 1 << 34,
             "bytes of pending results after which evaluation starts by itself; data that comes "
             "from outside counts 16 times"),
        Flag("MEMORY_LIMIT", _bytes, "a number of bytes, as 500M or 1.5GiB, or 0", 0,
             "what tensors may take together; 0 takes what the machine has"),
        Flag("PROGRAMS", _one_of("beside", "wait", "off"), "one of beside, wait, off", "beside",
             "compile what repeats to fused programs beside the run, or make it wait for them; "
             "the results are the same"),
        Flag("CHECK", _one_of("off", "shadow"), "off or shadow", "off",
             "shadow: run every program again op by op and compare the bits"),
    )
}  # fmt: skip


def _parsed(flag: Flag, value: Any, source: str) -> Any:
    try:
        return flag.parse(value)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{source} is {value!r}; expected {flag.expected}") from None


class Flags:
    """The values of all flags, as attributes.

    Reading or setting an unknown name raises AttributeError, setting a value that does not parse
    ValueError.
    """

    CACHE_DIR: str
    CACHE_LIMIT_MB: int
    KEEP_PROGRAMS: bool
    NUM_THREADS: int
    DEBUG: frozenset[str]
    VECTOR_BITS: int
    TUNE: bool
    HUGE_PAGES: bool
    PENDING_NODES: int
    PENDING_BYTES: int
    MEMORY_LIMIT: int
    PROGRAMS: str
    CHECK: str

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Reads ``environ``; warns of a name that starts with ``TREADLE_`` and is no flag."""
        for flag in _FLAGS.values():
            text = environ.get(flag.variable)
            value = flag.default
            if text:  # set to nothing is as good as not set
                value = _parsed(flag, text, f"the environment variable {flag.variable}")
            self.__dict__[flag.name] = value
        for variable in environ:
            if variable.startswith(PREFIX) and variable[len(PREFIX) :] not in _FLAGS:
                warnings.warn(
                    f"the environment variable {variable} is ignored: no such flag; the flags are "
                    f"{', '.join(flag.variable for flag in _FLAGS.values())}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def __getattr__(self, name: str) -> NoReturn:
        """Told only where there is no such attribute."""
        import difflib

        close = difflib.get_close_matches(name.upper(), _FLAGS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise AttributeError(f"there is no flag {name!r}; {hint}the flags are {', '.join(_FLAGS)}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _FLAGS:
            self.__getattr__(name)
        self.__dict__[name] = _parsed(_FLAGS[name], value, f"the flag {name}")

    @contextmanager
    def context(self, **values: Any) -> Iterator[None]:
        """Sets flags inside a ``with`` block and puts the earlier values back.

        >>> with flags.context(debug="graph,time"):
        ...     sorted(flags.DEBUG)
        ['graph', 'time']
        """
        names = {name.upper(): value for name, value in values.items()}
        before = {name: getattr(self, name) for name in names}
        try:
            for name, value in names.items():
                setattr(self, name, value)
            yield
        finally:
            self.__dict__.update(before)

    def table(self) -> list[dict[str, Any]]:
        """One row per flag for documentation: name, variable, value, default, expected, help."""
        return [
            {
                "name": flag.name,
                "variable": flag.variable,
                "value": getattr(self, flag.name),
                "default": flag.default,
                "expected": flag.expected,
                "help": flag.help,
            }
            for flag in _FLAGS.values()
        ]


flags = Flags(os.environ)
