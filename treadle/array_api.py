"""The Python array API standard, 2024.12: ``import treadle.array_api as xp``.

>>> import treadle.array_api as xp
>>> xp.unique_counts(xp.asarray([3, 1, 3]))
UniqueCounts(values=tensor([1, 3]), counts=tensor([1, 2]))
"""

from treadle.interop.array_api import *  # noqa: F403
from treadle.interop.array_api import __all__ as __all__
