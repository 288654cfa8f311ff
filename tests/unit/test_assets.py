"""Assets: nothing is read outside what is allowed, and what is read is what the item described."""

from __future__ import annotations

import hashlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from infra.assets import Access, _is_public, classic_size, fetch, open_dataset, resolve
from twin.errors import AccessError, AssetError, ChecksumError, PlaceError, TimeError, Transient

BODY = b"forty-two bytes of something, or nearly so"
CHECKSUM = "1220" + hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/ok serves BODY; /status/404 that status; /to?URL redirects there; /loop to itself; /slow drips; /short stops."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["host"]))
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "status":
            self.reply(int(rest), b"")
        elif self.path.startswith("/to?"):
            self.reply(302, b"", Location=self.path[4:])
        elif kind == "loop":
            self.reply(302, b"", Location="/loop")
        elif kind == "short":
            self.reply(200, BODY[:10], length=len(BODY))
        elif kind == "slow":
            self.drip()
        else:
            self.reply(200, BODY)

    def reply(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(50):
            try:
                self.wfile.write(b".")
            except OSError:
                return
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.seen = []
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        running.address = f"127.0.0.1:{running.server_port}"
        yield running
        running.shutdown()


@pytest.fixture
def access(tmp_path, server) -> Access:
    (tmp_path / "root").mkdir()
    return Access(
        roots=(tmp_path / "root",), hosts=(server.address,), cache=tmp_path / "cache", timeout=2, max_bytes=10_000
    )


@pytest.fixture
def inside(tmp_path, access) -> Path:
    path = tmp_path / "root" / "item" / "a.nc"
    path.parent.mkdir()
    path.write_bytes(BODY)
    return path


# ---------------------------------------------------------------------------------------------------------- folders
def test_a_file_in_a_root_is_found_by_path_and_by_url(access, inside):
    assert resolve(str(inside), access) == inside
    assert resolve(inside.as_uri(), access) == inside
    assert fetch(inside.as_uri(), access, checksum=CHECKSUM, size=len(BODY)) == inside


@pytest.mark.parametrize(
    "href",
    [
        "/etc/passwd",
        "{root}/../../../../../../etc/passwd",
        "file:///etc/passwd",
        "file:///etc/../etc/passwd",
        "file:///%65tc/passwd",
    ],
)
def test_a_file_outside_the_roots_is_refused(access, tmp_path, href):
    href = href.format(root=tmp_path / "root")
    for attempt in (resolve, fetch):
        with pytest.raises(AccessError, match=r"expected a file in .*root, found /etc/passwd"):
            attempt(href, access)


def test_a_link_out_of_the_roots_is_refused(access, tmp_path):
    (tmp_path / "secret.nc").write_bytes(BODY)
    (tmp_path / "root" / "link.nc").symlink_to(tmp_path / "secret.nc")
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    for name in ("link.nc", "folder/secret.nc"):
        with pytest.raises(AccessError, match="secret"):
            resolve(str(tmp_path / "root" / name), access)


@pytest.mark.parametrize(
    "href", ["file://elsewhere/a.nc", "\0", "a" * 5000, "{root}/loop"], ids=["machine", "null", "long", "loop"]
)
def test_a_path_that_cannot_be_followed_is_refused(access, tmp_path, href):
    (tmp_path / "root" / "loop").symlink_to(tmp_path / "root" / "loop")
    with pytest.raises((AccessError, AssetError)):
        resolve(href.format(root=tmp_path / "root"), access)


def test_a_folder_or_a_pipe_is_no_asset(access, tmp_path):
    import os

    os.mkfifo(tmp_path / "root" / "pipe")
    for name in ("", "pipe", "missing.nc"):
        with pytest.raises(AssetError, match="expected a file, found nothing there"):
            fetch(str(tmp_path / "root" / name), access)


def test_without_roots_no_file_is_read(inside):
    with pytest.raises(AccessError, match="no folder is allowed"):
        fetch(inside, Access())


def test_an_href_relative_to_a_folder_above_the_catalog_is_found(tmp_path):
    catalog = tmp_path / "shared" / "data" / "conus" / "catalog.json"
    item = catalog.parent / "c" / "i" / "i.json"
    asset = catalog.parent / "assets" / "a.nc"
    asset.parent.mkdir(parents=True)
    asset.write_bytes(BODY)
    raw = "shared/data/conus/assets/a.nc"
    absolute = str(item.parent / raw)
    access = Access().with_source(str(catalog))
    assert resolve(absolute, access, item_href=str(item), source=str(catalog)) == asset
    assert resolve(absolute, access, source=catalog.as_uri(), raw=raw) == asset
    with pytest.raises(AssetError, match="nothing there"):
        resolve(absolute, access, item_href=str(item))
    (tmp_path / "shared" / "other.nc").write_bytes(BODY)  # above the catalog, but in no root
    with pytest.raises(AssetError, match="nothing there"):
        resolve(str(item.parent / "shared/other.nc"), access, item_href=str(item), source=str(catalog))


# ------------------------------------------------------------------------------------------------------------ bytes
def test_a_wrong_checksum_shows_both_sides(access, inside):
    wrong = "1220" + "0" * 64
    with pytest.raises(ChecksumError, match=f"expected {wrong}, found {CHECKSUM}"):
        fetch(inside, access, checksum=wrong)


def test_a_wrong_size_shows_both_sides(access, inside):
    with pytest.raises(ChecksumError, match="expected 7 bytes, found 42 bytes"):
        fetch(inside, access, size=7)


def test_other_multihashes_are_understood_and_unknown_ones_refused(access, inside):
    fetch(inside, access, checksum="1340" + hashlib.sha512(BODY).hexdigest())
    fetch(inside, access, checksum="d50110" + hashlib.md5(BODY).hexdigest())
    with pytest.raises(ChecksumError, match="multihash"):
        fetch(inside, access, checksum=hashlib.md5(BODY).hexdigest())


def test_too_large_a_file_is_refused(access, inside):
    inside.write_bytes(bytes(10_001))
    with pytest.raises(AssetError, match="at most 10000 bytes, found 10001 bytes"):
        fetch(inside, access)


# ---------------------------------------------------------------------------------------------------------- network
def test_a_download_is_verified_and_kept_by_content(access, server):
    path = fetch(f"http://{server.address}/ok.nc", access, checksum=CHECKSUM, size=len(BODY))
    assert path.read_bytes() == BODY and path.name == CHECKSUM[4:]
    before = len(server.seen)
    assert fetch(f"http://{server.address}/ok.nc", access, checksum=CHECKSUM) == path
    assert len(server.seen) == before
    path.write_bytes(b"damaged")
    assert fetch(f"http://{server.address}/ok.nc", access, checksum=CHECKSUM).read_bytes() == BODY
    assert [entry.name for entry in access.cache.iterdir()] == [CHECKSUM[4:]]


def test_the_oldest_downloads_make_room(access, server, tmp_path):
    small = Access(hosts=access.hosts, cache=tmp_path / "small", keep_bytes=60)
    fetch(f"http://{server.address}/ok.nc", small)
    (small.cache / "older").write_bytes(bytes(30))
    assert fetch(f"http://{server.address}/ok.nc", small).is_file()
    assert [entry.name for entry in small.cache.iterdir()] == [CHECKSUM[4:]]


@pytest.mark.parametrize(
    ("path", "error", "found"),
    [
        ("/status/404", AssetError, "HTTP 404"),
        ("/status/410", AssetError, "HTTP 410"),
        ("/status/401", AccessError, "HTTP 401"),
        ("/status/403", AccessError, "HTTP 403"),
        ("/status/429", Transient, "HTTP 429"),
        ("/status/500", Transient, "HTTP 500"),
        ("/status/503", Transient, "HTTP 503"),
        ("/loop", AssetError, "found more"),
        ("/short", Transient, "RemoteProtocolError"),
    ],
)
def test_an_answer_says_whether_trying_again_helps(access, server, path, error, found):
    with pytest.raises(error, match=found):
        fetch(f"http://{server.address}{path}", access)
    assert not list(access.cache.glob("*")) if access.cache.exists() else True


def test_a_closed_port_and_a_slow_server_are_worth_another_try(access, server):
    with pytest.raises(Transient, match="ConnectError"):
        fetch("http://127.0.0.1:9/a.nc", Access(hosts=("127.0.0.1",), cache=access.cache))
    patient = Access(hosts=access.hosts, cache=access.cache, deadline=0.3)
    with pytest.raises(Transient, match=r"all bytes in 0.3 s"):
        fetch(f"http://{server.address}/slow", patient)


def test_too_large_a_download_is_refused_before_and_while_it_runs(access, server):
    tiny = Access(hosts=access.hosts, cache=access.cache, max_bytes=20)
    with pytest.raises(AssetError, match="at most 20 bytes, found 42 bytes"):
        fetch(f"http://{server.address}/ok.nc", tiny)


@pytest.mark.parametrize(
    "href",
    [
        "http://127.0.0.1:1/a.nc",
        "http://2130706433:{port}/a.nc",
        "http://0x7f.1:{port}/a.nc",
        "http://[::1]:{port}/a.nc",
        "http://[::ffff:127.0.0.1]:{port}/a.nc",
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1/a.nc",
        "http://192.168.1.1/a.nc",
        "http://0.0.0.0:{port}/a.nc",
        "http://localhost:{port}/a.nc",
        "http://data.example.org@127.0.0.1:1/a.nc",
    ],
)
def test_private_addresses_are_refused_however_they_are_written(server, tmp_path, href):
    open_to_all = Access(hosts=("*",), cache=tmp_path)
    before = len(server.seen)
    with pytest.raises(AccessError, match=r"expected a public address, found .* at "):
        fetch(href.format(port=server.server_port), open_to_all)
    assert len(server.seen) == before


def test_unlisted_hosts_are_refused_without_asking_who_they_are(access):
    with pytest.raises(AccessError, match=r"expected 127.0.0.1:\d+, found evil.example:80"):
        fetch("http://evil.example/a.nc", access)
    with pytest.raises(AccessError, match="no host is allowed"):
        fetch("http://evil.example/a.nc", Access())


@pytest.mark.parametrize(
    ("target", "error", "found"),
    [
        ("http://169.254.169.254/latest", AccessError, "found 169.254.169.254 at 169.254.169.254"),
        ("http://2130706433:1/", AccessError, "at 127.0.0.1"),
        ("file:///etc/passwd", AccessError, "found file"),
        ("gopher://127.0.0.1/", AccessError, "found gopher"),
    ],
)
def test_every_redirect_is_checked_again(access, server, target, error, found):
    lax = Access(hosts=("*", server.address), cache=access.cache)
    with pytest.raises(error, match=found):
        fetch(f"http://{server.address}/to?{target}", lax)


def test_an_allowed_redirect_is_followed(access, server):
    assert fetch(f"http://{server.address}/to?/ok.nc", access).read_bytes() == BODY


def test_localhost_may_be_listed_by_name_and_keeps_it(server, tmp_path):
    access = Access(hosts=(f"localhost:{server.server_port}",), cache=tmp_path)
    assert fetch(f"http://localhost:{server.server_port}/ok.nc", access).read_bytes() == BODY
    assert server.seen[-1] == ("/ok.nc", f"localhost:{server.server_port}")


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("https://stac.example.org/v1", "stac.example.org"),
        ("http://u:p@stac.example.org:81/v1", "stac.example.org:81"),
        ("http://127.0.0.1/catalog.json", "127.0.0.1:80"),
        ("https://[::1]/catalog.json", "[::1]:443"),
        ("http://localhost:8080/", "localhost:8080"),
    ],
)
def test_a_source_opens_its_own_host_and_no_more_of_a_private_one(source, host):
    assert Access().with_source(source).hosts == (host,)


def test_a_network_may_be_listed(server, tmp_path):
    access = Access(hosts=("127.0.0.0/8",), cache=tmp_path)
    assert fetch(f"http://{server.address}/ok.nc", access).read_bytes() == BODY


@pytest.mark.parametrize("href", ["ftp://h/a.nc", "s3://bucket/a.nc", "data:,x", "javascript:1", "http:///a.nc"])
def test_other_schemes_are_refused(access, href):
    with pytest.raises(AccessError):
        fetch(resolve(href, access), access)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
    ],
)
def test_public_means_reachable_by_anyone(address, public):
    assert _is_public(ip_address(address)) is public


def test_messages_do_not_repeat_passwords(access):
    with pytest.raises(AccessError) as caught:
        fetch("http://user:hunter2@evil.example/a.nc", access)
    assert "hunter2" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- opening
def raster(**attrs: object) -> xr.Dataset:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    values[0, 0, 0] = np.nan
    return xr.Dataset(
        {"v": (("time", "lat", "lon"), values, {"units": "K"}), "w": (("time", "lat", "lon"), values)},
        {
            "time": np.array(["2020-01-01", "2020-01-02"], "M8[ns]"),
            "lat": [2.0, 1.0, 0.0],
            "lon": [0.0, 90.0, 180.0, 270.0],
        },
        attrs,
    )


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT"])
def test_both_generations_of_netcdf_are_read_as_written(tmp_path, form):
    raster().to_netcdf(tmp_path / "a.nc", format=form)
    opened = open_dataset(tmp_path / "a.nc", only=["v"])
    assert "w" not in opened and opened.attrs["all_variables"] == ("v", "w", "time", "lat", "lon")
    assert opened["v"].dtype == np.float32
    xr.testing.assert_equal(opened["v"], raster()["v"])


def test_missing_values_and_packing_are_undone(tmp_path):
    encoding = {"v": {"dtype": "int16", "scale_factor": 0.5, "add_offset": 1.0, "_FillValue": -9}}
    raster().to_netcdf(tmp_path / "a.nc", encoding=encoding)
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.nc")["v"], raster()["v"])


def test_axes_are_found_whatever_they_are_called(tmp_path):
    raster().rename(lat="latitude", lon="Longitude").to_netcdf(tmp_path / "a.nc")
    assert {"lat", "lon"} <= set(open_dataset(tmp_path / "a.nc").coords)
    renamed = raster().rename(lat="y", lon="x")
    renamed["y"].attrs["standard_name"], renamed["x"].attrs["standard_name"] = "latitude", "longitude"
    renamed.to_netcdf(tmp_path / "b.nc")
    assert open_dataset(tmp_path / "b.nc")["v"].dims == ("time", "lat", "lon")


def test_a_raster_is_cut_to_the_box_across_both_longitude_habits(tmp_path):
    raster().to_netcdf(tmp_path / "a.nc")
    cut = open_dataset(tmp_path / "a.nc", bbox=(-91, 0.9, -89, 1.1))
    assert cut["v"].shape == (2, 1, 1) and cut["v"].values[0, 0, 0] == 7
    with pytest.raises(PlaceError, match=r"expected latitudes 40\.\.50 .*found latitudes 0\.\.2"):
        open_dataset(tmp_path / "a.nc", bbox=(-91, 40, -89, 50))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "0 bytes starting with b''"),
        (b"<!DOCTYPE html>", "15 bytes starting with b'<!DOCTYP'"),
        (bytes(99), "99 bytes"),
    ],
)
def test_what_is_no_netcdf_is_shown(tmp_path, content, found):
    (tmp_path / "a.nc").write_bytes(content)
    with pytest.raises(AssetError, match="expected NetCDF, found") as caught:
        open_dataset(tmp_path / "a.nc")
    assert found in str(caught.value) and "a.nc" in str(caught.value)


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("unlimited", [[], ["time"]], ids=["fixed", "unlimited"])
def test_a_truncated_file_is_an_asset_error_wherever_it_ends(tmp_path, form, unlimited):
    """Read as it is, a NetCDF 3 file cut short yields zeros for what is gone."""
    path = tmp_path / "a.nc"
    raster().to_netcdf(path, format=form, unlimited_dims=unlimited, engine="netcdf4")
    good = path.read_bytes()
    open_dataset(path)
    for end in [*range(0, len(good) - 8, max(1, len(good) // 40)), len(good) - 8]:
        path.write_bytes(good[:end])
        with pytest.raises(AssetError, match=r"a\.nc"):
            open_dataset(path)


def test_one_variable_along_the_unlimited_dimension_is_not_padded(tmp_path):
    """The classic format's one exception: with a single record variable, records follow each other without padding."""
    data = xr.Dataset({"flag": (("time", "x"), np.ones((5, 3), np.int8))})
    data.to_netcdf(tmp_path / "a.nc", format="NETCDF3_CLASSIC", unlimited_dims=["time"], engine="netcdf4")
    assert 0 <= (tmp_path / "a.nc").stat().st_size - classic_size(tmp_path / "a.nc") < 4


def test_absurd_dimensions_are_refused_before_they_are_read(tmp_path):
    import netCDF4

    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for name, size in (("time", 10**5), ("lat", 10**5), ("lon", 10**5)):
            file.createDimension(name, size)
        file.createVariable("v", "f4", ("time", "lat", "lon"), chunksizes=(1, 100, 100))
    assert (tmp_path / "a.nc").stat().st_size < 100_000
    began = time.monotonic()
    with pytest.raises(AssetError, match=r"found 4000000000000000 bytes \(time 100000, lat 100000, lon 100000\)"):
        open_dataset(tmp_path / "a.nc")
    assert time.monotonic() - began < 1


def test_an_absurd_axis_is_refused_before_it_is_read(tmp_path):
    import netCDF4

    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("lat", 10**9)
        file.createDimension("lon", 1)
        file.createVariable("lat", "f8", ("lat",), chunksizes=(10**4,))
        file.createVariable("lon", "f8", ("lon",))
    with pytest.raises(AssetError, match="lat 1000000000"):
        open_dataset(tmp_path / "a.nc", bbox=(0, 0, 1, 1))


@pytest.mark.parametrize("units, calendar", [("days since 2020-01-01", "360_day"), ("days since once", "standard")])
def test_times_of_another_world_are_refused(tmp_path, units, calendar):
    data = raster().drop_vars("time")
    data["time"] = ("time", [0, 1], {"units": units, "calendar": calendar})
    data.to_netcdf(tmp_path / "a.nc")
    with pytest.raises(TimeError, match=f"found '{units}' {calendar}"):
        open_dataset(tmp_path / "a.nc")


def test_flipped_bytes_end_in_our_own_errors_only(tmp_path):
    path, rng = tmp_path / "a.nc", np.random.default_rng(1)
    raster().to_netcdf(path, encoding={"v": {"zlib": True}})
    good = path.read_bytes()
    for _ in range(60):
        bad = bytearray(good)
        for at in rng.integers(8, len(bad), 40):
            bad[at] = rng.integers(256)
        path.write_bytes(bad)
        try:
            open_dataset(path, max_bytes=10**8)
        except (AssetError, TimeError):
            continue
