"""The household world: search a house, treat what you find, and put it where it belongs. Pure Python."""

from spark_rl.environments.household.engine import HouseholdEnvironment
from spark_rl.environments.household.expert import Expert
from spark_rl.environments.household.world import Household

__all__ = ["Expert", "Household", "HouseholdEnvironment"]
