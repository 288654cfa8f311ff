"""CAP 1.2 documents against the protocol's own structure and values, and read back again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.cap import NAMESPACE, Area, Issue, certainty, cloudevent_data, document, moment, polygon
from twin.errors import PlaceError, SettingsError
from twin.rules import VOCABULARIES, Rule, Step
from twin.warning import Readings, Transition, replay

# The schema of CAP 1.2, section 3.4: children in their order with how many there may be, and the values they may have.
ONCE, OPTIONAL, ANY, SOME = (1, 1), (0, 1), (0, 99), (1, 99)
CHILDREN = {
    "alert": {
        "identifier": ONCE, "sender": ONCE, "sent": ONCE, "status": ONCE, "msgType": ONCE, "source": OPTIONAL,
        "scope": ONCE, "restriction": OPTIONAL, "addresses": OPTIONAL, "code": ANY, "note": OPTIONAL,
        "references": OPTIONAL, "incidents": OPTIONAL, "info": ANY,
    },
    "info": {
        "language": OPTIONAL, "category": SOME, "event": ONCE, "responseType": ANY, "urgency": ONCE, "severity": ONCE,
        "certainty": ONCE, "audience": OPTIONAL, "eventCode": ANY, "effective": OPTIONAL, "onset": OPTIONAL,
        "expires": OPTIONAL, "senderName": OPTIONAL, "headline": OPTIONAL, "description": OPTIONAL,
        "instruction": OPTIONAL, "web": OPTIONAL, "contact": OPTIONAL, "parameter": ANY, "resource": ANY, "area": ANY,
    },
    "parameter": {"valueName": ONCE, "value": ONCE},
    "geocode": {"valueName": ONCE, "value": ONCE},
    "resource": {
        "resourceDesc": ONCE, "mimeType": ONCE, "size": OPTIONAL, "uri": OPTIONAL, "derefUri": OPTIONAL,
        "digest": OPTIONAL,
    },
    "area": {
        "areaDesc": ONCE, "polygon": ANY, "circle": ANY, "geocode": ANY, "altitude": OPTIONAL, "ceiling": OPTIONAL,
    },
}  # fmt: skip
VALUES = {
    "status": "Actual Exercise System Test Draft",
    "msgType": "Alert Update Cancel Ack Error",
    "scope": "Public Restricted Private",
    "category": "Geo Met Safety Security Rescue Fire Health Env Transport Infra CBRNE Other",
    "responseType": "Shelter Evacuate Prepare Execute Avoid Monitor Assess AllClear None",
    "urgency": "Immediate Expected Future Past Unknown",
    "severity": "Extreme Severe Moderate Minor Unknown",
    "certainty": "Observed Likely Possible Unlikely Unknown",
}
TIMES = ("sent", "effective", "onset", "expires")
TIME = re.compile(r"\d\d\d\d-\d\d-\d\dT\d\d:\d\d:\d\d[-+]\d\d:\d\d")
PAIR = re.compile(r"-?\d+(\.\d+)?,-?\d+(\.\d+)?")

SENT = datetime(2012, 6, 16, 4, 30, tzinfo=UTC)
ISSUE = Issue(
    "drought@example.org",
    SENT,
    expires=SENT + timedelta(days=10),
    sender_name="Drought twin",
    baseline="1991-01-01 to 2020-12-31",
    tier="analysis",
    snapshot="DXAQC8GKNHDQ0Y5RJW3G",
    item="https://example.org/collections/ghana-drought/items/ghana-drought-r7",
    web="https://example.org/?region=ghana&day=2012-06-15",
)
NORTHERN = Area("Northern", [[(-2.7, 8.2), (0.5, 8.2), (0.5, 10.7), (-2.7, 10.7)]], {"ISO 3166-2": "GH-NP"})


def rule(words: tuple[str, ...] = VOCABULARIES[0]) -> Rule:
    steps = tuple(Step(word, 20.0 - 4.0 * k, 30.0 - 4.0 * k) for k, word in enumerate(words))
    text = "Percentile {value:.1f} < {threshold} & dry: {level}."
    percentile = "soil_moisture_percentile"
    about = {"probability": 0.5, "enter_days": 2, "leave_days": 2, "actions": "Read the plan <{level}>."}
    return Rule("north", 3, {"name": "Northern"}, percentile, "below", steps, text, **about)


def chain(values=(18.0, 1.0, 27.0, 60.0)) -> tuple[Transition, ...]:
    """Raised, escalated, eased, ended."""
    days = np.repeat(values, 3)

    def told(n: int) -> dict[str, Readings]:
        value, start = days[:n], np.datetime64("2012-06-01")
        p = np.tile([[0.8, 0.7, 0.6]], (n, 1))
        return {"north": Readings(start + np.arange(n, dtype="timedelta64[D]"), value, p, value - 1 / 3, value + 1e-17)}

    return replay([rule()], [told(n) for n in range(1, days.size + 1)], "ghana")[1]


CHAIN = chain()


def issued(log: tuple[Transition, ...], **more) -> list[bytes]:
    """The documents of a log, each issued a day after the one before."""
    found, earlier = [], {}
    for number, said in enumerate(log):
        sent = SENT + timedelta(days=number)
        found.append(
            document(said, replace(ISSUE, sent=sent, superseded=earlier.get(said.supersedes), **more), NORTHERN)
        )
        earlier[said.identifier] = (ISSUE.sender, said.identifier, sent)
    return found


def check(element: ElementTree.Element) -> None:
    """An element and all below it: known children, in order, as often as they may be, with the values they may have."""
    name = element.tag.removeprefix(f"{{{NAMESPACE}}}")
    assert element.tag == f"{{{NAMESPACE}}}{name}" and not element.attrib
    if name in CHILDREN:
        names = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
        order = list(CHILDREN[name])
        assert names == sorted(names, key=order.index)
        for child, (least, most) in CHILDREN[name].items():
            assert least <= names.count(child) <= most, child
        for child in element:
            check(child)
        return
    text = element.text or ""
    assert not len(element) and text.strip()
    assert name not in VALUES or text in VALUES[name].split()
    assert name not in TIMES or TIME.fullmatch(text)
    if name == "polygon":
        pairs = text.split(" ")
        assert len(pairs) >= 4 and pairs[0] == pairs[-1] and all(PAIR.fullmatch(pair) for pair in pairs)
    if name in ("identifier", "sender"):
        assert not re.search(r"[\s,<&]", text)


def texts(xml: bytes) -> dict[str, str]:
    """The text of every leaf by its name; parameters by theirs."""
    found = {}
    for element in ElementTree.fromstring(xml).iter():
        name = element.tag.split("}")[1]
        if name in ("parameter", "geocode"):
            found[element[0].text] = element[1].text
        elif not len(element):
            found.setdefault(name, element.text)
    return found


def test_every_message_is_as_the_schema_has_it():
    assert [(said.kind, said.level) for said in CHAIN] == [
        ("raised", "watch"),
        ("updated", "alert"),
        ("updated", "watch"),
        ("cancelled", ""),
    ]
    for simulated in (False, True):
        for xml in issued(CHAIN, simulated=simulated):
            assert xml.startswith(b"<?xml version='1.0' encoding='utf-8'?>")
            check(ElementTree.fromstring(xml))


def test_the_checker_finds_what_is_wrong():
    """Our table of the schema can fail: another order, another value, a time in Z, a second sender."""
    good = issued(CHAIN)[0].decode()
    sender = "<sender>drought@example.org</sender>"
    wrong = [
        good.replace("Alert</msgType>", "Alarm</msgType>"),
        good.replace("-00:00</sent>", "Z</sent>"),
        good.replace(sender, sender + sender),
        good.replace(sender, "").replace("</alert>", sender + "</alert>"),
        good.replace("<event>Drought</event>", ""),
        good.replace(NAMESPACE, NAMESPACE.replace("1.2", "1.1")),
        re.sub(r"<polygon>\S+ ", "<polygon>", good),
    ]
    for text in wrong:
        assert text != good
        with pytest.raises((AssertionError, ValueError)):
            check(ElementTree.fromstring(text))


def test_a_message_refers_to_the_one_it_supersedes():
    first, second, third, last = (texts(xml) for xml in issued(CHAIN))
    assert [told["msgType"] for told in (first, second, third, last)] == ["Alert", "Update", "Update", "Cancel"]
    assert "references" not in first
    for before, after in ((first, second), (second, third), (third, last)):
        assert after["references"] == f"{before['sender']},{before['identifier']},{before['sent']}"
        assert after["incidents"] == first["identifier"]
    assert (last["urgency"], last["responseType"]) == ("Past", "AllClear") and "instruction" not in last
    wrong = replace(CHAIN[3], reason="corrected")
    told = texts(document(wrong, replace(ISSUE, superseded=("a", wrong.supersedes, SENT)), NORTHERN))
    assert told["responseType"] == "None" and told["reason"] == "corrected"
    with pytest.raises(SettingsError, match=f"message superseded: expected {CHAIN[0].identifier}, found none"):
        document(CHAIN[1], ISSUE, NORTHERN)
    with pytest.raises(SettingsError, match="message superseded: expected none"):
        document(CHAIN[0], replace(ISSUE, superseded=("a", "b", SENT)), NORTHERN)


def test_simulated_regions_are_an_exercise():
    real, simulated = (texts(issued(CHAIN, simulated=flag)[0]) for flag in (False, True))
    assert real["status"] == "Actual" and "note" not in real
    assert simulated["status"] == "Exercise" and simulated["note"] == "Simulated data of region ghana: no action"


def test_all_of_a_message_comes_back():
    """Numbers to the last bit, words with their < and &, times and places."""
    said, told = CHAIN[0], texts(issued(CHAIN)[0])
    for name in ("value", "low", "high", "probability", "threshold"):
        assert float(told[name]) == getattr(said, name)
    assert told["low"] == repr(18.0 - 1 / 3) and told["description"] == "Percentile 18.0 < 20 & dry: watch."
    assert told["instruction"] == "Read the plan <watch>." and told["headline"] == "Drought watch for Northern"
    assert told["sent"] == told["effective"] == "2012-06-16T04:30:00-00:00"
    assert told["onset"] == "2012-06-01T00:00:00-00:00" and told["expires"] == "2012-06-26T04:30:00-00:00"
    assert (told["rule"], told["rule_version"], told["valid_day"]) == ("north", "3", said.day)
    assert (told["tier"], told["snapshot"], told["baseline"]) == (ISSUE.tier, ISSUE.snapshot, ISSUE.baseline)
    assert told["uri"] == ISSUE.item and told["web"] == ISSUE.web and told["ISO 3166-2"] == "GH-NP"
    assert told["areaDesc"] == "Northern" and told["category"] == "Met" and told["event"] == "Drought"
    corners = [tuple(map(float, pair.split(","))) for pair in told["polygon"].split()]
    assert corners == [(8.2, -2.7), (8.2, 0.5), (10.7, 0.5), (10.7, -2.7), (8.2, -2.7)]  # lat,lon, and closed


def test_what_is_not_known_is_left_out():
    said = replace(CHAIN[0], low=None, high=None, probability=None, actions="")
    told = texts(document(said, Issue("example.org", SENT), Area("somewhere")))
    assert not {"low", "high", "probability", "instruction", "tier", "uri", "polygon", "expires"} & set(told)
    assert told["certainty"] == "Unknown" and told["areaDesc"] == "somewhere"
    check(ElementTree.fromstring(document(said, Issue("example.org", SENT), Area("somewhere"))))


@pytest.mark.parametrize(
    ("level", "severity", "response"),
    [
        *((level, "Minor", "Monitor") for level in ("D0", "watch", "ready")),
        *((level, "Moderate", "Prepare") for level in ("D1", "warning", "set")),
        *((level, "Severe", "Execute") for level in ("D2", "alert", "go")),
        *((level, "Extreme", "Execute") for level in ("D3", "D4")),
    ],
)
def test_severity_follows_the_level(level, severity, response):
    told = texts(document(replace(CHAIN[0], level=level), ISSUE, NORTHERN))
    assert (told["severity"], told["responseType"], told["urgency"]) == (severity, response, "Future")
    assert level in {word for words in VOCABULARIES for word in words}


def test_certainty_follows_the_probability():
    """The protocol: Likely is above about 50 %, Possible below, Unlikely about 0; what is to come was not observed."""
    words = (
        (0.95, "Observed"),
        (0.9, "Observed"),
        (0.8, "Likely"),
        (0.5, "Possible"),
        (0.05, "Unlikely"),
        (0.0, "Unlikely"),
    )
    assert [certainty(replace(CHAIN[0], probability=p)) for p, _ in words] == [word for _, word in words]
    assert certainty(replace(CHAIN[0], probability=0.99, indicator="outlook")) == "Likely"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), min_size=3, max_size=12))
def test_polygons_are_closed_lat_lon_pairs_to_a_metre(corners):
    if corners[0] == corners[-1] and len(corners) == 3:
        return
    pairs = [tuple(map(float, pair.split(","))) for pair in polygon(corners).split()]
    assert pairs[0] == pairs[-1] and len(pairs) == len(corners) + (corners[0] != corners[-1])
    np.testing.assert_allclose(pairs[: len(corners)], [(lat, lon) for lon, lat in corners], atol=5.1e-6)


def test_what_the_protocol_cannot_carry_is_refused():
    for corners in (
        [(0.0, 0.0), (1.0, 1.0)],
        [(0.0, 0.0), (1.0, 1.0), (0.0, 0.0)],
        [(0.0, 95.0), (1.0, 1.0), (2.0, 0.0)],
    ):
        with pytest.raises(PlaceError, match="three corners or more on the Earth"):
            polygon(corners)
    for sender in ("", "two words", "a,b", "a&b"):
        with pytest.raises(SettingsError, match="sender of a warning"):
            document(CHAIN[0], replace(ISSUE, sender=sender), NORTHERN)
    with pytest.raises(SettingsError, match="expected a time zone"):
        moment(datetime(2012, 6, 1))
    assert moment(datetime(2012, 6, 1, 2, tzinfo=timezone(timedelta(hours=3)))) == "2012-05-31T23:00:00-00:00"


def test_the_data_of_the_event_hold_all_of_it():
    said = CHAIN[1]
    data = json.loads(json.dumps(cloudevent_data(said, ISSUE), allow_nan=False))
    fields = {name: data[name] for name in said.data}
    assert Transition(**fields) == said
    assert data["severity"] == "Severe" and data["certainty"] == "Likely" and data["snapshot"] == ISSUE.snapshot
    assert data["headline"] == "Drought alert for Northern (was watch)" and data["simulated"] is False
    ended = cloudevent_data(CHAIN[-1], ISSUE)
    assert ended["headline"] == "Drought watch for Northern cancelled: ended" and ended["severity"] == "Minor"
