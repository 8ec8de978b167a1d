"""Programs on which tracing compilers go wrong; see ``scenario`` for what each is."""

from treadle.testing.scenarios import entries, trainings, values
from treadle.testing.scenarios.scenario import (
    HUGE,
    PERIOD,
    SCENARIOS,
    Scenario,
    steps_of,
    treadle,
)

__all__ = [
    "HUGE", "PERIOD", "SCENARIOS", "Scenario", "entries", "steps_of", "trainings", "treadle",
    "values",
]  # fmt: skip
