"""Error classes. Every text says what was received, what was expected and how to mend it."""

from __future__ import annotations


class TreadleError(Exception):
    """Base of the errors that are Treadle's own (not a built-in kind such as ValueError)."""


class ShapeError(TreadleError, ValueError, RuntimeError):
    """Shapes do not fit. A ValueError by nature and a RuntimeError because PyTorch raises that."""


class DTypeError(TreadleError, TypeError, RuntimeError):
    """A dtype that the operation does not take."""


class GradientError(TreadleError, RuntimeError):
    """A gradient was asked of something that has none, or a graph was walked twice."""


class IndexRangeError(TreadleError, IndexError, RuntimeError):
    """An index lies outside its axis."""


class EvaluationError(TreadleError, RuntimeError):
    """A recorded operation failed when it ran; the line is the one that recorded it."""


class DeviceError(TreadleError, RuntimeError):
    """A device that is not there."""


class CompileError(TreadleError, RuntimeError):
    """Generated code did not compile: a defect of Treadle, told with what reproduces it."""


class MissingExtraError(TreadleError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed; "
            f"install it with: pip install 'treadle[{extra}]'"
        )


class LinAlgError(TreadleError, RuntimeError):
    """A matrix for which linear algebra has no answer: singular, not positive definite ..."""
