"""Warnings as Common Alerting Protocol 1.2, for whoever passes alerts on, and as the data of our own events.

    Transition (what changed) ┐
    Issue (who says it, when) ┼─document─▸ <alert> … </alert>, UTF-8
    Area (where)              ┘

What the protocol asks in words of its own is chosen by these tables:

    urgency    Future: a drought takes weeks, and nothing is to be done within the hour; Past once it is cancelled
    severity   of the level: D0, watch, ready are Minor; D1, warning, set Moderate; D2, alert, go Severe; D3, D4 Extreme
               (the Drought Monitor's own words for D1 to D3 are moderate, severe, extreme); Minor once it is cancelled
    certainty  by probability p: Observed from 0.9, Likely above 0.5 (the protocol's own bound), Possible above 0.05,
               Unlikely below; an outlook is at most Likely, for it has not come yet; Unknown without a probability

Times are UTC, which the protocol writes −00:00 and never Z. A polygon is lat,lon pairs, closed; it has no holes.
Refs: OASIS (2010), Common Alerting Protocol 1.2, section 3.2 and its schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any
from xml.etree import ElementTree

from twin.errors import PlaceError, SettingsError
from twin.warning import Transition

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"
MEDIA_TYPE = "application/cap+xml"
MESSAGES = {"raised": "Alert", "updated": "Update", "cancelled": "Cancel"}
SEVERITY = {
    **dict.fromkeys(("D0", "watch", "ready"), "Minor"),
    **dict.fromkeys(("D1", "warning", "set"), "Moderate"),
    **dict.fromkeys(("D2", "alert", "go"), "Severe"),
    **dict.fromkeys(("D3", "D4"), "Extreme"),
}
RESPONSE = {"Minor": "Monitor", "Moderate": "Prepare", "Severe": "Execute", "Extreme": "Execute"}
OBSERVED, LIKELY, POSSIBLE = 0.9, 0.5, 0.05
DIGITS = 5  # of a degree: a metre
_FORBIDDEN = frozenset(" ,<&\t\n\r")  # in identifiers and senders


@dataclass(frozen=True)
class Issue:
    """Who issues a message, when, and what it is made from.

    sender       globally unique, without spaces, commas, < and &: an address or a domain name
    sent         with its time zone
    superseded   sender, identifier and sent of the message before this one; for updates and cancellations
    expires      until when it holds if nothing else is said
    simulated    of a region whose data are simulated: an exercise, never an actual alert
    baseline     reference period; `tier`, `snapshot`, `item`, `web` as in the release
    """

    sender: str
    sent: datetime
    superseded: tuple[str, str, datetime] | None = None
    expires: datetime | None = None
    simulated: bool = False
    sender_name: str = ""
    language: str = "en"
    baseline: str = ""
    tier: str = ""
    snapshot: str = ""
    item: str = ""
    web: str = ""


@dataclass(frozen=True)
class Area:
    """Where a warning is: a name, polygons ((lon, lat) corners of each), codes by the name of their system."""

    description: str
    polygons: Sequence[Sequence[Sequence[float]]] = ()
    geocodes: Mapping[str, str] = field(default_factory=dict)


def document(said: Transition, issue: Issue, area: Area) -> bytes:
    """The message as a CAP 1.2 document, XML in UTF-8.

    Raises SettingsError for a sender or identifier the protocol cannot carry, for a time without zone, or an update
    that supersedes nothing; PlaceError for a polygon of fewer than three corners or off the Earth.
    """
    for what, name in (("sender", issue.sender), ("identifier", said.identifier)):
        if not name or _FORBIDDEN & set(name):
            raise SettingsError(f"{what} of a warning", expected="no spaces, commas, < or &", found=repr(name))
    if (found := issue.superseded[1] if issue.superseded else "") != said.supersedes:
        raise SettingsError("message superseded", expected=said.supersedes or "none", found=found or "none")
    over = said.kind == "cancelled"
    severity = "Minor" if over else SEVERITY[said.level]
    alert = ElementTree.Element("alert", xmlns=NAMESPACE)
    earlier = issue.superseded and ",".join((*issue.superseded[:2], moment(issue.superseded[2])))
    _fill(
        alert,
        {
            "identifier": said.identifier,
            "sender": issue.sender,
            "sent": moment(issue.sent),
            "status": "Exercise" if issue.simulated else "Actual",
            "msgType": MESSAGES[said.kind],
            "scope": "Public",
            "note": f"Simulated data of region {said.region}: no action" if issue.simulated else "",
            "references": earlier,
            "incidents": said.event,
        },
    )
    info = ElementTree.SubElement(alert, "info")
    _fill(
        info,
        {
            "language": issue.language,
            "category": "Met",
            "event": "Drought",
            "responseType": ("AllClear" if said.reason == "ended" else "None") if over else RESPONSE[severity],
            "urgency": "Past" if over else "Future",
            "severity": severity,
            "certainty": certainty(said),
            "effective": moment(issue.sent),
            "onset": moment(datetime.combine(date.fromisoformat(said.since), time(tzinfo=UTC))),
            "expires": issue.expires and moment(issue.expires),
            "senderName": issue.sender_name,
            "headline": headline(said),
            "description": said.text,
            "instruction": "" if over else said.actions,
            "web": issue.web,
        },
    )
    for name, value in _parameters(said, issue).items():
        _fill(ElementTree.SubElement(info, "parameter"), {"valueName": name, "value": value})
    if issue.item:
        resource = ElementTree.SubElement(info, "resource")
        about = {"resourceDesc": "STAC item of the release", "mimeType": "application/geo+json", "uri": issue.item}
        _fill(resource, about)
    where = ElementTree.SubElement(info, "area")
    _fill(where, {"areaDesc": area.description})
    for corners in area.polygons:
        _fill(where, {"polygon": polygon(corners)})
    for name, value in area.geocodes.items():
        _fill(ElementTree.SubElement(where, "geocode"), {"valueName": name, "value": value})
    ElementTree.indent(alert)
    return ElementTree.tostring(alert, "utf-8", xml_declaration=True)


def cloudevent_data(said: Transition, issue: Issue) -> dict[str, Any]:
    """The `data` of the event of a message: all of the transition, and what it is made from; plain JSON.

    The times are the event's own. `severity` and `certainty` are those of the CAP document.
    """
    about = {name: value for name in ("baseline", "tier", "snapshot", "item") if (value := getattr(issue, name))}
    severity = "Minor" if said.kind == "cancelled" else SEVERITY[said.level]
    words = {"headline": headline(said), "severity": severity, "certainty": certainty(said)}
    return {**said.data, **words, **about, "simulated": issue.simulated}


def headline(said: Transition) -> str:
    """The message in a line."""
    if said.kind == "cancelled":
        return f"Drought {said.previous_level} for {said.where} cancelled: {said.reason}"
    before = f" (was {said.previous_level})" if said.previous_level else ""
    return f"Drought {said.level} for {said.where}{before}"


def certainty(said: Transition) -> str:
    """The protocol's word for how sure a message is."""
    if said.probability is None:
        return "Unknown"
    if said.probability >= OBSERVED and said.indicator != "outlook":
        return "Observed"
    return "Likely" if said.probability > LIKELY else "Possible" if said.probability > POSSIBLE else "Unlikely"


def moment(when: datetime) -> str:
    """A time as the protocol writes it, to the second, in UTC; SettingsError for one without time zone."""
    if when.tzinfo is None:
        raise SettingsError("time of a warning", expected="a time zone", found=when.isoformat())
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S}-00:00"


def polygon(corners: Sequence[Sequence[float]]) -> str:
    """Corners (lon, lat) as the protocol's lat,lon pairs, the first again at the end."""
    points = [(float(lat), float(lon)) for lon, lat in corners]
    points += points[:1] * (points[:1] != points[-1:])
    if len(points) < 4 or not all(abs(lat) <= 90.0 and abs(lon) <= 180.0 for lat, lon in points):
        raise PlaceError("polygon of a warning", expected="three corners or more on the Earth", found=f"{corners}")
    rounded = [[round(degrees, DIGITS) + 0.0 for degrees in point] for point in points]  # no −0
    return " ".join(f"{lat:.{DIGITS}f},{lon:.{DIGITS}f}" for lat, lon in rounded)


def _parameters(said: Transition, issue: Issue) -> dict[str, str]:
    """What the protocol has no element for, as far as it is known; numbers to the last digit."""
    words = ("indicator", "category", "units", "comparison", "level", "previous_level", "reason", "region")
    numbers = {name: getattr(said, name) for name in ("value", "low", "high", "probability", "threshold")}
    told = {
        **{name: getattr(said, name) for name in words},
        **{name: "" if number is None else repr(float(number)) for name, number in numbers.items()},
        "valid_day": said.day,
        "rule": said.rule,
        "rule_version": str(said.version),
        **{name: getattr(issue, name) for name in ("baseline", "tier", "snapshot")},
    }
    return {name: value for name, value in told.items() if value}


def _fill(parent: ElementTree.Element, values: Mapping[str, Any]) -> None:
    """Children by name and text, in this order; none for what is empty."""
    for name, value in values.items():
        if value:
            ElementTree.SubElement(parent, name).text = str(value)
