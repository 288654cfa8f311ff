"""Drought indices."""

from twin.indices.classes import area_fractions, drought_class, dsci

__all__ = ["area_fractions", "drought_class", "dsci"]
