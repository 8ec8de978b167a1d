"""Anomaly detection: which operation's gradient has a NaN, and on which line it was recorded."""

from __future__ import annotations

from types import TracebackType

from treadle.autodiff.reverse import Anomaly
from treadle.base.errors import GradientError
from treadle.base.lazy_numpy import np
from treadle.ir.node import Node, describe_site, located
from treadle.tensor.storage import array_of


def _check(n: Node, position: int, adjoint: Node) -> None:
    """Computes an adjoint at once, and looks at it."""
    if not np.isnan(array_of(adjoint)).any():
        return
    name = getattr(getattr(n, "call", None), "name", n.op.name)  # a Function's own
    raise located(GradientError(
        f"detect_anomaly: the gradient of {name} by its operand {position}, of shape "
        f"{adjoint.shape}, has NaN where what reached it has none; it was recorded at "
        f"{describe_site(n.site)}; look for 0/0, inf - inf, sqrt or log at 0 there"
    ))  # fmt: skip


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on."""
    return Anomaly.enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether gradients are looked at for NaN."""
    return Anomaly.check is not None


class set_detect_anomaly:
    """Switches anomaly detection at once, and back at the end of a ``with`` block."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.before = Anomaly.enabled, Anomaly.check
        Anomaly.enabled = bool(mode)
        Anomaly.check = _check if mode and check_nan else None

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        Anomaly.enabled, Anomaly.check = self.before


class detect_anomaly(set_detect_anomaly):
    """Makes backward passes raise at the first gradient with a NaN, naming the forward line.

    Every gradient is computed as soon as it is recorded, which is slow: for looking, not for
    training.

    >>> import treadle
    >>> x = treadle.zeros(1, requires_grad=True)
    >>> with detect_anomaly():
    ...     (x.sqrt() * 0).sum().backward()
    Traceback (most recent call last):
    ...
    treadle.base.errors.GradientError: detect_anomaly: the gradient of sqrt by its operand 0...
    """

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)


__all__ = [
    "detect_anomaly", "is_anomaly_check_nan_enabled", "is_anomaly_enabled", "set_detect_anomaly",
]  # fmt: skip
