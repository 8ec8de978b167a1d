"""Special functions that are only here and that NumPy computes on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import dtypes
from treadle.ops import host_elementwise as host
from treadle.tensor import arithmetic as a
from treadle.tensor.further import of_two

if TYPE_CHECKING:
    from treadle.tensor.tensor import Tensor

zeta = of_two(host.zeta)


def _of_one(op: Any) -> Any:
    def function(input: Tensor) -> Tensor:
        real = input if input.dtype.is_floating_point else input.to(dtypes.get_default_dtype())
        return a.unary(op, real)

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, elementwise."
    return function


airy_ai, spherical_bessel_j0 = map(_of_one, (host.airy_ai, host.spherical_bessel_j0))

__all__ = ["airy_ai", "spherical_bessel_j0", "zeta"]
