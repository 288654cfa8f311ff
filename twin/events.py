"""What can happen: facts in the past tense, under stable type names, with ids derived from their content.

A type ends in its major version; a field is only ever added within one. `REPORTED` fields (clock times and what is
only known after the commit) are left out of the id, so that a replay of the same history repeats the same ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

REGION_PREPARED = "twin.region.prepared.v1"
OBSERVATIONS_INGESTED = "twin.observations.ingested.v1"
DROUGHT_UPDATED = "twin.drought.updated.v1"
ITEM_QUARANTINED = "twin.item.quarantined.v1"
ANALYSIS_COMPLETED = "twin.analysis.completed.v1"
ANALYSIS_REFUSED = "twin.analysis.refused.v1"
EMULATOR_PROMOTED = "twin.emulator.promoted.v1"
EMULATOR_REFUSED = "twin.emulator.refused.v1"
EMULATOR_ROLLED_BACK = "twin.emulator.rolledback.v1"
SCENARIO_COMPLETED = "twin.scenario.completed.v1"
OUTLOOK_ISSUED = "twin.outlook.issued.v1"
WARNING_RAISED = "twin.warning.raised.v1"
WARNING_UPDATED = "twin.warning.updated.v1"
WARNING_CANCELLED = "twin.warning.cancelled.v1"

TYPES = (
    REGION_PREPARED,
    OBSERVATIONS_INGESTED,
    DROUGHT_UPDATED,
    ITEM_QUARANTINED,
    ANALYSIS_COMPLETED,
    ANALYSIS_REFUSED,
    EMULATOR_PROMOTED,
    EMULATOR_REFUSED,
    EMULATOR_ROLLED_BACK,
    SCENARIO_COMPLETED,
    OUTLOOK_ISSUED,
    WARNING_RAISED,
    WARNING_UPDATED,
    WARNING_CANCELLED,
)
REPORTED = frozenset({"time", "latency", "snapshot", "item"})


def fact(kind: str, region: str, subject: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """A fact about `subject` in `region`, ready for a journal: type, id, region, subject, data."""
    if kind not in TYPES:
        raise ValueError(f"event type: expected one of {', '.join(TYPES)}, found {kind!r}")
    body = {"type": kind, "region": region, "subject": subject, "data": dict(data)}
    return {"id": identifier(body), **body}


def identifier(body: Mapping[str, Any]) -> str:
    """128 bits of the SHA-256 of a fact's canonical JSON, without its reported fields."""
    data = {name: value for name, value in body["data"].items() if name not in REPORTED}
    text = json.dumps({**body, "data": data}, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
