"""Sentences say exactly what the numbers say, and say so when there is no number."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from twin.indices import classes
from ui import words

NOVEMBER = date(2026, 11, 12)
NAN = float("nan")


@pytest.mark.parametrize(
    ("percentile", "years", "sentence"),
    [
        (100 * 1.5 / 21, 20, "Drier than 19 of 20 Novembers."),
        (100 * 1.4 / 21, 20, "Drier than 19 of 20 Novembers."),  # part of the season of one year was drier
        # "all" only beyond every value of the season: Hazen's position 1/2/(n + 1)
        (100 * 0.5 / 31, 30, "Drier than all 30 Novembers."),
        (100 * 0.6 / 31, 30, "Drier than 29 of 30 Novembers."),
        (100 - 100 * 0.5 / 21, 20, "Wetter than all 20 Novembers."),
        (100 - 100 * 2.5 / 21, 20, "Wetter than 18 of 20 Novembers."),
        (48.0, 20, "Near normal for November: drier than 10 of 20."),
        (52.0, 20, "Near normal for November: wetter than 10 of 20."),
        (100 * 0.5 / 3, 2, "Drier than all 2 Novembers."),
        (25.0, 1, "Drier than the one November there is to compare with."),
        (29.0, 1, "Drier than most of the one November there is to compare with."),
        (NAN, 20, "There is no value to compare here."),
        (5.0, 0, "There is no value to compare here."),
    ],
)
def test_rank(percentile, years, sentence):
    assert words.rank(percentile, NOVEMBER, years) == sentence


def test_rank_never_claims_more_years_than_there_are():
    for percentile in range(101):
        for years in (1, 2, 3, 20, 30, 60):
            counts = [int(word) for word in words.rank(percentile, NOVEMBER, years).split() if word.isdigit()]
            assert all(count <= years for count in counts)


@pytest.mark.parametrize(
    ("month", "plural"),
    [(1, "Januaries"), (2, "Februaries"), (3, "Marches"), (4, "Aprils"), (5, "Mays"), (12, "Decembers")],
)
def test_months_in_the_plural(month, plural):
    assert words.rank(5, date(2026, month, 1), 20) == f"Drier than 19 of 20 {plural}."


def test_every_class_has_a_name_and_a_missing_one_is_never_called_normal():
    assert set(words.KINDS) == {*classes.CODES, classes.MISSING}
    assert words.kind(3) == "D2 severe drought"
    assert words.kind(classes.MISSING) == words.kind(77) == "no value"
    assert words.status(classes.MISSING, NAN) == "No value"
    assert words.status(5, 1.4) == "Exceptional drought, percentile 1"


@pytest.mark.parametrize(
    ("shares", "sentence"),
    [
        ({2: 0.2, 4: 0.02, 0: 0.78}, "22 % of the land is in drought, 2 % in extreme or exceptional drought."),
        ({2: 0.2, 0: 0.8}, "20 % of the land is in drought."),
        ({1: 0.3, 0: 0.7}, "No drought. 30 % of the land is abnormally dry."),  # D0 is not drought
        ({0: 0.5, -5: 0.5}, "No drought."),
        ({5: 0.001, 0: 0.999}, "<1 % of the land is in drought, <1 % in extreme or exceptional drought."),
        ({}, "No cell has a value on this day."),
    ],
)
def test_headline(shares, sentence):
    assert words.headline(shares).replace("\u202f", " ") == sentence


def test_a_short_record_says_so():
    text = words.reference(3, 2015, 2018)
    assert text.startswith("Compared with 3 reference years out of 2015 to 2018. That is a short record")
    assert "nothing rarer than 12 %" in text  # 1/2/(3 + 1)
    assert words.reference(0).startswith("There are no reference years yet")
    assert words.reference(30, 1991, 2020) == "Compared with 30 reference years, 1991 to 2020."
    assert words.reference(60, 1961, 2020) == "Compared with 60 reference years, 1961 to 2020."


def test_since_counts_unbroken_drought_and_d0_is_not_drought():
    days = [date(2026, 3, 1) + timedelta(days=k) for k in range(5)]
    assert words.since([0, 1, 2, 3, 2], days) == "In drought since 3 March 2026 (3 days)."
    assert words.since([2, 2, 2, 2, 1], days) == ""
    assert words.since([2, classes.MISSING, 2, 2, 2], days) == "In drought since 3 March 2026 (3 days)."
    assert words.since([5] * 5, days) == "In drought since before 1 March 2026."
    assert words.since([], []) == ""


def test_trend():
    assert words.trend(5, 40, 30) == "Drier, for the season, than 30 days earlier."
    assert words.trend(40, 5, 30) == "Wetter, for the season, than 30 days earlier."
    assert words.trend(7, 5, 30) == "About the same, for the season, as 30 days earlier."
    assert words.trend(NAN, 5, 30) == words.trend(5, NAN, 30) == ""


def test_certainty_is_silent_without_an_interval():
    assert words.certainty(0.6, 12.6) == "The true percentile is between 1 and 13 (90\u202f% sure)."
    assert words.certainty(NAN, NAN) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "0 s"), (-3, "0 s"), (89, "89 s"), (150, "2 min"), (7200, "2 h")),
        *((86400 * 3, "3 days"), (86400 * 90, "3 months"), (86400 * 366 * 8, "8 years")),
    ],
)
def test_span(seconds, text):
    assert words.span(seconds) == text


def test_the_tier_is_named_and_simulated_data_warn():
    labels = [badge.label for badge in words.badges("open_loop", True)]
    assert labels == ["Simulated data", "Open loop"]
    assert "decide nothing" in words.badges("open_loop", True)[0].meaning
    assert [badge.label for badge in words.badges("analysis", False)] == ["Analysis"]
    assert [badge.label for badge in words.badges("new_tier", False)] == ["new tier"]


def test_the_badge_says_until_when_satellites_were_asked_and_how_long_the_model_runs_alone():
    until, later = date(2026, 3, 3), date(2026, 3, 15)
    (checked,) = words.badges("analysis", False, until, until)
    assert checked.label == "Checked against satellites until 3 March 2026"
    assert checked.meaning == "The land model was corrected by satellite observations up to that day."
    assert words.badges("analysis", False, until, date(2026, 3, 4))[0].meaning.endswith(
        "that day; the 1 day since rests on the weather alone."
    )
    (alone,) = words.badges("open_loop", False, until, later)
    assert alone.label == "Open loop for 12 days" and "since 3 March 2026, the last day satellites" in alone.meaning
    assert words.badges("open_loop", False, until, until)[0] == checked, "that day itself was checked"


def test_an_amount_is_told_with_its_spread_and_not_without():
    assert words.amount(0.214, 0.021) == "0.21 ± 0.02\u202fm³\u202fm⁻³"
    assert words.amount(0.214, 0.004) == "0.21 ± <0.01\u202fm³\u202fm⁻³"
    assert words.water(0.2, 0.03) == "0.20 ± 0.03\u202fm³\u202fm⁻³ of water in the top metre."
    assert words.amount(0.2, NAN) == words.amount(NAN, 0.02) == words.water(0.2, NAN) == ""


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("no observation to use: smap: 0 of 120 passed the gates", "none of the observations could be used"),
        ("observations of smap: expected at most 5 % rejected, found 9.1 % (3 of 33: background)", "too many"),
        ("no step made the cost fall", "nothing about the land model could be changed"),
        ("K_s went 4.5 standard deviations from its prior, at most 4 are believed", "soil or plants unlike any known"),
        ("soil parameters beyond their bounds in 90 of 100 cells, 0 before", "soils at the limits"),
        ("withheld observations of smap fit worse: ubRMSE 0.05 against 0.04 of the open loop", "fitted worse"),
        ("members complete on every tile: expected at least 90%, found 3 of 40", "too many model runs failed"),
        ("a reason nobody thought of", "a reason nobody thought of"),
    ],
)
def test_a_refused_analysis_is_explained_to_everybody(reason, said):
    text = words.refused({"window": ["2026-01-01", "2026-03-01"], "reasons": [reason]})
    assert text.startswith("The last check against satellites (1 January 2026 to 1 March 2026) is not used: ")
    assert said in text and "standard deviation" not in text and "ubRMSE" not in text
    assert words.event("twin.analysis.refused.v1", "x", {"reasons": [reason]}).startswith(
        "Check against satellites not"
    )


def test_places_days_and_moments():
    assert words.place(9.25, -0.75) == "9.25° N, 0.75° W"
    assert words.place(-33.0, 18.5) == "33° S, 18.5° E"
    assert words.day(date(2026, 3, 12)) == "12 March 2026"
    assert words.clock(datetime(2026, 3, 12, 9, 5, 3, tzinfo=UTC)) == "12 March, 09:05:03 UTC"
    assert words.data_age(date(2026, 3, 12), datetime(2026, 3, 12, 23, tzinfo=UTC)) == "The newest day is today."
    assert words.data_age(date(2018, 3, 31), datetime(2026, 11, 1, tzinfo=UTC)) == "The newest day is 8 years old."


def test_events_in_one_line():
    data = {"valid_day": "2026-03-12", "consumed": ["c/a@1", "c/b@1"]}
    assert words.event("twin.drought.updated.v1", "x", data) == "Drought map updated to 12 March 2026 from 2 items"
    assert words.event("twin.item.quarantined.v1", "SM_1", {}) == "Item set aside: SM_1"
    done = {"observations": 769, "window": ["2026-01-01", "2026-03-01"]}
    assert words.event("twin.analysis.completed.v1", "x", done) == (
        "Checked against 769 satellite observations, 1 January 2026 to 1 March 2026"
    )
    assert words.event("twin.emulator.promoted.v1", "x", {"predecessor": ""}).endswith("is in use")
    assert "replaces" in words.event("twin.emulator.promoted.v1", "x", {"predecessor": "a1"})
    assert "stays" in words.event("twin.emulator.refused.v1", "x", {})
    assert "again" in words.event("twin.emulator.rolledback.v1", "x", {})
    told = {"label": "RCP6.0", "years": [2006, 2099]}
    assert words.event("twin.scenario.completed.v1", "x", told) == "Scenario finished: RCP6.0, 2006 to 2099"
    assert words.event("twin.unheard.of.v9", "x", {}) == "twin.unheard.of.v9: x"
    assert words.event("twin.drought.updated.v1", "x", {"valid_day": "soon"}).endswith("an unknown day")
    assert words.name("sm-l3/SM_2026/0312@ab") == "SM_2026/0312"
    assert words.name("plain") == "plain"


def test_degraded_modes_say_since_when_and_what_it_means():
    since = datetime(2026, 3, 12, 9, 5, 3, tzinfo=UTC)
    assert words.bus_away(since, date(2026, 3, 11)).endswith(
        "shows 11 March 2026, the newest that was announced before."
    )
    assert "09:05:03 UTC" in words.catalogue_away(since)
    assert "2 days" in words.silent(86400 * 2)
