"""Every kind of bad item ends as the right error, naming what was expected and found, and harms no other item."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from infra.ingest import read
from infra.settings import Region, Settings
from twin.errors import (
    AccessError,
    AssetError,
    ChecksumError,
    PlaceError,
    RangeError,
    Rejected,
    TimeError,
    Transient,
    UnitsError,
    VariableError,
)
from twin.grid import from_points

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
CELLS = from_points([0.5, 0.5], [0.5, 1.5], "test", 1)
PLACE = Region(
    name="test",
    title="Test",
    bbox=(0, 0, 2, 1),
    resolution=1,
    grid="source",
    start="2019-01-01",
    reference_start="2000-01-01",
    reference_end="2009-12-31",
    soil="loam",
    products=("smap-l3-am",),
)


class Handler(BaseHTTPRequestHandler):
    """/404 and the like answer with that status, /to?URL redirects there, everything else serves the good file."""

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        number = self.path.strip("/")
        moved = self.path.startswith("/to?")
        body = b"" if moved or number.isdigit() else self.server.body
        self.send_response(302 if moved else int(number) if number.isdigit() else 200)
        if moved:
            self.send_header("Location", self.path[4:])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.seen, running.body, running.daemon_threads = [], b"", True
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


class Bench:
    """A source folder with one good item; `broken` makes copies of it that differ in one way."""

    def __init__(self, folder: Path, server: ThreadingHTTPServer) -> None:
        self.folder, self.server = folder / "source", server
        self.folder.mkdir()
        self.settings = Settings(home=folder / "home", access={"hosts": (self.host,)})
        self.good = self.describe(self.write(self.data()))
        server.body = (self.folder / "good.nc").read_bytes()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    def data(self, values: Any = ((0.2, 0.3),), day: str = "2020-01-01") -> xr.Dataset:
        return xr.Dataset(
            {"soil_moisture": (("time", "cell"), np.array(values, np.float32), {"units": "m3 m-3"})},
            {"time": np.array([day], "M8[ns]"), "lat": ("cell", [0.5, 0.5]), "lon": ("cell", [0.5, 1.5])},
        )

    def write(self, data: xr.Dataset | bytes, name: str = "good.nc") -> Path:
        path = self.folder / name
        path.write_bytes(data) if isinstance(data, bytes) else data.to_netcdf(path)
        return path

    def describe(self, path: Path, **more: Any) -> dict[str, Any]:
        body = path.read_bytes()
        asset = {"href": str(path), "type": "application/netcdf", "size": len(body)}
        asset["checksum"] = "1220" + hashlib.sha256(body).hexdigest()
        return {
            "id": path.stem,
            "collection": "smap-l3-am",
            "datetime": "2020-01-01T12:00:00Z",
            "source": str(self.folder / "catalog.json"),
            "href": str(self.folder / path.stem / "item.json"),
            "bbox": [0, 0, 2, 1],
            "assets": {"data": asset},
            **more,
        }

    def item(self, content: xr.Dataset | bytes, **more: Any) -> dict[str, Any]:
        """An honest item about bad content."""
        return self.describe(self.write(content, "bad.nc"), **more)

    def asset(self, **more: Any) -> dict[str, Any]:
        """The good item with something wrong about its asset."""
        arrival = copy.deepcopy(self.good)
        arrival["assets"]["data"].update(more)
        return arrival

    def at(self, href: str, checksum: str = "") -> dict[str, Any]:
        return self.asset(href=href.format(host=self.host, port=self.server.server_port), checksum=checksum, size=None)

    def read(self, arrival: dict[str, Any]):
        return read(arrival, CELLS, now=NOW, region=PLACE, settings=self.settings)


@pytest.fixture
def bench(tmp_path, server) -> Bench:
    return Bench(tmp_path, server)


def _units(bench: Bench) -> dict[str, Any]:
    data = bench.data()
    data["soil_moisture"].attrs["units"] = "%"
    return bench.item(data)


def _linked(bench: Bench) -> dict[str, Any]:
    secret = bench.folder.parent / "secret.nc"
    bench.data().to_netcdf(secret)
    (bench.folder / "link.nc").symlink_to(secret)
    return bench.at(str(bench.folder / "link.nc"))


def _absurd(bench: Bench) -> dict[str, Any]:
    with netCDF4.Dataset(bench.folder / "bad.nc", "w") as file:
        for name in ("time", "lat", "lon"):
            file.createDimension(name, 10**5)
        file.createVariable("soil_moisture", "f4", ("time", "lat", "lon"), chunksizes=(1, 100, 100)).units = "m3 m-3"
    return bench.describe(bench.folder / "bad.nc")


def _no_places(bench: Bench) -> dict[str, Any]:
    return bench.item(bench.data().drop_vars(["lat", "lon"]))


def _truncated(bench: Bench, **form: Any) -> dict[str, Any]:
    path = bench.folder / "bad.nc"
    bench.data().to_netcdf(path, **form)
    return bench.item(path.read_bytes()[:-8])


BAD: dict[str, tuple[Callable[[Bench], dict[str, Any]], type[Rejected], str, str]] = {
    # what: (the item, its error, what the message expected, what it found)
    "wrong units": (_units, UnitsError, "m3 m-3", "'%'"),
    "wrong variable": (
        lambda b: b.item(b.data().rename(soil_moisture="temperature")),
        VariableError,
        "soil_moisture",
        "temperature, ",
    ),
    "wrong dimensions": (
        lambda b: b.item(b.data().expand_dims(band=2, axis=2)),
        VariableError,
        "dimensions time, cell",
        "time, cell, band",
    ),
    "nothing but NaN": (lambda b: b.item(b.data([[np.nan, np.nan]])), RangeError, "values", "no finite value"),
    "out of range": (lambda b: b.item(b.data([[0.2, 30.0]])), RangeError, "0 to 1 m3 m-3", "30"),
    "infinite": (lambda b: b.item(b.data([[0.2, np.inf]])), RangeError, "0 to 1 m3 m-3", "inf"),
    "undeclared fill value": (lambda b: b.item(b.data([[0.2, -9999.0]])), RangeError, "0 to 1 m3 m-3", "-9999"),
    "truncated": (_truncated, AssetError, "NetCDF", "bytes that cannot be read"),
    "truncated NetCDF 3": (
        lambda b: _truncated(b, format="NETCDF3_CLASSIC", engine="netcdf4"),
        AssetError,
        "bytes, as its header says",
        "bytes",
    ),
    "garbage": (lambda b: b.item(bytes(range(256))), AssetError, "NetCDF", "256 bytes starting with b'\\x00\\x01"),
    "an error page": (
        lambda b: b.item(b"<html>gone</html>"),
        AssetError,
        "NetCDF",
        "17 bytes starting with b'<html>go",
    ),
    "empty": (lambda b: b.item(b""), AssetError, "NetCDF", "0 bytes"),
    "absurd dimensions": (_absurd, AssetError, "at most", "lat 100000"),
    "another checksum": (lambda b: b.asset(checksum="1220" + "0" * 64), ChecksumError, "12200000", "1220"),
    "another size": (lambda b: b.asset(size=7), ChecksumError, "7 bytes", "bytes"),
    "no such file": (lambda b: b.at(str(b.folder / "missing.nc")), AssetError, "a file", "nothing there"),
    "404": (lambda b: b.at("http://{host}/404"), AssetError, "HTTP 200", "HTTP 404"),
    "410": (lambda b: b.at("http://{host}/410"), AssetError, "HTTP 200", "HTTP 410"),
    "403": (lambda b: b.at("http://{host}/403"), AccessError, "HTTP 200", "HTTP 403"),
    "no place": (_no_places, PlaceError, "latitudes and longitudes", "soil_moisture"),
    "another region": (
        lambda b: b.item(b.data().assign_coords(lat=("cell", [50.0, 51.0]))),
        PlaceError,
        "lat 0.50 to 0.50",
        "lat 50.00 to 51.00",
    ),
    "impossible places": (
        lambda b: b.item(b.data().assign_coords(lat=("cell", [500.0, 0.5]))),
        PlaceError,
        "in degrees",
        "latitudes 0.5..500",
    ),
    "the future": (
        lambda b: b.item(b.data(day="2026-06-02"), datetime="2026-06-02T12:00:00Z"),
        TimeError,
        "no later than 2026-06-01",
        "2026-06-02",
    ),
    "another day than it says": (
        lambda b: b.item(b.data(day="2020-03-01")),
        TimeError,
        "the item's own period, 2020-01-01",
        "2020-03-01",
    ),
    "before the region begins": (
        lambda b: b.item(b.data(day="2018-05-01"), datetime="2018-05-01T12:00:00Z"),
        TimeError,
        "days from 2019-01-01 on",
        "2018-05-01",
    ),
    "no time at all": (lambda b: {**b.good, "datetime": None}, TimeError, "an RFC 3339 time", "None"),
    "the same day twice": (
        lambda b: b.item(xr.concat([b.data(), b.data()], "time")),
        TimeError,
        "increasing times",
        "2 from",
    ),
    "a made-up calendar": (
        lambda b: b.item(
            b.data()
            .drop_vars("time")
            .assign_coords(time=("time", [0], {"units": "days since 2020-01-01", "calendar": "360_day"}))
        ),
        TimeError,
        "standard calendar",
        "360_day",
    ),
    "no known product": (lambda b: {**b.good, "collection": "modis"}, VariableError, "smap-l3-am", "'modis'"),
    "no asset": (lambda b: {**b.good, "assets": {}}, VariableError, "a data asset", "none"),
    "an absolute path": (lambda b: b.at("/etc/passwd"), AccessError, "a file in", "/etc/passwd"),
    "path traversal": (
        lambda b: b.at(str(b.folder / "../../../../../../../../etc/passwd")),
        AccessError,
        "a file in",
        "/etc/passwd",
    ),
    "a file URL": (lambda b: b.at("file:///etc/passwd"), AccessError, "a file in", "/etc/passwd"),
    "a link to elsewhere": (_linked, AccessError, "a file in", "secret.nc"),
    "this machine": (lambda b: b.at("http://127.0.0.1:1/a.nc"), AccessError, "127.0.0.1", "127.0.0.1:1"),
    "the metadata service": (
        lambda b: b.at("http://169.254.169.254/a.nc"),
        AccessError,
        "127.0.0.1",
        "169.254.169.254",
    ),
    "a decimal address": (lambda b: b.at("http://2130706433:{port}/a.nc"), AccessError, "127.0.0.1", "2130706433"),
    "a redirect to a private address": (
        lambda b: b.at("http://{host}/to?http://169.254.169.254/latest"),
        AccessError,
        "127.0.0.1",
        "169.254.169.254",
    ),
    "a redirect to a file": (
        lambda b: b.at("http://{host}/to?file:///etc/passwd"),
        AccessError,
        "a file, http",
        "file",
    ),
    "another protocol": (lambda b: b.at("s3://bucket/a.nc"), AccessError, "a file, http or https", "s3"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_item_is_rejected_with_both_sides(bench, what):
    make, error, expected, found = BAD[what]
    with pytest.raises(Rejected) as caught:
        bench.read(make(bench))
    reason = caught.value
    assert type(reason) is error, reason
    assert expected in reason.expected and found in reason.found, reason
    assert "expected" in str(reason) and "item " in str(reason), reason


def test_bad_items_harm_no_other(bench):
    before = bench.read(bench.good)
    for make, *_ in BAD.values():
        with pytest.raises(Rejected):
            bench.read(make(bench))
    xr.testing.assert_identical(bench.read(bench.good).data, before.data)


def test_no_bad_href_ever_reaches_a_server_it_should_not(bench):
    bench.server.seen.clear()
    for what in ("this machine", "a decimal address", "the metadata service", "another protocol"):
        with pytest.raises(AccessError):
            bench.read(BAD[what][0](bench))
    assert bench.server.seen == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_provider_in_trouble_is_asked_again_later(bench, status):
    with pytest.raises(Transient, match=f"found HTTP {status}"):
        bench.read(bench.at(f"http://{{host}}/{status}"))


def test_a_good_asset_over_http_is_as_good(bench):
    checksum = bench.good["assets"]["data"]["checksum"]
    over_http = bench.read(bench.at("http://{host}/good.nc", checksum))
    xr.testing.assert_identical(over_http.data, bench.read(bench.good).data)


def test_an_item_issued_again_is_read_again(bench):
    """Same id and href, other content: the new item brings the new values, the old item no longer matches its asset."""
    old = bench.good
    assert float(bench.read(old).data.surface_soil_moisture[0, 0]) == pytest.approx(0.2)
    new = bench.describe(bench.write(bench.data([[0.25, 0.3]])))
    assert new["id"] == old["id"] and new["assets"]["data"]["checksum"] != old["assets"]["data"]["checksum"]
    assert float(bench.read(new).data.surface_soil_moisture[0, 0]) == pytest.approx(0.25)
    with pytest.raises(ChecksumError, match=r"expected .*, found "):
        bench.read(old)


def test_an_item_issued_again_over_http_is_not_served_from_the_cache(bench):
    old = bench.at("http://{host}/good.nc", bench.good["assets"]["data"]["checksum"])
    bench.read(old)
    fresh = bench.describe(bench.write(bench.data([[0.25, 0.3]])))
    bench.server.body = (bench.folder / "good.nc").read_bytes()
    new = bench.at("http://{host}/good.nc", fresh["assets"]["data"]["checksum"])
    assert float(bench.read(new).data.surface_soil_moisture[0, 0]) == pytest.approx(0.25)


def test_a_lying_box_does_no_harm_where_the_data_cover_the_region(bench):
    assert bench.read({**bench.good, "bbox": [100, 60, 101, 61]}).notes["cells"] == 2
