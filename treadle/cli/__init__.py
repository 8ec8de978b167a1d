"""The ``treadle`` command."""
