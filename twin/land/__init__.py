"""The embedded land model."""

from twin.land.daily import LandDaily

__all__ = ["LandDaily"]
