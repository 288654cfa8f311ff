"""Drought indices."""

from twin.indices.classes import area_fractions, drought_class, dsci
from twin.indices.season import season_dates, wet_season
from twin.indices.spells import availability, dry_days, dry_spells
from twin.indices.years import calendar

__all__ = [
    "area_fractions",
    "availability",
    "calendar",
    "drought_class",
    "dry_days",
    "dry_spells",
    "dsci",
    "season_dates",
    "wet_season",
]
