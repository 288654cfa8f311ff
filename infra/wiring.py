"""The one place where settings become objects."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from infra.arrivals import Arrivals
from infra.bus import EventBus
from infra.bus_log import LogBus
from infra.compute import Compute, chosen
from infra.positions import Positions
from infra.settings import CatalogSettings, Settings
from infra.store import Store
from twin.errors import SettingsError, Transient
from twin.model import LandModel

if TYPE_CHECKING:
    from stac.catalog import Listing

EMBEDDED = 8081  # port the embedded STAC API takes when it is free
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


@dataclass(frozen=True)
class Services:
    """Everything an entry point works with."""

    store: Store
    catalog: Listing
    bus: EventBus
    model: LandModel
    compute: Compute
    settings: Settings
    positions: Positions


def build(settings: Settings) -> Services:
    """The services these settings ask for; SettingsError for a kind there is not, or a store or bus that is not ours.

    The catalogue is not contacted before it is used.
    """
    from stac.api import ApiCatalog

    url = settings.catalog.url or f"http://127.0.0.1:{EMBEDDED}"
    token = settings.catalog.token
    compute = chosen(settings)
    return Services(
        store=Store.open(settings.store.url or settings.home / "store"),
        catalog=Translated(ApiCatalog(url, token.get_secret_value() if token else None)),
        bus=_of_kind("BUS", settings.bus.kind, BUSES)(settings),
        model=_of_kind("MODEL", settings.model.kind, MODELS)(settings, compute),
        compute=compute,
        settings=settings,
        positions=Positions(settings.home / "positions", _target(url, settings)),
    )


def outbox(settings: Settings) -> Arrivals:
    """What was noticed and is not in the store yet."""
    return Arrivals(settings.home / "arrivals.sqlite")


@contextmanager
def embedded_catalog(settings: Settings) -> Iterator[Settings]:
    """The settings with a catalogue to publish to: the one they name, else the embedded STAC API, running meanwhile."""
    if settings.catalog.url:
        yield settings
        return
    import uvicorn

    from stac.server import create_app

    token = secrets.token_urlsafe(24)
    settings.home.mkdir(parents=True, exist_ok=True)
    app = create_app(str(settings.home / "catalog.sqlite"), token)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="on"))
    listener = _listen(EMBEDDED)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="embedded catalogue", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise SettingsError("embedded catalogue", expected="a running server", found="it stopped at start")
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield settings.model_copy(update={"catalog": CatalogSettings(url=url, token=SecretStr(token))})
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class Translated:
    """A catalogue whose errors are the twin's own: Transient when it is away, SettingsError when it refuses."""

    def __init__(self, catalog: Any) -> None:
        self.catalog = catalog
        self.url: str = catalog.url

    def upsert(self, collection: Any, items: Iterable[Any] = ()) -> int:
        with _translating(self.url):
            return self.catalog.upsert(collection, items)

    def get(self, collection: str, item: str) -> Any:
        with _translating(self.url):
            return self.catalog.get(collection, item)

    def search(self, **query: Any) -> Iterator[Any]:
        with _translating(self.url):
            yield from self.catalog.search(**query)

    def collections(self) -> Iterator[Any]:
        with _translating(self.url):
            yield from self.catalog.collections()


@contextmanager
def _translating(url: str) -> Iterator[None]:
    from stac.catalog import Refused, Unreachable

    try:
        yield
    except Unreachable as err:
        raise Transient("catalogue", expected="an answer", found=str(err), where=url) from err
    except Refused as err:
        raise SettingsError("catalogue", expected="to be allowed", found=str(err), where=url) from err


def _log_bus(settings: Settings) -> EventBus:
    return LogBus(settings.bus.url or settings.home / "events.sqlite")


def _land_daily(settings: Settings, _compute: Compute) -> LandModel:
    from twin.land import LandDaily  # compiled on import

    return LandDaily(precision=settings.model.precision)


def _land(settings: Settings, _compute: Compute) -> LandModel:
    from twin.land import Land
    from twin.operators import FLUORESCENCE

    given = settings.model
    return Land(
        given.step,
        precision=given.precision,
        retention=given.retention,
        numerics=given.numerics,
        runoff=given.runoff,
        shower=given.shower,
        wind_height=given.wind_height,
        air_height=given.air_height,
        diffuse=given.diffuse,
        fluxes=("water_evapotranspiration_flux", FLUORESCENCE),  # what is kept, besides runoff, and what is observed
    )


def _jules(settings: Settings, compute: Compute) -> LandModel:
    from twin.jules import Jules

    given, runs = settings.model, settings.home / "jules"
    for name, expected in (("executable", "jules.exe"), ("namelists", "the folder of its .nml files")):
        if not getattr(given, name):
            expected = f"{expected}, see `twin doctor`"
            raise SettingsError(f"TWIN_MODEL__{name.upper()}", expected=expected, found="nothing", where="environment")
    try:
        return Jules(
            given.executable,
            given.namelists,
            runs,
            cells_per_process=given.cells_per_process,
            version=given.version or None,
            map=compute.map,
        )
    except SettingsError as err:
        told = {"JULES executable": "EXECUTABLE", "JULES version": "VERSION"}.get(err.what, "NAMELISTS")
        where = err.where.replace("pass version=", "set TWIN_MODEL__VERSION")
        what = f"TWIN_MODEL__{told}: {err.what}"
        raise SettingsError(what, expected=err.expected, found=err.found, where=where) from err


BUSES: Mapping[str, Callable[[Settings], EventBus]] = {"log": _log_bus}
MODELS: Mapping[str, Callable[[Settings, Compute], LandModel]] = {
    "land-daily": _land_daily,
    "land": _land,
    "jules": _jules,
}


def _of_kind(section: str, kind: str, kinds: Mapping[str, Callable]) -> Callable[..., Any]:
    if kind not in kinds:
        there_are = " or ".join(sorted(kinds))
        raise SettingsError(f"TWIN_{section}__KIND", expected=there_are, found=kind, where="environment")
    return kinds[kind]


def _target(catalog: str, settings: Settings) -> str:
    """Where results go, by a name that outlives the port the embedded catalogue gets; a new target is sent all."""
    host = urlsplit(catalog).hostname
    published = "embedded" if host in _LOOPBACK else catalog
    return published if settings.bus.kind == "log" else f"{published} {settings.bus.kind}:{settings.bus.url}"


def _listen(preferred: int) -> socket.socket:
    """A socket on the loopback address, on the preferred port if it is free."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", preferred))
    except OSError:
        listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    return listener
