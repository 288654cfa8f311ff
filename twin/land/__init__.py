"""The embedded land model, two tiers: Land with an energy balance, LandDaily with a day's water balance."""

from twin.land.daily import LandDaily
from twin.land.model import Land

__all__ = ["Land", "LandDaily"]
