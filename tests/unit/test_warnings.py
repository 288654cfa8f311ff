"""Warnings by rule: hysteresis, persistence, seasons, revisions, and a firing log that can be replayed."""

from __future__ import annotations

import json
import tomllib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twin.errors import SettingsError, TimeError, VariableError
from twin.rules import INDICATORS, Rule, parse_rules
from twin.warning import REASONS, Readings, Transition, evaluate, replay, verify

FILE = """
[[rule]]
id = "northern-root-zone"
version = 1
place = {name = "Northern"}
indicator = "soil_moisture_percentile"
comparison = "below"
steps = [
    {level = "watch", enter = 20, exit = 30},
    {level = "warning", enter = 10, exit = 20},
    {level = "alert", enter = 5, exit = 12},
]
enter_days = 3
leave_days = 4
text = "{place}: percentile {value:.0f} ({low:.0f} to {high:.0f}) on {day}, {level} since {since}."
actions = "Read the {level} plan."

[[rule]]
id = "d2-area"
version = 2
place = {bbox = [-3.0, 8.0, 0.0, 11.0]}
indicator = "drought_class"
category = "D2"
steps = [{level = "D2", enter = 25, exit = 15}]
probability = 0.6
months = [5, 6, 7, 8, 9]
text = "{value} {units} in {category} or worse, probability {probability:.2f}, threshold {threshold}."
"""
RULES = parse_rules(tomllib.loads(FILE))
ROOT, AREA = RULES
START = np.datetime64("2012-06-01")
WETTER, BETWEEN, DRY, DRIER = 50.0, 25.0, 15.0, 3.0  # percentiles: better than all exits, between, and two steps


def readings(values, first=START, **more) -> Readings:
    values = np.asarray(values, np.float64)
    return Readings(first + np.arange(values.size, dtype="timedelta64[D]"), values, **more)


def day(number: int) -> np.datetime64:
    return START + np.timedelta64(number, "D")


def live(values, rule: Rule = ROOT, window: int = 60) -> tuple[dict, list[Transition]]:
    """Day by day, each with what the store would hand out: the last days alone, and what stands as JSON."""
    standing: dict = {}
    log = []
    for known in range(1, len(values) + 1):
        first = max(0, known - window)
        told = {rule.id: readings(values[first:known], day(first))}
        standing, said = evaluate([rule], told, json.loads(json.dumps(standing)))
        assert len(said) <= 1
        log += said
    return standing, log


def kinds(log) -> list[tuple[str, str, str]]:
    return [(said.kind, said.reason, said.level) for said in log]


# ------------------------------------------------------------------------------------------------ in force or not
def test_a_drought_comes_worsens_eases_and_goes():
    values = [WETTER] * 3 + [DRY] * 5 + [DRIER] * 4 + [13.0] * 6 + [22.0] * 6 + [WETTER] * 6
    standing, log = live(values)
    assert kinds(log) == [
        ("raised", "entered", "watch"),
        ("updated", "escalated", "alert"),
        ("updated", "eased", "warning"),
        ("updated", "eased", "watch"),
        ("cancelled", "ended", ""),
    ]
    assert [said.day for said in log] == ["2012-06-06", "2012-06-11", "2012-06-16", "2012-06-22", "2012-06-28"]
    assert {said.since for said in log} == {"2012-06-04"} and {said.event for said in log} == {log[0].identifier}
    assert [said.threshold for said in log] == [20.0, 5.0, 12.0, 20.0, 30.0]
    assert standing[ROOT.id]["levels"][-1][1] == 0 and "last" not in standing[ROOT.id]
    assert standing[ROOT.id]["messages"] == 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(20.001, 29.999), min_size=20, max_size=60), st.booleans())
def test_between_enter_and_exit_nothing_changes(wiggle, dry_first):
    """No flapping: whatever stands goes on standing, and nothing begins."""
    before = [DRY] * 4 if dry_first else [WETTER] * 4
    _, log = live(before + wiggle)
    assert kinds(log) == ([("raised", "entered", "watch")] if dry_first else [])


VALUES = st.lists(st.sampled_from([1.0, 4.0, 8.0, 11.0, 15.0, 22.0, 35.0, 60.0, np.nan]), min_size=1, max_size=60)


@settings(max_examples=120, deadline=None)
@given(VALUES)
def test_every_message_follows_from_the_one_before(values):
    """One chain of messages an event: raised, updates that each supersede the last, cancelled; all ids differ."""
    _, log = live(values)
    event = last = ""
    for said in log:
        assert said.reason in REASONS and said.supersedes == last and (said.kind == "raised") == (last == "")
        event = event or said.identifier
        assert said.event == event and said.level != said.previous_level
        event, last = ("", "") if said.kind == "cancelled" else (event, said.identifier)
    assert len({said.identifier for said in log}) == len(log)


@settings(max_examples=120, deadline=None)
@given(VALUES)
def test_levels_are_those_of_the_definition(values):
    """Step by step and day by day as the rule has it, written out: runs of days, all of them known."""
    _, log = live(values)
    expected, held, previous = [], [False] * 3, ""
    for row in range(len(values)):
        for k, step in enumerate(ROOT.steps):
            entering, leaving = values[max(0, row - 2) : row + 1], values[max(0, row - 3) : row + 1]
            if len(leaving) == 4 and all(value > step.exit for value in leaving):
                held[k] = False
            if row >= 3 and all(value <= step.enter for value in entering):
                held[k] = True
        level = next((step.level for step, on in zip(ROOT.steps[::-1], held[::-1], strict=True) if on), "")
        if level != previous:
            expected.append((str(day(row)), level))
        previous = level
    assert [(said.day, said.level) for said in log] == expected


@settings(max_examples=60, deadline=None)
@given(VALUES, st.integers(4, 30))
def test_replay_is_what_was_live_and_the_window_is_no_matter(values, window):
    standing, log = live(values, window=window)
    releases = [{ROOT.id: readings(values[:day])} for day in range(1, len(values) + 1)]
    again, repeated = replay([ROOT], releases)
    assert list(repeated) == log
    assert {**again[ROOT.id], "levels": None} == {**standing[ROOT.id], "levels": None}


@settings(max_examples=60, deadline=None)
@given(VALUES)
def test_the_same_readings_twice_change_nothing(values):
    standing: dict = {}
    for day in range(1, len(values) + 1):
        standing, _ = evaluate([ROOT], {ROOT.id: readings(values[:day])}, standing)
        same, said = evaluate([ROOT], {ROOT.id: readings(values[:day])}, standing)
        assert same == standing and said == ()


def test_too_few_days_raise_nothing_and_end_nothing():
    assert live([WETTER, DRY, DRY, WETTER, DRY, DRY, np.nan, DRY, DRY, WETTER])[1] == []
    _, log = live([DRY] * 4 + [WETTER] * 3 + [BETWEEN] + [WETTER] * 3 + [np.nan] + [WETTER] * 3)
    assert kinds(log) == [("raised", "entered", "watch")]


def test_a_missing_day_leaves_a_warning_standing_and_stale():
    standing, log = live([DRY] * 4 + [np.nan] * 30)
    assert len(log) == 1 and standing[ROOT.id]["stale"] and standing[ROOT.id]["last"]["level"] == "watch"
    standing, said = evaluate([ROOT], {}, standing)
    assert said == () and standing[ROOT.id]["stale"]
    standing, said = evaluate([ROOT], {ROOT.id: readings([DRY] * 50)}, standing)
    assert said == () and not standing[ROOT.id]["stale"]


def test_as_surely_as_the_rule_asks():
    """A threshold passed is not enough where the probability of it is not; once it stands the value decides."""
    days = 60
    sure, unsure = np.full(days, 0.7), np.full(days, 0.5)

    def area(value: float, p: np.ndarray) -> dict[str, Readings]:
        return {AREA.id: readings(np.full(days, value), probability=p)}

    assert evaluate([AREA], area(40.0, unsure), {})[1] == ()
    assert evaluate([AREA], area(20.0, sure), {})[1] == ()
    standing, said = evaluate([AREA], area(40.0, sure), {})
    assert kinds(said) == [("raised", "entered", "D2")] and said[0].probability == 0.7
    assert said[0].text == "40 % of area in D2 or worse, probability 0.70, threshold 25."
    later = readings(np.full(days, 20.0), day(30), probability=np.full(days, 0.1))
    assert evaluate([AREA], {AREA.id: later}, standing)[1] == ()
    unknown = readings(np.full(days, 5.0), day(30), probability=np.full(days, np.nan))
    assert evaluate([AREA], {AREA.id: unknown}, standing)[1] == ()


def test_a_season_ends_what_stands_and_keeps_out_what_would():
    p = np.ones(160)
    wide = {AREA.id: readings(np.full(160, 40.0), np.datetime64("2012-05-01"), probability=p)}  # to 7 October
    standing, said = replay(
        [AREA], [{AREA.id: readings(np.full(60, 40.0), np.datetime64("2012-05-01"), probability=p[:60])}, wide]
    )
    assert kinds(said) == [("raised", "entered", "D2"), ("cancelled", "out of season", "")]
    winter = {AREA.id: readings(np.full(60, 40.0), np.datetime64("2012-11-01"), probability=p[:60])}
    assert evaluate([AREA], winter, standing)[1] == ()


def test_a_wet_season_is_told_with_the_readings():
    table = {**tomllib.loads(FILE)["rule"][0], "season": "wet"}
    (rule,) = parse_rules({"rule": [table]})
    wet = np.arange(40) < 30
    told = {rule.id: readings([DRY] * 40, in_season=wet)}
    assert evaluate([rule], told, {})[1] == ()
    standing, _ = evaluate([rule], {rule.id: readings([DRY] * 30, in_season=wet[:30])}, {})
    assert kinds(evaluate([rule], told, standing)[1]) == [("cancelled", "out of season", "")]
    with pytest.raises(VariableError, match="expected in_season, found none"):
        evaluate([rule], {rule.id: readings([DRY] * 40)}, {})


# ------------------------------------------------------------------------------------------------------- revisions
def test_what_never_held_by_the_data_now_known_is_corrected():
    standing, _ = evaluate([ROOT], {ROOT.id: readings([WETTER] * 10 + [DRY] * 5)}, {})
    after, said = evaluate([ROOT], {ROOT.id: readings([WETTER] * 16)}, standing)
    assert (
        kinds(said) == [("cancelled", "corrected", "")]
        and said[0].supersedes == standing[ROOT.id]["last"]["identifier"]
    )
    again, said = evaluate([ROOT], {ROOT.id: readings([WETTER] * 10 + [DRY] * 7)}, after)
    assert kinds(said) == [("raised", "entered", "watch")]
    assert said[0].identifier != standing[ROOT.id]["last"]["identifier"] and again[ROOT.id]["messages"] == 3


def test_data_superseded_change_the_level_by_an_update():
    standing, _ = evaluate([ROOT], {ROOT.id: readings([WETTER] * 10 + [DRY] * 5)}, {})
    _, said = evaluate([ROOT], {ROOT.id: readings([WETTER] * 10 + [DRIER] * 6)}, standing)
    assert kinds(said) == [("updated", "revised", "alert")] and said[0].previous_level == "watch"


def test_what_cannot_be_judged_again_stands_as_it_was_told():
    """Readings that begin after a warning was raised say nothing about whether it should have been."""
    standing, _ = evaluate([ROOT], {ROOT.id: readings([WETTER] * 10 + [DRY] * 5)}, {})
    late = readings([BETWEEN] * 8, day(14))
    after, said = evaluate([ROOT], {ROOT.id: late}, standing)
    assert said == () and after[ROOT.id]["last"] == standing[ROOT.id]["last"]
    _, said = evaluate([ROOT], {ROOT.id: readings([WETTER] * 8, day(14))}, standing)
    assert kinds(said) == [("cancelled", "ended", "")]


def test_another_version_of_a_rule_supersedes_what_the_old_one_said():
    standing, (first,) = evaluate([ROOT], {ROOT.id: readings([WETTER] * 10 + [DRY] * 5)}, {})
    table = tomllib.loads(FILE)["rule"][0]
    strict = {**table, "version": 2, "steps": [{"level": "watch", "enter": 5, "exit": 10}]}
    (rule,) = parse_rules({"rule": [strict]})
    told = {rule.id: readings([WETTER] * 10 + [DRY] * 6)}
    _, said = evaluate([rule], told, standing)
    assert kinds(said) == [("cancelled", "withdrawn", "")] and said[0].supersedes == first.identifier
    (same,) = parse_rules({"rule": [{**table, "version": 2}]})
    after, said = evaluate([same], told, standing)
    assert said == () and after[rule.id]["last"]["version"] == 2
    assert evaluate([same], told, after) == (after, ())
    words = [{"level": level, "enter": enter, "exit": enter + 10} for level, enter in (("ready", 20), ("set", 10))]
    (other,) = parse_rules({"rule": [{**table, "version": 2, "steps": words}]})
    assert kinds(evaluate([other], told, standing)[1]) == [("updated", "revised", "ready")]


def test_a_rule_that_is_gone_is_withdrawn_once():
    standing, (first,) = evaluate([ROOT], {ROOT.id: readings([DRY] * 15)}, {})
    after, said = evaluate([], {}, standing)
    assert kinds(said) == [("cancelled", "withdrawn", "")] and said[0].supersedes == first.identifier
    assert evaluate([], {}, after) == (after, ())


def test_a_message_is_plain_data_and_fills_its_text():
    told = readings([DRY] * 15, low=np.full(15, 9.0), high=np.full(15, np.nan))
    standing, (said,) = evaluate([ROOT], {ROOT.id: told}, {}, "ghana")
    assert said.text == ("Northern: percentile 15 (9 to unknown) on 2012-06-15, watch since 2012-06-01.")
    assert said.actions == "Read the watch plan." and said.region == "ghana" and said.high is None
    assert Transition(**json.loads(json.dumps(said.data))) == said and json.loads(json.dumps(standing)) == standing
    elsewhere = evaluate([ROOT], {ROOT.id: told}, {}, "togo")[1][0]
    assert len(said.identifier) == 32 and elsewhere.identifier != said.identifier


def test_readings_that_are_none():
    with pytest.raises(VariableError, match=r"readings: expected of northern-root-zone, found other"):
        evaluate([ROOT], {"other": readings([1.0])}, {})
    with pytest.raises(TimeError, match="expected consecutive days, found gaps"):
        evaluate([ROOT], {ROOT.id: Readings(np.array(["2012-01-01", "2012-01-03"], "M8[D]"), np.ones(2))}, {})
    with pytest.raises(VariableError, match="expected probability, found none"):
        evaluate([AREA], {AREA.id: readings([1.0])}, {})
    with pytest.raises(VariableError, match=r"low of northern-root-zone: expected shape \(2,\), found shape \(1,\)"):
        evaluate([ROOT], {ROOT.id: readings([1.0, 2.0], low=np.ones(1))}, {})
    standing, _ = evaluate([ROOT], {ROOT.id: readings([DRY] * 15)}, {})
    with pytest.raises(TimeError, match="expected up to 2012-06-15 at least, found 2012-06-10"):
        evaluate([ROOT], {ROOT.id: readings([DRY] * 10)}, standing)


# ---------------------------------------------------------------------------------------------------- verification
def test_the_log_is_verified_against_what_came():
    """By hand: one event warned of nine days ahead, one missed, one false alarm."""
    values = [WETTER] * 3 + [DRY] * 20 + [WETTER] * 20 + [DRY] * 5 + [WETTER] * 20
    _, log = live(values)
    assert [said.day for said in log] == ["2012-06-06", "2012-06-27", "2012-07-16", "2012-07-22"]
    came = {
        ROOT.id: [("2012-06-15", "2012-06-30"), ("2012-08-20", "2012-09-10")],
        "silent": [("2012-01-01", "2012-01-02")],
    }
    found = verify(log, came, until="2012-09-30")
    assert (found[ROOT.id].hits, found[ROOT.id].misses, found[ROOT.id].false_alarms) == (1, 1, 1)
    assert found[ROOT.id].lead == (9,) and found["silent"].misses == 1
    standing = verify(log[:3], {ROOT.id: [("2012-08-20", "2012-09-10")]}, until="2012-09-30")
    assert standing[ROOT.id].hits == 1 and standing[ROOT.id].lead == (35,)


# ----------------------------------------------------------------------------------------------------------- rules
def test_the_rules_of_a_file():
    assert [rule.id for rule in RULES] == ["northern-root-zone", "d2-area"]
    assert ROOT.steps[1].level == "warning" and ROOT.memory == 4 and ROOT.units == "%" and ROOT.where == "Northern"
    assert AREA.comparison == "above" and AREA.months == (5, 6, 7, 8, 9) and AREA.enter_days == 20
    assert parse_rules({}) == () and parse_rules({"rule": []}) == ()
    table = {**tomllib.loads(FILE)["rule"][0], "indicator": "spi-90"}
    table["steps"] = [{"level": "D1", "enter": -0.8, "exit": -0.5}, {"level": "D3", "enter": -1.6, "exit": -1.3}]
    (rule,) = parse_rules({"rule": [{**table, "place": {"cell": [9.4, -0.84]}}]})
    assert rule.units == "1" and rule.where == "9.4°N 0.84°W"
    assert all(one.worse in ("below", "above") for one in INDICATORS.values())
    for mild, severe in pairwise(ROOT.steps):
        assert severe.enter < mild.enter


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "No Spaces"}, "rule No Spaces: id: expected small letters"),
        ({"id": 3}, "rule 1: id"),
        ({"version": 0}, "rule northern-root-zone: version: expected a whole number, 1 or more, found 0"),
        ({"version": True}, "version: expected a whole number"),
        ({"place": {}}, "place: expected region = true, name"),
        ({"place": {"planet": "Mars"}}, "place: expected region = true"),
        ({"place": {"cell": [95.0, 0.0]}}, r"place: expected .*, found {'cell': \[95.0, 0.0\]}"),
        ({"place": {"bbox": [0.0, 5.0, 3.0, 5.0]}}, "place: expected"),
        ({"place": {"polygon": [[0.0, 5.0], [1.0, 5.0]]}}, "place: expected"),
        ({"place": {"name": " "}}, "place: expected"),
        ({"indicator": "luck"}, "indicator: expected soil_moisture_percentile, .* found 'luck'"),
        ({"indicator": "spi-0"}, "indicator"),
        ({"category": "D2"}, "category: expected none, found 'D2'"),
        ({"indicator": "drought_class"}, "category: expected one of D0, D1"),
        ({"comparison": "under"}, "comparison: expected below or above"),
        ({"steps": []}, "steps: expected levels of one of watch, warning, alert; .* found none"),
        ({"steps": [{"level": "panic", "enter": 5, "exit": 9}]}, "found panic"),
        ({"steps": [{"level": "watch", "enter": 20}]}, "steps: expected tables of level, enter and exit"),
        ({"steps": [{"level": "watch", "enter": "dry", "exit": 3}]}, "steps: expected tables of level, enter and exit"),
        ({"steps": [{"level": "watch", "enter": 20, "exit": 20}]}, "expected exit of watch on the better side of 20"),
        (
            {"steps": [{"level": "warning", "enter": 20, "exit": 30}, {"level": "watch", "enter": 10, "exit": 20}]},
            "mildest first, found warning, watch",
        ),
        (
            {"steps": [{"level": "watch", "enter": 20, "exit": 30}, {"level": "go", "enter": 10, "exit": 20}]},
            "levels of one of",
        ),
        (
            {"steps": [{"level": "watch", "enter": 20, "exit": 30}, {"level": "alert", "enter": 10, "exit": 40}]},
            "expected alert to be entered beyond watch, and left no later, found 10 and 40",
        ),
        ({"probability": 1.5}, "probability: expected above 0, at most 1, found 1.5"),
        ({"probability": "often"}, "probability: expected above 0, at most 1, found 'often'"),
        ({"months": [[1]]}, "months: expected some of 1 to 12"),
        ({"months": [0, 1]}, "months: expected some of 1 to 12"),
        ({"season": "dry"}, "season: expected 'wet', or nothing, found 'dry'"),
        ({"enter_days": 0}, "enter_days: expected days, 1 or more, found 0"),
        ({"leave_days": 2.5}, "leave_days: expected days"),
        ({"text": "{valeu}"}, "text: expected .* found {valeu}"),
        ({"text": "{value.__class__}"}, "text: expected"),
        ({"text": "{value:q}"}, "text: expected a template that can be filled"),
        ({"text": "{value"}, "text: expected a template that can be filled"),
        ({"text": " "}, "text: expected some words"),
        ({"actions": "{}"}, "actions: expected"),
        ({"colour": "red"}, "colour: expected one of id, version, .* found this field"),
    ],
)
def test_what_is_no_rule_is_refused_by_rule_and_field(change, words):
    table = {**tomllib.loads(FILE)["rule"][0], **change}
    with pytest.raises(SettingsError, match=words):
        parse_rules({"rule": [table]})


def test_what_is_no_file_of_rules_is_refused():
    table = tomllib.loads(FILE)["rule"][0]
    with pytest.raises(SettingsError, match="rules: expected each id once, found 'northern-root-zone' twice"):
        parse_rules({"rule": [table, table]})
    with pytest.raises(SettingsError, match=r"rules: expected tables \[\[rule\]\]"):
        parse_rules({"rules": [table]})
    with pytest.raises(SettingsError, match="rule 1: expected a table, found 3"):
        parse_rules({"rule": [3]})
    with pytest.raises(SettingsError, match="rule northern-root-zone: text: expected some words, found nothing"):
        parse_rules({"rule": [{name: value for name, value in table.items() if name != "text"}]})
