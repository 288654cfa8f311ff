"""Drought indices: functions of (time, cell), all with the same arguments for the same things.

rain            spi · rain_metrics · dry_days, dry_spells · season_by_anomaly, season_by_rain
rain less PET   water_balance, spei
soil moisture   ssmi · soil_moisture_percentile · smi, availability · wrsi, wrsi_fao · wet_season
a percentile    drought_class · class_probabilities, probability_from_spread, at_least · area_fractions, dsci
together        cdi (rain, soil, plants) · seasons (three methods) · drought_events, flash_drought, return periods
"""

from twin.indices.classes import (
    area_fractions,
    at_least,
    class_probabilities,
    drought_class,
    dsci,
    printed_class,
    probability_from_spread,
)
from twin.indices.combined import cdi, dekadal, dekads
from twin.indices.events import (
    annual_return_period,
    drought_events,
    event_area,
    flash_drought,
    joint_return_period,
    return_period,
)
from twin.indices.moisture import percentile_interval, smi, soil_moisture_percentile, wrsi, wrsi_fao
from twin.indices.rains import rain_regime, season_by_anomaly, season_by_rain, seasons
from twin.indices.season import onset_probability, season_dates, wet_season
from twin.indices.spells import availability, dry_days, dry_spells, rain_metrics
from twin.indices.standardised import accumulate, calibrate, spei, spi, ssmi, standard_class, standardise, water_balance
from twin.indices.units import rain_amounts
from twin.indices.years import calendar

__all__ = [
    "accumulate",
    "annual_return_period",
    "area_fractions",
    "at_least",
    "availability",
    "calendar",
    "calibrate",
    "cdi",
    "class_probabilities",
    "dekadal",
    "dekads",
    "drought_class",
    "drought_events",
    "dry_days",
    "dry_spells",
    "dsci",
    "event_area",
    "flash_drought",
    "joint_return_period",
    "onset_probability",
    "percentile_interval",
    "printed_class",
    "probability_from_spread",
    "rain_amounts",
    "rain_metrics",
    "rain_regime",
    "return_period",
    "season_by_anomaly",
    "season_by_rain",
    "season_dates",
    "seasons",
    "smi",
    "soil_moisture_percentile",
    "spei",
    "spi",
    "ssmi",
    "standard_class",
    "standardise",
    "water_balance",
    "wet_season",
    "wrsi",
    "wrsi_fao",
]
