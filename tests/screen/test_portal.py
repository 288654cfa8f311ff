"""The portal on a real store and bus: by AppTest, and as a person sees it in a browser cut off from the internet."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import streamlit as st
import xarray as xr
from streamlit.testing.v1 import AppTest

from infra.bus import Event
from infra.bus_log import LogBus
from infra.settings import Settings
from infra.store import Store
from infra.wiring import embedded_catalog
from twin import climatology
from twin.events import DROUGHT_UPDATED, ITEM_QUARANTINED, fact
from twin.indices.classes import drought_class
from ui import words

ORIGIN = pd.Timestamp("2025-01-01")
DAYS = 120
EVIL = "SM_<img src=x onerror=alert(1)>"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@dataclass
class Twin:
    """A small real twin: 20 x 15 cells of half a degree, written and announced day by day."""

    home: Path
    region: str = "testland"

    def __post_init__(self):
        self.store, self.bus = Store.open(self.home / "store"), LogBus(self.home / "events.sqlite")

    def prepare(self):
        lat, lon = (
            a.ravel() for a in np.meshgrid(9.75 - 0.5 * np.arange(15), 0.25 + 0.5 * np.arange(20), indexing="ij")
        )
        cells = xr.Dataset(coords={"lat": ("cell", lat), "lon": ("cell", lon)})
        draft = self.store.draft()
        draft.create(self.region, cells.assign_attrs(region=self.region, resolution=0.5), ORIGIN)
        past = pd.date_range("2021-01-01", "2024-12-31")
        theta = np.random.default_rng(4).normal(0.25, 0.04, (past.size, 300)).astype("float32")
        draft.put(self.region, "climatology", climatology.build(theta, past.values))
        draft.commit("prepare")

    def release(
        self,
        until: int,
        first: int = 0,
        refused: tuple[dict, ...] = (),
        analysed: str = "",
        doubts: tuple[str, ...] = (),
    ) -> str:
        """Days first..until - 1 in one release; its snapshot.

        analysed, doubts   last day whose observations were assimilated, and why an analysis after it was refused
        """
        draft = self.store.draft()
        days = ORIGIN + pd.to_timedelta(np.arange(first, until), "D")
        spread = np.linspace(0, 100, 300)
        rank = ((spread[None, :] + np.arange(first, until)[:, None]) % 100).astype("float32")
        rank[:, 299] = np.nan
        theta = (0.15 + 0.002 * rank).astype("float32")
        both = ("time", "cell")
        drought = xr.Dataset(
            {
                "root_zone_soil_moisture": (both, theta),
                "soil_moisture_percentile": (both, rank),
                "drought_class": (both, drought_class(rank)),
            },
            {"time": days},
        )
        if analysed:
            spread = np.where(days > pd.Timestamp(analysed) - pd.Timedelta(days=30), 0.021, np.nan)
            wide = np.broadcast_to(spread[:, None], theta.shape).astype("float32")
            drought["root_zone_soil_moisture_spread"] = both, wide
        draft.write(self.region, "drought", drought)
        draft.write(self.region, "observations/sif", xr.Dataset({"sif_radiance": (both, 5.0 * theta)}, {"time": days}))
        draft.write(
            self.region, "observations/smap", xr.Dataset({"surface_soil_moisture": (both, theta)}, {"time": days})
        )
        item = f"SM_{days[-1]:%Y%m%d}"
        consumed = {"key": f"sm/{item}@1", "id": item, "product": "smap", "kind": "observation", "spans": []}
        glow = {"key": f"sif/{item}@1", "id": item, "product": "sif", "kind": "observation", "spans": []}
        sequence = len(draft.journal(self.region))
        day = str(days[-1].date())
        about = {"region": self.region, "sequence": sequence}
        facts = [fact(ITEM_QUARANTINED, self.region, r["id"], {**about, "key": r["key"]}) for r in refused]
        update = {"valid_day": day, "tier": "open_loop", "simulated": True, "reference_years": 4, "class_fractions": {}}
        if analysed:
            update["analysed_until"] = analysed
        keys = {"consumed": [consumed["key"]], "quarantined": [r["key"] for r in refused]}
        facts.append(fact(DROUGHT_UPDATED, self.region, f"{self.region}-drought", {**about, **update, **keys}))
        now = datetime.now(UTC).isoformat()
        taken = [consumed, glow] if analysed else [consumed]
        entry = {"consumed": taken, "quarantined": list(refused), "events": facts, "release": update, "time": now}
        if doubts:
            entry["analysis"] = {"window": ["2025-01-01", analysed], "accepted": False, "reasons": list(doubts)}
        draft.append_journal(self.region, entry)
        snapshot = draft.commit("release")
        self.bus.publish(
            Event(
                f["id"],
                f["type"],
                "/regions/testland",
                f["subject"],
                now,
                {**f["data"], "snapshot": snapshot},
                self.region,
            )
            for f in facts
        )
        return snapshot


REFUSED = {"key": "sm/bad@1", "id": EVIL, "kind": "UnitsError", "reason": "moisture: expected m3 m-3, found 'percent'"}


@pytest.fixture
def twin(tmp_path, monkeypatch) -> Twin:
    """A twin with two releases, and the settings that point to it."""
    monkeypatch.setenv("TWIN_HOME", str(tmp_path))
    made = Twin(tmp_path)
    made.prepare()
    made.release(DAYS - 1, refused=(REFUSED,))
    made.snapshot = made.release(DAYS, first=DAYS - 1)
    return made


# ----------------------------------------------------------------------------------------------------------- AppTest


@pytest.fixture
def app():
    """The portal's script, run in this process with caches of its own."""
    st.cache_resource.clear()
    yield AppTest.from_file(str(Path(words.__file__).with_name("app.py")), default_timeout=60)
    st.cache_resource.clear()


def shown(app: AppTest) -> str:
    """All HTML and text on the page."""
    assert not app.exception, [problem.stack_trace for problem in app.exception]
    return "\n".join(str(getattr(part, "value", "") or part.proto.body) for part in app.get("html"))


def test_the_newest_release_is_described_in_words(app, twin):
    page = shown(app.run())
    assert "Testland" in page
    assert "30 April 2025" in page  # day 120 of 2025
    assert "of the land is in drought" in page
    assert "Simulated data" in page
    assert "Open loop" in page
    assert f"Release {1}" in page
    for value, name in ((2, "items taken in"), (1, "items set aside"), (2, "releases"), (300, "cells")):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    assert "Made from SM_20250430" in page


def test_a_refused_item_is_listed_with_its_reason_and_cannot_inject(app, twin):
    page = shown(app.run())
    assert "wrong units" in page
    assert "expected m3 m-3, found &#x27;percent&#x27;" in page
    assert "<img" not in page


def test_an_analysed_region_says_until_when_how_sure_and_why_the_last_check_is_not_used(app, twin):
    """A product that is not soil moisture stays out of the chart of it."""
    doubt = "K_s went 4.5 standard deviations from its prior, at most 4 are believed"
    twin.release(DAYS, first=DAYS - 31, analysed="2025-04-18", doubts=(doubt,))
    app.query_params.update({"region": "testland", "cell": "9.75,2.25"})
    page = shown(app.run())
    assert "Open loop for 12 days" in page and "since 18 April 2025, the last day satellites corrected it" in page
    assert "± 0.02\u202fm³\u202fm⁻³ of water in the top metre." in page and words.SPREAD_NOTE in page
    assert "(1 January 2025 to 18 April 2025) is not used: it would have taken soil or plants unlike any known" in page
    assert "(smap)" in page and "(sif)" not in page
    app.query_params["day"] = "2025-04-10"
    page = shown(app.run())
    assert "Checked against satellites until 18 April 2025" in page, "that day was"
    app.query_params["day"] = "2025-01-10"
    assert "±" not in shown(app.run()).replace(words.SPREAD_NOTE, ""), "before the window nobody knows how sure it is"


def test_a_place_and_a_day_come_from_the_address(app, twin):
    app.query_params.update({"region": "testland", "cell": "9.75,2.25", "day": "2025-04-01"})
    page = shown(app.run())
    # cell 4 has percentile (4 * 100/299 + 90) % 100 on day 90
    assert "Wetter than 4 of 4" not in page
    assert "percentile 91" in page
    assert "1 April 2025" in page
    assert "short record" in page


@pytest.mark.parametrize(
    ("query", "note"),
    [
        ({"cell": "50,50"}, words.NO_SUCH_PLACE),
        ({"cell": "<script>"}, words.NO_SUCH_PLACE),
        ({"day": "1999-01-01"}, words.NO_SUCH_DAY),
        ({"day": "soon"}, words.NO_SUCH_DAY),
        ({"region": "atlantis"}, "Testland"),
    ],
)
def test_an_address_that_names_nothing_is_answered(app, twin, query, note):
    app.query_params.update(query)
    assert note in shown(app.run())


def test_the_region_can_be_chosen_where_there_are_several(app, twin):
    other = Twin(twin.home, "otherland")
    other.prepare()
    other.release(50)
    page = shown(app.run())
    assert "19 February 2025" in page  # the region released last, day 50
    app.selectbox[0].select("testland").run()
    assert "30 April 2025" in shown(app)
    assert app.query_params["region"] in ("testland", ["testland"])


def test_an_empty_twin_says_what_it_waits_for(app, tmp_path, monkeypatch):
    monkeypatch.setenv("TWIN_HOME", str(tmp_path))
    page = app.run()
    assert words.EMPTY in shown(page)
    assert words.NO_EVENTS in shown(page)


def test_a_release_without_announcement_is_shown_and_said_to_be(app, twin):
    (twin.home / "events.sqlite").unlink()
    for rest in twin.home.glob("events.sqlite-*"):
        rest.unlink()
    page = shown(app.run())
    assert "30 April 2025" in page
    assert words.not_announced() in page


def test_a_bus_that_goes_away_is_missed_and_welcomed_back(app, twin):
    shown(app.run())
    log = twin.home / "events.sqlite"
    twin.bus = None
    kept = {path: path.read_bytes() for path in twin.home.glob("events.sqlite*")}
    for path in kept:
        path.write_bytes(b"\xff" * len(kept[path]))
    assert "The event bus has not answered since" in wait_for(app, "event bus has not answered")
    for path, content in kept.items():
        path.write_bytes(content)
    assert log.exists()
    wait_for(app, "event bus has not answered", gone=True)


def wait_for(app: AppTest, text: str, gone: bool = False) -> str:
    """The page once it holds the text, or no longer does; runs it again as the fragment would."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if (text in (page := shown(app.run()))) != gone:
            return page
        time.sleep(0.3)
    raise AssertionError(f"{text!r} {'still' if gone else 'never'} on the page")


# ----------------------------------------------------------------------------------------------------------- browser


@dataclass
class Portal:
    """A served portal and its twin."""

    twin: Twin
    url: str


@pytest.fixture(scope="module")
def portal(tmp_path_factory):
    """A portal in its own process, with the embedded catalogue."""
    home = tmp_path_factory.mktemp("portal")
    twin = Twin(home)
    twin.prepare()
    twin.release(DAYS - 1, refused=(REFUSED,))
    twin.snapshot = twin.release(DAYS, first=DAYS - 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with embedded_catalog(Settings(home=home)) as settings:
        environment = {**os.environ, "TWIN_HOME": str(home), "TWIN_CATALOG__URL": settings.catalog.url}
        command = [sys.executable, "-m", "ui", "--port", str(port)]
        with subprocess.Popen(command, env=environment, cwd=home) as process:
            try:
                _wait_until_served(f"http://127.0.0.1:{port}/_stcore/health")
                yield Portal(twin, f"http://127.0.0.1:{port}")
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


def _wait_until_served(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


@pytest.fixture(scope="module")
def chromium():
    """One Chromium for all tests of this file."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(portal, chromium):
    """Open the portal: visit(query, **context options) -> page; nothing but this machine may be asked for anything."""
    abroad, problems, contexts = [], [], []

    def open_page(query: str = "", **options):
        context = chromium.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
        contexts.append(context)
        context.route("**/*", lambda route: route.continue_() if _here(route.request.url) else _refuse(route, abroad))
        page = context.new_page()
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.goto(portal.url + query)
        page.wait_for_selector("canvas[data-shown]", timeout=30_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert abroad == []
    assert problems == []


def _here(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1"


def _refuse(route, abroad: list[str]) -> None:
    abroad.append(route.request.url)
    route.abort()


def drawn(page, snapshot: str, day: str = "") -> None:
    """Wait until the canvas shows that snapshot (and day)."""
    wanted = f"canvas[data-shown^='{snapshot} {day}']"
    page.wait_for_selector(wanted, timeout=60_000)


PIXEL = """([x, y]) => {
  const walk = (root) => { for (const e of root.querySelectorAll('*')) {
    if (e.tagName === 'CANVAS' && e.dataset.shown) return e;
    const found = e.shadowRoot && walk(e.shadowRoot);
    if (found) return found;
  } };
  const c = walk(document), r = c.width / c.clientWidth;
  return [...c.getContext('2d').getImageData(Math.round(x * r), Math.round(y * r), 1, 1).data].slice(0, 3); }"""


@pytest.mark.browser
@needs_chromium
def test_the_map_shows_the_announced_release_with_its_legend(portal, visit):
    page = visit()
    drawn(page, portal.twin.store.head())
    assert page.title() == words.TITLE
    legend = page.locator(".legend button")
    assert legend.count() == 12
    assert "D4 exceptional drought" in legend.nth(0).inner_text()
    box = page.locator("canvas[data-shown]").bounding_box()
    page.wait_for_timeout(500)
    colors = {tuple(page.evaluate(PIXEL, [box["width"] / 2, box["height"] * y / 30])) for y in range(2, 29)}
    assert len(colors) > 6  # the classes of this twin run from north to south


@pytest.mark.browser
@needs_chromium
def test_a_click_opens_the_place_and_the_address_remembers_it(portal, visit):
    page = visit()
    box = page.locator("canvas[data-shown]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.locator(".tip").is_visible()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector(".place .sentence", timeout=15_000)
    page.wait_for_selector(
        "[data-testid='stVegaLiteChart'] canvas, [data-testid='stVegaLiteChart'] svg", timeout=15_000
    )
    page.wait_for_url("**cell=*", timeout=10_000)
    sentence = page.locator(".place .sentence").inner_text()
    again = visit(urlsplit(page.url).query and f"?{urlsplit(page.url).query}")
    again.wait_for_selector(".place .sentence", timeout=15_000)
    assert again.locator(".place .sentence").inner_text() == sentence


@pytest.mark.browser
@needs_chromium
def test_the_map_can_be_used_with_the_keyboard(portal, visit):
    page = visit()
    page.locator("canvas[data-shown]").focus()
    page.keyboard.press("ArrowRight")
    first = page.locator(".tip").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text() != first
    page.keyboard.press("+")
    page.keyboard.press("0")
    page.keyboard.press("Enter")
    page.wait_for_selector(".place .sentence", timeout=15_000)


@pytest.mark.browser
@needs_chromium
def test_an_earlier_day_by_address_and_back_to_the_latest(portal, visit):
    page = visit("?day=2025-04-01")
    drawn(page, portal.twin.store.head(), "2025-04-01")
    page.get_by_text(words.LATEST).click()
    page.wait_for_function("() => !location.search.includes('day=')", timeout=10_000)


@pytest.mark.browser
@needs_chromium
def test_two_open_pages_follow_the_bus_without_a_reload(portal, visit):
    pages = [visit(), visit("?cell=9.75,2.25")]
    for page in pages:
        page.evaluate("() => { window.still = true }")
    until = (portal.twin.store.at().last_day("testland", "drought") - ORIGIN).days + 1
    snapshot = portal.twin.release(until + 1, first=until)
    day = str((ORIGIN + pd.Timedelta(days=until)).date())
    for page in pages:
        drawn(page, snapshot, day)
        assert page.evaluate("() => window.still")
        page.locator(".list").first.get_by_text(f"updated to {words.day(pd.Timestamp(day))}").wait_for(timeout=10_000)


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_both_themes(portal, visit, scheme):
    page = visit("?cell=9.75,2.25", viewport={"width": 390, "height": 844}, color_scheme=scheme)
    page.wait_for_selector(".place .sentence", timeout=15_000)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.wait_for_timeout(500)
    sea = page.evaluate(PIXEL, [2, 2])
    assert (sum(sea) < 150) == (scheme == "dark")
    background = page.evaluate("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert (background == "rgb(20, 24, 29)") == (scheme == "dark")


@pytest.mark.browser
@needs_chromium
def test_the_map_tells_how_sure_it_is_once_observations_were_assimilated(portal, visit):
    page = visit()
    box = page.locator("canvas[data-shown]").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert "±" not in page.locator(".tip").inner_text()
    until = (portal.twin.store.at().last_day("testland", "drought") - ORIGIN).days + 1
    day = str((ORIGIN + pd.Timedelta(days=until)).date())
    drawn(page, portal.twin.release(until + 1, first=until, analysed=day), day)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
    assert re.search(r"0\.\d\d ± 0\.02 m³ m⁻³", page.locator(".tip").inner_text())
    page.get_by_text(f"Checked against satellites until {words.day(pd.Timestamp(day))}").wait_for(timeout=10_000)
