"""The Python array API standard, 2024.12, with tensors as arrays.

Names, signatures and promotion are the standard's (0-d arrays count like others); what the standard
leaves open is as in Treadle. Operators and methods of tensors keep PyTorch's rules.
"""

from __future__ import annotations

from treadle.interop.array_api import arranging, creating, elementwise, fft, linalg, reducing
from treadle.interop.array_api.arranging import *  # noqa: F403
from treadle.interop.array_api.creating import *  # noqa: F403
from treadle.interop.array_api.elementwise import *  # noqa: F403
from treadle.interop.array_api.linalg import matmul, tensordot, vecdot
from treadle.interop.array_api.reducing import *  # noqa: F403

__array_api_version__ = "2024.12"

__all__ = [
    "__array_api_version__", "fft", "linalg", "matmul", "tensordot", "vecdot", *arranging.__all__,
    *creating.__all__, *elementwise.__all__, *reducing.__all__,
]  # fmt: skip
