"""Now: where it is dry, how dry, how we know, and one place in detail.

The state is in the URL: region, cell (lat,lon) and day; without a day the page follows the newest release.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from time import monotonic
from typing import Any

import numpy as np
import streamlit as st

from infra.bus import Event
from twin.errors import TwinError
from twin.events import ANALYSIS_REFUSED, ITEM_QUARANTINED
from twin.indices import palette
from ui import component, data, figures, markup, words

SILENCE = 36 * 3600.0  # s; daily products that miss more than a day deserve a word
SHOWN_EVENTS = 20
SLIDER_DAYS = 400
TREND_DAYS = 30
RETRY = 3.0  # s until a store that could not be read is tried again


def page() -> None:
    """The whole view; runs again only when something in it changed."""
    st.session_state["page-version"] = (pulse := data.feed().pulse()).version
    st.session_state["page-silent"] = _silence(pulse, _asked_region(pulse)) > SILENCE
    try:
        regions = data.regions(pulse)
        region = _masthead(regions)
        release = data.release(pulse, region) if region else None
        if release is None:
            _waiting(pulse)
        else:
            _release(pulse, release)
    except TwinError as problem:
        st.html(markup.notices([words.store_away(str(problem)), *_notices(pulse, None)]))
        st.session_state["page-broken"] = monotonic()
    else:
        st.session_state["page-broken"] = None
    _follow()


# --------------------------------------------------------------------------------------------------------- the parts


def _masthead(regions: Sequence[str]) -> str | None:
    """Name of the twin and the choice of region; the chosen region, None when there is none."""
    left, right = st.columns([3, 1], vertical_alignment="center") if len(regions) > 1 else (st.container(), None)
    left.html(markup.brand(words.TITLE, words.SUBTITLE))
    if not regions:
        return None
    asked = st.query_params.get("region")
    region = asked if asked in regions else _default(regions)
    if right is not None:
        st.session_state["region"] = region
        right.selectbox(
            words.REGION,
            regions,
            key="region",
            format_func=_title,
            on_change=_choose_region,
            label_visibility="collapsed",
        )
    return region


def _default(regions: Sequence[str]) -> str:
    """The region released last; the first in the alphabet where none was."""
    released = data.feed().pulse().released
    return max(regions, key=lambda name: released[name].position if name in released else -1)


def _asked_region(pulse: data.Pulse) -> str | None:
    asked = st.query_params.get("region")
    return asked if asked in pulse.newest else None


def _title(region: str) -> str:
    return str(data.source().about(region).get("title") or region.replace("_", " ").title())


def _waiting(pulse: data.Pulse) -> None:
    st.html(markup.notices(_notices(pulse, None)))
    st.subheader(words.EMPTY_TITLE, anchor=False)
    st.html(markup.paragraphs(words.EMPTY))
    _events(pulse.events)


def _release(pulse: data.Pulse, release: data.Release) -> None:
    region, snapshot = release.region, release.snapshot
    first, last = data.days(snapshot, region)
    day, day_note = _day(first, min(last, release.valid_day))
    where, area = data.layout(snapshot, region)
    codes = data.classes(snapshot, region, day)
    share = figures.shares(codes, area)
    chosen, cell, place_note = _cell(where)

    st.html(markup.notices([*_notices(pulse, release), *filter(None, (day_note, place_note))]))
    st.html(
        markup.heading(
            _title(region),
            words.day(day),
            words.badges(release.tier, release.simulated, release.analysed_until, day),
            words.headline(share),
            (
                words.release(release.sequence, release.made),
                words.data_age(release.valid_day, datetime.now(UTC)),
                words.refused(refused) if (refused := data.refusal(release.latest_snapshot, region)) else "",
            ),
        )
    )
    _live(region, len(area))
    left, right = st.columns([13, 10], gap="large")
    with left:
        title = f"{_title(region)}, {words.day(day)}. {words.headline(share)}"
        shown = f"{snapshot} {day}"
        outlines = data.outlines(where.bounds)
        sure = data.sureness(snapshot, region, day)
        packed = component.payload(codes, where, share, outlines, sure, title=title, shown=shown, selected=chosen)
        component.drought_map(packed, _choose_cell)
        _slider(first, min(last, release.valid_day), day)
    with right:
        if cell is None or chosen is None:
            st.html(markup.section(words.INVITATION_TITLE) + markup.paragraphs(words.INVITATION))
            _how(release)
        else:
            _place(release, cell, chosen, day)
    left, right = st.columns(2, gap="large")
    with left:
        _events([event for event in pulse.events if event.key == region])
    with right:
        books = data.counts(release.latest_snapshot, region)
        st.html(markup.section(words.QUARANTINE) + markup.quarantine(books.refused))
    if cell is not None:
        with st.expander(words.HOW_TITLE):
            _how(release)


def _place(release: data.Release, cell: int, chosen: tuple[float, float], day: date) -> None:
    """One cell: the sentence, the status, the series."""
    found = data.place(release.snapshot, release.region, cell)
    at = np.datetime64(day, "ns")
    percentile = float(found.percentile.sel(time=at))
    code = int(found.classes.sel(time=at))
    until = found.classes.sel(time=slice(None, at))
    earlier = found.percentile.reindex(time=[at - np.timedelta64(TREND_DAYS, "D")]).item()
    theme = st.context.theme.type or "light"
    color = palette.COLORS.get(code, palette.NORMAL[theme] if code == 0 else "")
    spread = np.nan if found.spread is None else float(found.spread.sel(time=at))
    notes = [
        words.water(float(found.moisture.sel(time=at)), spread),
        words.since([int(c) for c in until.values], [_date(t) for t in until["time"].values]),
        words.trend(percentile, earlier, TREND_DAYS),
    ]
    head = markup.place(
        data.country(*chosen),
        words.place(*chosen),
        color,
        words.status(code, percentile),
        words.rank(percentile, day, release.reference_years),
        notes,
    )
    with st.container(horizontal=True, vertical_alignment="top", wrap=False):
        st.html(head)
        st.button(words.CLOSE, on_click=_leave_place, type="tertiary", width="content")
    spans = list(words.SPANS)
    span = st.segmented_control(
        words.SPAN, spans, default=spans[0], key="span", label_visibility="collapsed", required=True
    )
    length = words.SPANS[span or spans[0]]
    end = max(at, found.moisture["time"].values[-1]) if length is None else at
    start = found.moisture["time"].values[0] if length is None else end - np.timedelta64(length, "D")
    window = {"time": slice(start, end)}
    seen = {product: values.sel(window) for product, values in found.observations.items()}
    seen = {product: values for product, values in seen.items() if values.size}
    st.html(markup.paragraphs(words.CHART_MOISTURE))
    chart = figures.series(
        found.moisture.sel(window),
        found.classes.sel(window),
        None if found.bands is None else found.bands.sel(window),
        seen,
        at,
        theme=theme,
    )
    st.altair_chart(chart, width="stretch", key="series", alt=words.rank(percentile, day, release.reference_years))
    st.html(markup.key(figures.key(list(seen), found.bands is not None, theme)))
    years = release.reference_years
    compared = data.reference(release.snapshot, release.region)
    sure = words.certainty(*data.interval(percentile, years))
    more = words.SPREAD_NOTE if np.isfinite(spread) else ""
    st.html(markup.paragraphs(f"{words.reference(years, compared.first, compared.last)} {sure}", more))


def _slider(first: date, last: date, day: date) -> None:
    """The day shown, within the last year or so; older days by the URL."""
    oldest = min(max(first, last - timedelta(days=SLIDER_DAYS)), day)
    if oldest == last:
        return
    st.session_state["day"] = day
    st.slider(words.DAY, oldest, last, key="day", format="D MMM YYYY", on_change=_choose_day)
    if day != last:
        st.button(words.LATEST, on_click=_latest_day, type="tertiary")


def _events(events: Sequence[Event]) -> None:
    rows = [_row(event) for event in reversed(events[-SHOWN_EVENTS:])]
    st.html(markup.section(words.EVENTS) + markup.events(rows))


def _row(event: Event) -> dict[str, Any]:
    made = data.when(event.time)
    return {
        "text": words.event(event.type, event.subject, event.data),
        "time": words.clock(made) if made else event.time,
        "sources": [words.name(key) for key in event.data.get("consumed") or ()],
        "href": str(event.data.get("item") or ""),
        "refused": event.type in (ITEM_QUARANTINED, ANALYSIS_REFUSED),
    }


def _how(release: data.Release) -> None:
    st.html(
        markup.section(words.HOW_TITLE)
        + markup.paragraphs(words.HOW, words.PALETTE_NOTE, words.BORDERS_NOTE)
        + markup.origin(release.href, words.snapshot(release.snapshot))
    )


def _notices(pulse: data.Pulse, release: data.Release | None) -> list[str]:
    """Everything that is not as it should be, in words."""
    found = []
    if pulse.bus_since is not None:
        found.append(words.bus_away(pulse.bus_since, release.valid_day if release else None))
    if pulse.catalogue_since is not None:
        found.append(words.catalogue_away(pulse.catalogue_since))
    if release is not None and not release.announced and pulse.bus_since is None:
        found.append(words.not_announced())
    if (silence := _silence(pulse, release.region if release else None)) > SILENCE:
        found.append(words.silent(silence))
    return found


def _silence(pulse: data.Pulse, region: str | None) -> float:
    """Seconds since the region's last event (any region's without one), 0 where there was none."""
    event = pulse.newest.get(region) if region else pulse.events[-1] if pulse.events else None
    made = data.when(event.time) if event else None
    return (datetime.now(UTC) - made).total_seconds() if made else 0.0


# ------------------------------------------------------------------------------------------------- what follows the bus


@st.fragment(run_every="1s")
def _live(region: str, cells: int) -> None:
    """The counters; only these few bytes are new each second."""
    pulse = data.feed().pulse()
    release = data.release(pulse, region)
    if release is None:
        return
    books = data.counts(release.latest_snapshot, region)
    silence = _silence(pulse, region)
    values = (
        words.number(books.ingested),
        words.number(books.quarantined),
        words.number(books.releases),
        words.number(cells),
        words.span(silence) if region in pulse.newest else "–",
    )
    st.html(markup.counters(list(zip(values, words.COUNTERS, strict=True))))


@st.fragment(run_every="1s")
def _follow() -> None:
    """Runs the page again when the shared consumer knows something this page does not show."""
    pulse = data.feed().pulse()
    silent = _silence(pulse, _asked_region(pulse)) > SILENCE
    fresh = pulse.version != st.session_state.get("page-version") or silent != st.session_state.get("page-silent")
    broken = st.session_state.get("page-broken")
    if fresh or (broken is not None and monotonic() - broken > RETRY):
        st.rerun(scope="app")


# ---------------------------------------------------------------------------------------------------- state in the URL


def _day(first: date, last: date) -> tuple[date, str]:
    """The day asked for, or the newest; and a word when what was asked for is not there."""
    asked = st.query_params.get("day")
    if not asked:
        return last, ""
    try:
        day = date.fromisoformat(asked)
    except ValueError:
        return last, words.NO_SUCH_DAY
    return (day, "") if first <= day <= last else (last, words.NO_SUCH_DAY)


def _cell(where: figures.Raster) -> tuple[tuple[float, float] | None, int | None, str]:
    """The place asked for and its cell; and a word when it is outside the region."""
    asked = st.query_params.get("cell")
    if not asked:
        return None, None, ""
    place = component.address(asked)
    cell = where.cell(*place) if place else None
    return (None, None, words.NO_SUCH_PLACE) if cell is None else (place, cell, "")


def _choose_region() -> None:
    st.query_params.from_dict({"region": st.session_state["region"]})


def _choose_cell(lat: float, lon: float) -> None:
    st.query_params["cell"] = f"{round(lat, 4)},{round(lon, 4)}"


def _leave_place() -> None:
    st.query_params.pop("cell", None)


def _choose_day() -> None:
    st.query_params["day"] = st.session_state["day"].isoformat()


def _latest_day() -> None:
    st.query_params.pop("day", None)


def _date(time: np.datetime64) -> date:
    return time.astype("datetime64[D]").item()
