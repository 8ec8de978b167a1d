"""Programs on which tracing compilers go wrong; see ``scenario`` for what each is."""

from treadle.testing.scenarios import entries, trainings, values
from treadle.testing.scenarios.scenario import PERIOD, SCENARIOS, Scenario, steps_of

__all__ = ["PERIOD", "SCENARIOS", "Scenario", "entries", "steps_of", "trainings", "values"]
