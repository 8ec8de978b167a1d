"""The ground floor: dtypes, shapes, device names, flags and errors. Imports no other room."""

import time

STARTED = time.time()  # before any other source of Treadle is read, but ``treadle/__init__.py``
