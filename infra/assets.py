"""One href in, trustworthy data out: where an asset may lie, getting its bytes, and opening them in bounds.

    href ──resolve──▸ path or URL ──fetch──▸ verified file ──open_dataset──▸ xr.Dataset in memory
         nothing is read outside the allowed folders and hosts, whatever links, redirects or names say

Items come from outside, so every href is hostile until shown otherwise. Files must lie, links resolved, inside an
allowed folder. Hosts must be listed, and the addresses their names resolve to must be public or be listed themselves;
the connection then goes to exactly the address that was checked, so that a name which resolves to something else a
moment later gains nothing. Every redirect is a new href.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

import httpx
import netCDF4
import numpy as np
import xarray as xr
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK  # the C library is not thread-safe; xarray writes under it too

from twin.errors import AccessError, AssetError, ChecksumError, PlaceError, TimeError, Transient
from twin.grid import wrap

GIB = 2**30
MAX_BYTES = 2 * GIB
REDIRECTS = 5
_HASHES = {"1220": "sha256", "1340": "sha512", "1620": "sha3_256", "1114": "sha1", "d50110": "md5"}  # multihash
_LATER = {408, 425, 429}  # client errors that pass with time
_MAGIC = {b"\x89HDF\r\n\x1a\n": "NetCDF 4", b"CDF\x01": "NetCDF 3", b"CDF\x02": "NetCDF 3", b"CDF\x05": "NetCDF 3"}
_CLOCK = xr.coders.CFDatetimeCoder(use_cftime=False)
_AXES = {"lat": ("lat", "latitude"), "lon": ("lon", "longitude"), "time": ("time", "time")}  # names and standard names


@dataclass(frozen=True)
class Access:
    """Where assets may come from, and how much of our time and memory one may take.

    roots      folders files may lie in
    hosts      names (`data.example.org`, `*.example.org`, `*`), addresses (`127.0.0.1:8080`) or networks
               (`10.0.0.0/8`); a name opens public addresses only, a private one must be listed itself
    cache      where downloads are kept, by content
    timeout    seconds without a byte; `deadline` seconds for the whole download
    max_bytes  largest asset, and largest array set read from one
    """

    roots: tuple[Path, ...] = ()
    hosts: tuple[str, ...] = ()
    cache: Path = Path(tempfile.gettempdir()) / "twin-assets"
    timeout: float = 30.0
    deadline: float = 900.0
    max_bytes: int = MAX_BYTES
    keep_bytes: int = 4 * GIB

    @classmethod
    def of(cls, settings: Any, source: str = "") -> Access:
        """What the settings allow, and what lies with the source the operator chose."""
        access = cls(
            roots=tuple(Path(root) for root in settings.access.roots),
            hosts=tuple(settings.access.hosts),
            cache=Path(settings.home) / "assets",
        )
        return access.with_source(source) if source else access

    def with_source(self, source: str) -> Access:
        """This access and the source's own folder, or its own host."""
        if _is_url(source):
            parts = urlsplit(source)
            host = parts.netloc.rpartition("@")[2]
            if parts.port is None and (parts.hostname == "localhost" or _ip(host)):
                host = f"{host}:{80 if parts.scheme == 'http' else 443}"  # not every service of a private machine
            return replace(self, hosts=(*self.hosts, host))
        return replace(self, roots=(*self.roots, _path(source).absolute().parent))


# --------------------------------------------------------------------------------------------------------- resolve
def resolve(
    href: str, access: Access, *, item_href: str = "", source: str = "", raw: str = "", where: str = ""
) -> Path | str:
    """The file, inside an allowed root, or the URL that an asset's absolute href means.

    raw        the href as the item has it; worked out from `item_href` where it is not given
    source     the catalog the item came from

    Some static catalogs write hrefs relative to a folder above themselves. Where nothing lies at the href by the rule
    of STAC (relative to the item), it is tried from the catalog's folder and each folder above; wherever it is found,
    it must lie inside an allowed root. Raises AccessError outside the roots, AssetError where there is no such file.
    """
    if _scheme(href) not in ("", "file"):
        return href
    found = _inside(_path(href), access.roots, where)
    if found.is_file():
        return found
    raw = raw or _relative(href, item_href)
    if raw and source and not _is_url(source):
        start = _path(source).absolute().parent
        for folder in (start, *start.parents):
            candidate = _real(folder / raw, where)
            if _lies_in(candidate, access.roots) and candidate.is_file():
                return candidate
    raise AssetError("asset", expected="a file", found="nothing there", where=_place(href, where))


def _relative(href: str, item_href: str) -> str:
    """`href` relative to the folder of its item, where it lies below it."""
    if not item_href or _is_url(item_href):
        return ""
    path, folder = _path(href), _path(item_href).parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else ""


def _inside(path: Path, roots: Iterable[Path], where: str) -> Path:
    """The real path, which must lie in one of the roots."""
    real, roots = _real(path, where), tuple(roots)
    if not _lies_in(real, roots):
        allowed = " or ".join(str(root) for root in roots) or "none (no folder is allowed)"
        raise AccessError("asset", expected=f"a file in {allowed}", found=str(real), where=where)
    return real


def _real(path: Path, where: str) -> Path:
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError) as err:  # loops of links, null bytes, names too long
        raise AccessError("asset", expected="a path that can be followed", found=repr(str(path)), where=where) from err


def _lies_in(real: Path, roots: Iterable[Path]) -> bool:
    return any(real.is_relative_to(Path(root).resolve()) for root in roots)


def _path(href: str) -> Path:
    """The path of a file href; a `file://` URL may name no other machine."""
    if _scheme(href) != "file":
        return Path(href)
    parts = urlsplit(href)
    if parts.netloc not in ("", "localhost"):
        raise AccessError("asset", expected="a file of this machine", found=href)
    return Path(unquote(parts.path))


def _scheme(href: str) -> str:
    scheme, colon, _ = href.partition(":")
    return scheme.lower() if colon and scheme.isascii() and scheme.replace("+", "").replace("-", "").isalnum() else ""


def _is_url(href: str) -> bool:
    return _scheme(href) in ("http", "https")


# ----------------------------------------------------------------------------------------------------------- fetch
def fetch(href: str | Path, access: Access, *, checksum: str = "", size: int | None = None, where: str = "") -> Path:
    """The asset as a local file whose size and multihash checksum are the ones given.

    Raises AccessError outside what `access` allows, AssetError for missing, too many or wrong bytes (ChecksumError
    showing both sides), Transient where trying again may help: time-outs, refused connections, HTTP 5xx.
    """
    if _scheme(str(href)) in ("", "file"):
        path = _inside(_path(str(href)), access.roots, where)
        _verify_local(path, access, checksum, size, where)
        return path
    kept = _kept(access, checksum)
    if kept is not None:
        return kept
    path, digest = _download(str(href), access, where)
    try:
        _verify(path, checksum, size, _place(str(href), where))
        return _keep(path, digest, access)
    finally:
        path.unlink(missing_ok=True)


def _verify_local(path: Path, access: Access, checksum: str, size: int | None, where: str) -> None:
    where = _place(str(path), where)
    try:
        if not path.is_file():
            raise AssetError("asset", expected="a file", found="nothing there", where=where)
        _check_room(path.stat().st_size, access, where)
        _verify(path, checksum, size, where)
    except PermissionError as err:
        raise AccessError("asset", expected="a readable file", found="permission denied", where=where) from err
    except OSError as err:
        raise Transient("asset", expected="a readable file", found=str(err), where=where) from err


def _check_room(size: int, access: Access, where: str) -> None:
    if size > access.max_bytes:
        raise AssetError("asset size", expected=f"at most {access.max_bytes} bytes", found=f"{size} bytes", where=where)


def _verify(path: Path, checksum: str, size: int | None, where: str) -> None:
    """Size first: it is free, and says more about a half-written file than a hash does."""
    found = path.stat().st_size
    if size is not None and found != size:
        raise ChecksumError("asset size", expected=f"{size} bytes", found=f"{found} bytes", where=where)
    if checksum:
        prefix = next((code for code in _HASHES if checksum.lower().startswith(code)), None)
        if prefix is None:
            known = "a multihash (1220 and a sha-256, or the like)"
            raise ChecksumError("asset checksum", expected=known, found=repr(checksum), where=where)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, _HASHES[prefix]).hexdigest()
        if prefix + digest != checksum.lower():
            raise ChecksumError("asset checksum", expected=checksum, found=prefix + digest, where=where)


def _kept(access: Access, checksum: str) -> Path | None:
    """A download kept from before with exactly this content."""
    path = access.cache / checksum.lower().removeprefix("1220")
    if not checksum.lower().startswith("1220") or not path.is_file():
        return None
    try:
        _verify(path, checksum, None, "")
        os.utime(path)
        return path
    except (ChecksumError, OSError):
        path.unlink(missing_ok=True)
        return None


def _keep(path: Path, digest: str, access: Access) -> Path:
    """File a verified download under its digest, and let the ones longest unused go."""
    kept = access.cache / digest
    os.replace(path, kept)
    room = access.keep_bytes - kept.stat().st_size
    for entry in sorted(set(access.cache.iterdir()) - {kept}, key=_used, reverse=True):
        room -= entry.stat().st_size if entry.exists() else 0
        if room < 0:
            entry.unlink(missing_ok=True)
    return kept


def _used(path: Path) -> float:
    """When a kept download was last wanted; another process may have let it go."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _download(url: str, access: Access, where: str) -> tuple[Path, str]:
    """A temporary file with the bytes behind `url`, and their sha-256."""
    start = time.monotonic()
    for _ in range(REDIRECTS + 1):
        at = _place(url, where)
        try:
            with _response(url, access, at) as response:
                if response.has_redirect_location:
                    url = urljoin(url, response.headers["location"])
                    continue
                _check_status(response, at)
                return _save(response, access, start, at)
        except httpx.InvalidURL as err:
            raise AccessError("asset", expected="a URL", found=str(err), where=at) from err
        except httpx.RequestError as err:
            found = f"{type(err).__name__}: {err}".removesuffix(": ")
            raise Transient("asset", expected="an answer", found=found, where=at) from err
    raise AssetError("asset", expected=f"at most {REDIRECTS} redirects", found="more", where=_place(url, where))


@lru_cache(maxsize=1)
def _client() -> httpx.Client:
    """No proxies, which would resolve names anew, and no kept connections, for two names may share an address."""
    return httpx.Client(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))


@contextmanager
def _response(url: str, access: Access, where: str) -> Iterator[httpx.Response]:
    """The open response of the first of the host's addresses that takes the connection."""
    target = _target(url, where)
    name = target.raw_host.decode("ascii")
    addresses = _addresses(target, access, where)
    for address in addresses:
        request = _client().build_request(
            "GET",
            target.copy_with(host=str(address), userinfo=b""),
            headers={
                "host": target.netloc.decode("ascii"),
                "accept-encoding": "identity",
                "user-agent": "drought-twin",
            },
            timeout=access.timeout,
            extensions={"sni_hostname": name},  # the certificate must be the name's, not the address's
        )
        try:
            response = _client().send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if address is addresses[-1]:
                raise
            continue
        with closing(response):
            yield response
        return


def _target(url: str, where: str) -> httpx.URL:
    scheme = _scheme(url)
    if scheme not in ("http", "https"):
        raise AccessError("asset", expected="a file, http or https", found=f"{scheme or 'no scheme'}", where=where)
    target = httpx.URL(url)
    if not target.host:
        raise AccessError("asset", expected="a host", found=repr(url), where=where)
    return target


def _check_status(response: httpx.Response, where: str) -> None:
    status = response.status_code
    found = f"HTTP {status} {response.reason_phrase}".strip()
    if status in (401, 403):
        raise AccessError("asset", expected="HTTP 200", found=found, where=where)
    if status >= 500 or status in _LATER:
        raise Transient("asset", expected="HTTP 200", found=found, where=where)
    if status != 200:
        raise AssetError("asset", expected="HTTP 200", found=found, where=where)


def _save(response: httpx.Response, access: Access, start: float, where: str) -> tuple[Path, str]:
    """Stream to a temporary file in the cache, within the limits on bytes and time."""
    _check_room(int(response.headers.get("content-length") or 0), access, where)
    access.cache.mkdir(parents=True, exist_ok=True)
    digest, total = hashlib.sha256(), 0
    handle, name = tempfile.mkstemp(prefix="part-", dir=access.cache)
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in response.iter_bytes():  # as they come, so that a drip meets the deadline
                total += len(piece)
                _check_room(total, access, where)
                if time.monotonic() - start > access.deadline:
                    limit = f"all bytes in {access.deadline:g} s"
                    raise Transient("asset", expected=limit, found=f"{total} bytes", where=where)
                digest.update(piece)
                file.write(piece)
        return Path(name), digest.hexdigest()
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


# ----------------------------------------------------------------------------------------------------------- hosts
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _addresses(target: httpx.URL, access: Access, where: str) -> list[Address]:
    """The addresses of the URL's host, every one of them allowed."""
    host, port = target.raw_host.decode("ascii").lower(), target.port or {"http": 80, "https": 443}[target.scheme]
    if not any(_lists_host(entry, host, port) for entry in access.hosts):
        allowed = " or ".join(access.hosts) or "none (no host is allowed)"
        raise AccessError("asset host", expected=allowed, found=f"{host}:{port}", where=where)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as err:
        raise Transient("asset host", expected="an address", found=f"{host}: {err}", where=where) from err
    addresses = list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    for address in addresses:
        if not _is_public(address) and not any(_lists_address(entry, host, address, port) for entry in access.hosts):
            raise AccessError("asset host", expected="a public address", found=f"{host} at {address}", where=where)
    return addresses


def _lists_host(entry: str, host: str, port: int) -> bool:
    name, only = _entry(entry)
    if only is not None and only != port:
        return False
    literal, network = _ip(host), _network(name)
    if literal and network:
        return literal in network
    return fnmatchcase(host, name)


def _lists_address(entry: str, host: str, address: Address, port: int) -> bool:
    """A private address counts as listed by itself, by its network, or, for this machine, as `localhost`."""
    name, only = _entry(entry)
    if only is not None and only != port:
        return False
    network = _network(name)
    return address in network if network else name == host == "localhost" and address.is_loopback


def _entry(entry: str) -> tuple[str, int | None]:
    """Host and port of an entry of the list; no port means any."""
    name, _, port = entry.lower().rpartition(":")
    if port.isdigit() and name and (":" not in name or name.endswith("]")):
        return name.strip("[]"), int(port)
    return entry.lower().strip("[]"), None


def _ip(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _is_public(address: Address) -> bool:
    """Reachable by anyone, and not a wrapping of an IPv4 address that is not."""
    if address.is_multicast or not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in ipaddress.ip_network("64:ff9b::/96"):
        inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return all(part is None or _is_public(part) for part in inner)


def _place(href: str, where: str) -> str:
    """The href, without any password in it, and where it came from."""
    parts = urlsplit(href) if _is_url(href) else None
    shown = href.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1) if parts and "@" in parts.netloc else href
    return f"{where}, {shown}" if where else shown


# ------------------------------------------------------------------------------------------------------------ open
def open_dataset(
    path: Path | str,
    *,
    only: Collection[str] | None = None,
    bbox: tuple[float, float, float, float] | None = None,
    max_bytes: int = MAX_BYTES,
    where: str = "",
) -> xr.Dataset:
    """The variables `only` (all by default) with their coordinates, in memory, missing values NaN, times decoded.

    Reads NetCDF 3 and 4. `bbox` (west, south, east, north) cuts regular grids to the pixels that touch it. float32
    stays float32. The axes come back named lat, lon and time, whatever the file calls them; attrs `all_variables` lists
    what it holds. The size is checked against `max_bytes` before anything is read.
    Raises AssetError for what is no NetCDF, is damaged or is too large, PlaceError where nothing lies in `bbox`,
    TimeError for a calendar or time unit that is not of this world.
    """
    where = _place(str(path), where)
    _check_bytes(Path(path), where)
    try:
        with NETCDF4_PYTHON_LOCK, netCDF4.Dataset(os.fspath(path)) as file:
            file.set_auto_maskandscale(False)
            raw = _read(file, only, bbox, max_bytes, where)
    except (
        OSError,
        RuntimeError,
        ValueError,
        IndexError,
        KeyError,
        AttributeError,
    ) as err:  # damage shows in any of these
        found = f"{_size(Path(path))} that cannot be read: {err}"
        raise AssetError("asset", expected="NetCDF", found=found, where=where) from err
    return _decode(raw, where)


def _check_bytes(path: Path, where: str) -> None:
    """It starts like NetCDF, and a NetCDF 3 file is as long as its header says.

    The C library fills whatever a NetCDF 3 file has lost with zeros, which pass for rainless days; HDF5 notices itself.
    """
    try:
        with path.open("rb") as file:
            first = file.read(8)
    except FileNotFoundError as err:
        raise AssetError("asset", expected="a file", found="nothing there", where=where) from err
    generation = next((name for magic, name in _MAGIC.items() if first.startswith(magic)), None)
    if generation is None:
        raise AssetError("asset", expected="NetCDF", found=f"{_size(path)} starting with {first!r}", where=where)
    if generation == "NetCDF 3":
        promised = classic_size(path)
        if promised is None or promised > path.stat().st_size:
            expected = "a NetCDF 3 header" if promised is None else f"{promised} bytes, as its header says"
            raise AssetError("asset", expected=expected, found=_size(path), where=where)


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes"


def _read(file: Any, only: Collection[str] | None, bbox: Any, max_bytes: int, where: str) -> xr.Dataset:
    numeric = {name: var for name, var in file.variables.items() if _is_numeric(var)}
    axes = {axis: _axis(numeric, axis) for axis in _AXES}
    coordinates = {*(name for name in axes.values() if name), *(name for name in file.dimensions if name in numeric)}
    wanted = {name: var for name, var in numeric.items() if only is None or name in only or name in coordinates}
    total = sum(math.prod(var.shape) * var.dtype.itemsize for name, var in wanted.items() if name in coordinates)
    window: dict[str, slice] = {}
    if total <= max_bytes:
        window = _window(numeric, axes, bbox, where) if bbox else {}
        total = sum(_count(var, window) * var.dtype.itemsize for var in wanted.values())
    if total > max_bytes:
        sizes = ", ".join(f"{name} {len(size)}" for name, size in file.dimensions.items())
        limit = f"at most {max_bytes} bytes"
        raise AssetError("asset dimensions", expected=limit, found=f"{total} bytes ({sizes})", where=where)
    variables = {}
    for name, var in wanted.items():
        values = var[tuple(window.get(dim, slice(None)) for dim in var.dimensions)]
        variables[name] = xr.Variable(var.dimensions, np.asarray(values), _attributes(var))
    attrs = {**_attributes(file), "all_variables": tuple(file.variables)}
    return xr.Dataset(variables, attrs=attrs).rename(
        {name: axis for axis, name in axes.items() if name not in ("", axis)}
    )


def _attributes(holder: Any) -> dict[str, Any]:
    return {key: holder.getncattr(key) for key in holder.ncattrs()}


def _is_numeric(var: Any) -> bool:
    return isinstance(var.dtype, np.dtype) and var.dtype.kind in "iuf"


def _axis(variables: dict[str, Any], axis: str) -> str:
    """The name of the latitude or longitude variable, '' where there is none."""
    short, long = _AXES[axis]
    for name, var in variables.items():
        if name.lower() in (short, long) or getattr(var, "standard_name", "") == long:
            return name
    return ""


def _window(variables: dict[str, Any], axes: dict[str, str], bbox: tuple[float, ...], where: str) -> dict[str, slice]:
    """The slice of each axis of a regular grid that touches `bbox`; nothing for scattered pixels."""
    if not all(variables[name].dimensions == (name,) if name else False for name in (axes["lat"], axes["lon"])):
        return {}
    west, south, east, north = bbox
    lat, lon = (np.asarray(variables[axes[axis]][:], float) for axis in ("lat", "lon"))
    lon = wrap(lon)
    rows, columns = _touching(lat, south, north), _touching(lon, west, east)
    if not rows.size or not columns.size:
        raise PlaceError(
            "asset",
            expected=f"latitudes {south:g}..{north:g} and longitudes {west:g}..{east:g}",
            found=f"latitudes {span(lat)} and longitudes {span(lon)}",
            where=where,
        )
    return {axes["lat"]: slice(rows[0], rows[-1] + 1), axes["lon"]: slice(columns[0], columns[-1] + 1)}


def _touching(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Indices of the pixels whose area touches low..high."""
    spacing = float(np.median(np.abs(np.diff(values)))) if values.size > 1 else 0.0
    return np.flatnonzero((values >= low - spacing / 2) & (values <= high + spacing / 2))


def span(values: np.ndarray) -> str:
    """Smallest and largest finite value, for messages."""
    finite = values[np.isfinite(values)]
    return f"{finite.min():g}..{finite.max():g}" if finite.size else "none"


def _count(var: Any, window: dict[str, slice]) -> int:
    sizes = zip(var.dimensions, var.shape, strict=True)
    return math.prod(window[dim].stop - window[dim].start if dim in window else size for dim, size in sizes)


def _decode(raw: xr.Dataset, where: str) -> xr.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", xr.SerializationWarning)  # conflicting fill values: both become NaN
            return xr.decode_cf(raw, decode_times=_CLOCK, decode_timedelta=False)
    except (ValueError, TypeError, OverflowError, KeyError) as err:
        clocks = [var.attrs for var in raw.variables.values() if "since" in str(var.attrs.get("units", ""))]
        if clocks and _decodes_without_times(raw):
            found = " and ".join(f"'{clock['units']}' {clock.get('calendar', '')}".strip() for clock in clocks)
            raise TimeError("asset time", expected="CF time, standard calendar", found=found, where=where) from err
        raise AssetError("asset", expected="CF attributes", found=str(err), where=where) from err


def _decodes_without_times(raw: xr.Dataset) -> bool:
    try:
        xr.decode_cf(raw, decode_times=False)
    except (ValueError, TypeError, OverflowError, KeyError):
        return False
    return True


# --------------------------------------------------------------------------------------------------------- NetCDF 3
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


class _Header:
    """A cursor over the big-endian header of a NetCDF 3 file; EOFError beyond its end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, os.fstat(file.fileno()).st_size
        version = file.read(4)[3]
        self.count_size, self.offset_size = (8 if version == 5 else 4), (4 if version == 1 else 8)

    def number(self, size: int) -> int:
        piece = self.file.read(size)
        if len(piece) < size:
            raise EOFError
        return int.from_bytes(piece, "big")

    def count(self) -> int:
        return self.number(self.count_size)

    def skip(self, size: int) -> None:
        """Over `size` bytes and the padding to a multiple of four."""
        if self.file.seek(_padded(size), os.SEEK_CUR) > self.size:
            raise EOFError

    def entries(self) -> range:
        """The tag of a list, which says no more than its place does, and how many entries follow."""
        self.number(4)
        return range(self.count())

    def attributes(self) -> None:
        for _ in self.entries():
            self.skip(self.count())
            size = _TYPE_SIZES[self.number(4)]
            self.skip(self.count() * size)


def classic_size(path: Path) -> int | None:
    """Bytes that the header of a NetCDF 3 file promises, without padding at the end; None for a broken header.

    Ref: The NetCDF classic format specification (Unidata), which also covers 64-bit offsets and 64-bit data.
    """
    try:
        with path.open("rb") as file:
            return _promised(_Header(file))
    except (EOFError, KeyError, IndexError, OverflowError, ValueError, OSError):
        return None


def _promised(header: _Header) -> int:
    records = header.count()
    lengths = []
    for _ in header.entries():
        header.skip(header.count())
        lengths.append(header.count())
    header.attributes()
    fixed, recorded = [], []  # (begin, bytes), of one record for variables along the unlimited dimension of length 0
    for _ in header.entries():
        header.skip(header.count())
        shape = [lengths[header.count()] for _ in range(header.count())]
        header.attributes()
        item = _TYPE_SIZES[header.number(4)]
        header.count()  # its size once more, which overflows for large variables
        begin = header.number(header.offset_size)
        if shape and shape[0] == 0:
            recorded.append((begin, math.prod(shape[1:]) * item))
        else:
            fixed.append((begin, math.prod(shape) * item))
    ends = [header.file.tell(), *(begin + size for begin, size in fixed)]
    if recorded and 0 < records < 2 ** (8 * header.count_size) - 1:  # all ones: a stream that did not know yet
        stride = recorded[0][1] if len(recorded) == 1 else sum(_padded(size) for _, size in recorded)
        ends += [begin + (records - 1) * stride + size for begin, size in recorded]
    return max(ends)


def _padded(size: int) -> int:
    return -(-size // 4) * 4
