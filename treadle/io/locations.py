"""``map_location``: where the tensors of a file go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.base.errors import DeviceError
from treadle.ir.node import located
from treadle.tensor.tensor import check_device

Locate = Callable[[Any, str], None]


def locator(map_location: Any) -> Locate:
    """Checks, given a storage and the device it was saved on, that the device it goes to is there.

    ``map_location`` is a device, a dict from devices to devices, or a function of a storage and a
    device that gives a device, the storage itself (for the CPU) or None (for where it was).
    Raises DeviceError for a device that is not there.
    """

    def locate(storage: Any, location: str) -> None:
        target = map_location
        if callable(map_location):
            target = map_location(storage, location)
            target = "cpu" if target is storage else target
        elif isinstance(map_location, dict):
            target = map_location.get(location)
        if target is not None:
            check_device(target)
        elif location != "cpu":
            raise located(DeviceError(
                f"load: a tensor was saved on {location!r}, which is not there; load it with "
                f"map_location='cpu'"
            ))  # fmt: skip

    if isinstance(map_location, dict):
        for target in map_location.values():
            check_device(target)
    elif map_location is not None and not callable(map_location):
        check_device(map_location)
    return locate
