"""The store: one Icechunk repository holds every region's arrays and what was done to them, commit by commit.

    /<region>                 attrs: origin, the first day of the time axis; model, what it was prepared for
        grid parameters climatology      replaced whole                             Draft.put
        emulator models/<version>        which emulator is in use, and their files  infra.registry
        forcing observations/<product>
        state drought                    (time, [layer,] cell), written by the day  Draft.write
                  recent                 their last days
        restart                          exact model states at chosen days          Draft.save_restart
        journal                          what every commit consumed and changed     Draft.append_journal

A View is one snapshot and never changes. A Draft is the next one: it reads its own writes, nobody else sees any of them
before `commit`, and if another writer was faster it raises Conflict and leaves no trace. It is never rebased: journal
entries are numbered 0, 1, 2, ... without a gap, so the second writer must look at what the first one did.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from datetime import datetime
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

import icechunk
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import BloscCodec

from twin.errors import Conflict, SettingsError, TimeError, Transient, TwinError, VariableError
from twin.variables import VARIABLES

# Layout of the daily arrays: chunks of DAYS x CELLS in shards of DAYS x SHARD cells. Medians at 60,000 cells x 14,610
# days of float32 on 2 cores: one day's map / one cell's 40 years / one day appended and committed (wanted 100/200/300):
#   32 x 2048        31 /  497 /  74 ms     a series pays about 0.8 ms for every file, whatever its size
#   64 x 1024        52 /  198 /  86
#   128 x 512        90 /   92 / 199        118 new files per array and day
#   128 x 512 in shards of 16,384 cells: 66 / 153 / 81 ms, 4 new files per array and day
# An append rewrites what it touches, so the block of DAYS being filled lies apart, RECENT days a chunk: a day is then
# appended in 26 ms and 0.9 MB of disk an array, where the shard takes 81 ms and, half full, 12 MB. A full block moves,
# once, to where it is read fastest.
DAYS, CELLS, SHARD, RECENT = 128, 512, 16_384, 8
_STATIC_CELLS = 8192  # cells to a chunk of what does not grow
# lz4 with bitshuffle: same size on soil moisture as zstd, map 90 instead of 123 ms, series 92 instead of 114 ms.
_CODEC = BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
_JOURNAL_BYTES, _JOURNAL_ENDS = 1 << 17, 1 << 10  # chunks of the journal's text and of its offsets
_LATEST = 0  # slot of the newest restart; slot k > 0 holds the first day of the k-th month of the region

Ledger = Mapping[str, Mapping[str, Any]]


class _Turns(threading.local):
    """The stores this thread has its turn at."""

    def __init__(self) -> None:
        self.held: set[str] = set()


_turns = _Turns()


class Store:
    """The repository at `url`: a local folder or file:// URL."""

    def __init__(self, url: str) -> None:
        self.folder = _folder(url)
        self.url = str(self.folder)
        self._repo = self._open()
        self._ledgers: dict[str, tuple[int, Ledger]] = {}
        self._commits: dict[str, list[tuple[int, str]]] = {}  # region -> (last seq, snapshot), oldest first
        self._walked = ""

    @classmethod
    def open(cls, url: str | Path) -> Store:
        """The store at `url`, created there if nothing is; SettingsError if something else is."""
        return cls(str(url))

    def head(self) -> str:
        """The newest snapshot."""
        return self._repo.lookup_branch("main")

    def at(self, snapshot: str | None = None) -> View:
        """The store as of `snapshot`, by default the newest."""
        try:
            return View(self, self._repo.readonly_session(snapshot_id=snapshot or self.head()))
        except (ValueError, icechunk.IcechunkError) as err:
            raise TwinError("store", expected="a snapshot that is kept", found=snapshot, where=self.url) from err

    def draft(self) -> Draft:
        """A change to the newest snapshot, invisible until its commit."""
        return Draft(self, self._repo.writable_session("main"))

    def snapshot_of(self, region: str, seq: int) -> str:
        """The snapshot that first holds journal entry `seq`; once history was tidied, the oldest one kept that does."""
        commits = self._commits.get(region, [])
        if not commits or commits[-1][0] < seq:
            self._walk()
            commits = self._commits.get(region, [])
        place = bisect_left(commits, seq, key=lambda commit: commit[0])
        if seq < 0 or place == len(commits):
            last = commits[-1][0] if commits else "none"
            raise TwinError(f"journal of {region}", expected=f"entry {seq}", found=f"last entry {last}", where=self.url)
        return commits[place][1]

    def tidy(self, older_than: datetime) -> None:
        """Forget snapshots made before `older_than` and free what only they used; the newest always stays.

        Every append rewrites a chunk, so a store that is never tidied grows several times faster than its data. Views
        of forgotten snapshots, and drafts opened before `older_than`, stop working.
        """
        with self.wait_lock():
            self._repo.expire_snapshots(older_than)
            self._repo.garbage_collect(older_than)
            self._commits, self._walked = {}, ""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One writer of this machine prepares a draft at a time, so that a long one does not lose to every short one.

        Nothing depends on it: a writer who does not ask, who is elsewhere, or to whom this thread's turn is lent, still
        meets Conflict.
        """
        if self.url in _turns.held:
            yield
            return
        with self._locked("turn"):
            _turns.held.add(self.url)
            try:
                yield
            finally:
                _turns.held.discard(self.url)

    @contextmanager
    def wait_lock(self) -> Iterator[None]:
        """One committer at a time: on a local disk Icechunk itself loses commits of racing processes."""
        with self._locked("lock"):
            yield

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Alone with a lock file beside the folder; the kernel frees it when its process dies."""
        with open(self.folder.with_name(f"{self.folder.name}.{name}"), "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def flush(self) -> None:
        """Force what was written onto the disk; Icechunk leaves that to the kernel's own time."""
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            if _syncfs is None:
                os.sync()
            elif _syncfs(descriptor) != 0:
                raise Transient("store", expected="data on disk", found=os.strerror(ctypes.get_errno()), where=self.url)
        finally:
            os.close(descriptor)

    def __reduce__(self):
        return _shared, (self.url,)

    def _open(self) -> icechunk.Repository:
        icechunk.set_logs_filter("error")  # it warns, at each opening, of the very race that wait_lock prevents
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with self.wait_lock():
                there = self.folder.exists() and any(self.folder.iterdir())
                if there and not icechunk.Repository.exists(self._storage()):
                    raise SettingsError("store", expected="an Icechunk repository", found="other files", where=self.url)
                if there:
                    return icechunk.Repository.open(self._storage())
                repo = icechunk.Repository.create(self._storage())
                session = repo.writable_session("main")
                zarr.group(session.store)
                session.commit("an empty store")
                return repo
        except (OSError, icechunk.IcechunkError) as err:
            raise SettingsError("store", expected="an Icechunk repository", found=str(err), where=self.url) from err

    def _storage(self) -> icechunk.Storage:
        return icechunk.local_filesystem_storage(str(self.folder))

    def _walk(self) -> None:
        """Learn which entries the commits since the last walk brought."""
        head, found = self.head(), []
        for commit in self._repo.ancestry(snapshot_id=head):
            if commit.id == self._walked:
                break
            found.append((commit.id, dict(commit.metadata).get("seq", {})))
        else:
            self._commits = {}  # a first walk, or the history was tidied under us
        for snapshot, entries in reversed(found):
            for region, seq in entries.items():
                known = self._commits.setdefault(region, [])
                if not known or known[-1][0] < seq:
                    known.append((int(seq), snapshot))
        self._walked = head


class View:
    """The store as of one snapshot: immutable, cheap, and picklable by (url, snapshot)."""

    def __init__(self, store: Store, session: icechunk.Session) -> None:
        self._store, self._session = store, session
        self.snapshot: str = session.snapshot_id
        self._nodes: dict[str, Any] = {}  # zarr reads and parses a node's metadata at every look-up: 1 to 2 ms
        self._dailies: dict[str, dict[str, _Daily]] = {}
        self._coords: dict[str, dict[str, tuple[str, np.ndarray]]] = {}

    def regions(self) -> list[str]:
        """Names of the regions, sorted."""
        return sorted(name for name, group in self._root.groups() if "origin" in group.attrs)

    def origin(self, region: str) -> pd.Timestamp:
        """The first day of the region's time axis."""
        return pd.Timestamp(self._group(region).attrs["origin"])

    def model(self, region: str) -> dict[str, Any]:
        """The kind and choices of the land model the region was prepared for; empty if that is not known."""
        return dict(self._group(region).attrs.get("model", {}))

    def groups(self, region: str) -> list[str]:
        """Paths of the region's groups that hold arrays, the journal left out, sorted."""
        there = _walk_groups(self._group(region))
        return sorted(path for path, node in there if path != "journal" and any(node.array_keys()))

    def has(self, region: str, group: str) -> bool:
        """Whether the region has that group."""
        return self._node(f"{region}/{group}") is not None

    def last_day(self, region: str, group: str) -> pd.Timestamp | None:
        """The last day ever written to a daily group, None before the first."""
        days = self._length(region, group)
        return self.origin(region) + pd.Timedelta(days=days - 1) if days else None

    def dataset(self, region: str, group: str) -> xr.Dataset:
        """A group, read when its values are needed; daily ones from the origin on, NaN (classes -128) if unwritten."""
        path, node = f"{region}/{group}", self._group(region, group)
        if "daily" in node.attrs:
            arrays = {name: array.variable for name, array in sorted(self._daily(region, group).items())}
            time = self._time(region, self._length(region, group))
            return xr.Dataset(arrays, {"time": time, **self._places(region)})
        data = xr.open_zarr(self._session.store, group=path, consolidated=False, chunks=None, decode_timedelta=False)
        return data.assign_coords(self._places(region)) if "cell" in data.dims else data

    def map(self, region: str, group: str, variable: str, day: Any) -> np.ndarray:
        """One day of one daily variable, ([layer,] cell); missing where never written."""
        array = self._daily_array(region, group, variable)
        at = self._day(region, day)
        if 0 <= at < array.shape[0]:
            return array.read((at, *(slice(None) for _ in array.shape[1:])))
        return np.full(array.shape[1:], array.missing, array.dtype)

    def series(self, region: str, group: str, variable: str, cell: int) -> xr.DataArray:
        """All days of one daily variable at one cell, (time, [layer])."""
        array = self._daily_array(region, group, variable)
        values = array.read((*(slice(None) for _ in array.shape[1:]), cell))
        return xr.DataArray(values, {"time": self._time(region, len(values))}, array.dims[:-1], variable, array.attrs)

    def restart(self, region: str, before: Any = None, of: str = "restart") -> tuple[pd.Timestamp, xr.Dataset] | None:
        """The newest restart on or before a day: that day and the exact state, None if there is none.

        of   group of the restarts: the land model's, or whatever else is carried from day to day
        """
        if not self.has(region, of):
            return None
        group = self._group(region, of)
        days = np.asarray(group["day"][:])
        limit = np.iinfo(days.dtype).max if before is None else self._day(region, before)
        days = np.where(days > limit, -1, days)
        slot = int(days.argmax())
        if days[slot] < 0:
            return None
        arrays = {name: (_dims(array)[1:], np.asarray(array[slot]), dict(array.attrs)) for name, array in _state(group)}
        return self.origin(region) + pd.Timedelta(days=int(days[slot])), xr.Dataset(arrays, self._places(region))

    def journal(self, region: str, after: int = -1) -> list[dict[str, Any]]:
        """The journal's entries numbered above `after`, oldest first; reads only those."""
        if not self.has(region, "journal"):
            return []
        edges = np.asarray(self._node(f"{region}/journal/ends")[max(after, 0) :])
        edges = edges if after >= 0 else np.concatenate([[0], edges])  # entry k lies between edges k and k + 1
        if len(edges) < 2:
            return []
        text = np.asarray(self._node(f"{region}/journal/text")[edges[0] : edges[-1]]).tobytes()
        return [json.loads(text[start:end]) for start, end in pairwise(edges - edges[0])]

    def ledger(self, region: str) -> Ledger:
        """What became of every arrival: key -> {status: consumed or quarantined, seq, its own fields, reason}.

        The newest entry that names a key wins; an entry's `retried` keys leave quarantine first.
        """
        count = self.next_seq(region)
        known, ledger = self._store._ledgers.get(region, (0, MappingProxyType({})))
        if known > count:  # this view is older than what the process has seen
            return fold({}, self.journal(region))
        if known < count:
            ledger = fold(ledger, self.journal(region, after=known - 1))
            self._store._ledgers[region] = count, ledger
        return ledger

    def digest(self, region: str) -> str:
        """sha256 over the names, shapes and bits of all arrays of the region, the journal left out."""
        total = hashlib.sha256()
        for path in self.groups(region):
            for name, array in sorted(self.dataset(region, path).variables.items(), key=lambda item: str(item[0])):
                total.update(f"{path}/{name} {array.dims} {array.shape} {array.dtype}\n".encode())
                for start in range(0, array.shape[0] if array.ndim else 1, DAYS):
                    total.update(_bits(array[start : start + DAYS].values if array.ndim else array.values))
        return total.hexdigest()

    def __reduce__(self):
        return _view, (self._store.url, self.snapshot)

    @cached_property
    def _root(self) -> Any:  # a zarr.Group; zarr types what it holds as group or array, whichever it is
        return zarr.open_group(self._session.store, mode="r")

    def _node(self, path: str) -> Any:
        """The group or array at a path, looked up once; None if it is not there."""
        found = self._nodes.get(path)
        if found is None and (found := self._root.get(path)) is not None:
            self._nodes[path] = found
        return found

    def _group(self, region: str, group: str = "") -> Any:
        path = f"{region}/{group}".rstrip("/")
        node = self._node(path)
        if node is None:
            raise VariableError("store", expected=f"group {path}", found="none", where=f"snapshot {self.snapshot}")
        return node

    def _daily(self, region: str, group: str) -> dict[str, _Daily]:
        """The arrays of a daily group by name; none if the group is not there or not daily."""
        path = f"{region}/{group}"
        if path not in self._dailies:
            node = self._node(path)
            if node is None or "daily" not in node.attrs:
                return {}
            self._dailies[path] = {name: _Daily(node, name) for name in node.array_keys() if name != "time"}
        return self._dailies[path]

    def _daily_array(self, region: str, group: str, variable: str) -> _Daily:
        self._group(region, group)
        arrays = self._daily(region, group)
        if variable not in arrays:
            found = ", ".join(sorted(arrays)) or "nothing"
            raise VariableError(f"daily group {region}/{group}", expected=variable, found=found, where=self._store.url)
        return arrays[variable]

    def _length(self, region: str, group: str) -> int:
        """Days of a daily group, 0 if it is not there; all its arrays are equally long."""
        return next((array.shape[0] for array in self._daily(region, group).values()), 0)

    def next_seq(self, region: str) -> int:
        """The number the next journal entry will have."""
        ends = self._node(f"{region}/journal/ends")
        return ends.shape[0] if ends is not None else 0

    def _places(self, region: str) -> dict[str, tuple[str, np.ndarray]]:
        """The cells' lat and lon, degrees, as coordinates."""
        if region not in self._coords:
            grid = self._group(region, "grid")
            self._coords[region] = {name: ("cell", np.asarray(grid[name][:])) for name in ("lat", "lon")}
        return self._coords[region]

    def _time(self, region: str, days: int) -> pd.DatetimeIndex:
        return pd.date_range(self.origin(region), periods=days, freq="D", unit="ns")

    def _day(self, region: str, day: Any) -> int:
        return (pd.Timestamp(day) - self.origin(region)).days


class Draft(View):
    """The next snapshot in the making."""

    def __init__(self, store: Store, session: icechunk.Session) -> None:
        super().__init__(store, session)
        self._appended: dict[str, list[dict[str, Any]]] = {}

    def create(self, region: str, grid: xr.Dataset, origin: Any, model: Mapping[str, Any] | None = None) -> None:
        """Begin a region: its cells (lat, lon and what else is known of them), first day and, if told, land model."""
        if region in self._root:
            raise TwinError(f"region {region!r}", expected="a new name", found="it exists", where=self._store.url)
        first = str(pd.Timestamp(origin).date())
        told = {"model": dict(model)} if model else {}
        self._root.create_group(region, attributes={"origin": first, "cells": grid.sizes["cell"], **told})
        self.put(region, "grid", grid)

    def put(self, region: str, group: str, dataset: xr.Dataset) -> None:
        """Replace a whole group by `dataset`, any dims and dtypes; for what does not grow by the day."""
        self._group(region)
        places = () if group == "grid" else ("lat", "lon")  # every dataset gets them from the grid
        data = dataset.drop_vars(places, errors="ignore").drop_encoding()
        encoding = {name: _static_encoding(array) for name, array in data.variables.items() if array.ndim}
        path = f"{region}/{group}"
        data.to_zarr(self._session.store, group=path, mode="w", consolidated=False, zarr_format=3, encoding=encoding)
        self._forget_nodes()

    def drop(self, region: str, group: str) -> None:
        """Forget a whole group, if it is there."""
        if self.has(region, group):
            del self._root[f"{region}/{group}"]
            self._forget_nodes()

    def write(self, region: str, group: str, dataset: xr.Dataset) -> None:
        """Write the days in `dataset`, dims (time, [layer,] cell); other days stay as they are.

        Floats are kept as float32 (NaN missing), other numbers in their own type (its lowest missing: -128 of int8).
        TimeError for a time that is no UTC midnight, repeated, or before the region's origin.
        """
        days = self._days(region, dataset)
        if not len(days):
            return
        order, length = np.argsort(days), max(self._length(region, group), int(days.max()) + 1)
        arrays = {str(name): array.transpose("time", ..., "cell").variable for name, array in dataset.data_vars.items()}
        for name, values in arrays.items():
            self._cells(region, group, name, values.sizes["cell"])
        if not self.has(region, group):
            self._root.require_group(f"{region}/{group}").attrs["daily"] = True
        node = self._group(region, group)
        there = self._daily(region, group)
        for name in arrays.keys() - there.keys():
            _create(node, name, arrays[name])
            there[name] = _Daily(node, name)
        for target in there.values():
            target.grow(length)
        edge = next(iter(there.values())).old.shape[0]
        _label(node, self.origin(region), 0, edge)
        _label(node["recent"], self.origin(region), edge, length)
        for name, values in arrays.items():
            there[name].write(days[order], values if (np.diff(order) == 1).all() else values.isel(time=order))

    def save_restart(self, region: str, day: Any, state: xr.Dataset, of: str = "restart") -> None:
        """Keep the exact state at the start of `day`: as the latest, and for good if a month begins.

        Any dims and numbers are kept as they are; all states of a group have the same variables, else SettingsError.
        A state older than the latest replaces nothing but its own month's.
        """
        at = self._day(region, day)
        self._not_before_origin("restart", at, day)
        node = self._root.require_group(f"{region}/{of}")
        if "day" not in node:
            node.create_array("day", shape=(1,), chunks=(1024,), dtype="i4", fill_value=-1, dimension_names=("slot",))
        if at >= int(node["day"][_LATEST]):
            self._keep(node, region, _LATEST, at, state)
        when, origin = pd.Timestamp(day), self.origin(region)
        if when.day == 1:
            self._keep(node, region, 1 + 12 * (when.year - origin.year) + when.month - origin.month, at, state)

    def drop_restarts(self, region: str, after: Any, of: str = "restart") -> None:
        """Forget the restarts of days later than `after`: what they were computed from has changed."""
        if not self.has(region, of):
            return
        node = self._group(region, of)
        days = np.asarray(node["day"][:])
        late = np.flatnonzero(days > self._day(region, after))
        months = late[late != _LATEST]
        spans = [slice(0, 1)] if _LATEST in late else []
        spans += [slice(int(months[0]), None)] if months.size else []
        for span in spans:  # months lie in their order, so what is too late is the end of them
            node["day"][span] = -1
            for _, array in _state(node):
                array[span] = array.fill_value

    def append_journal(self, region: str, entry: Mapping[str, Any]) -> int:
        """Append one entry (JSON) to the region's journal; its number, also written into it as `seq`."""
        path = f"{region}/journal"
        if not self.has(region, "journal"):
            node = self._root.require_group(path)
            for name, dtype, chunk in (("text", "u1", _JOURNAL_BYTES), ("ends", "i8", _JOURNAL_ENDS)):
                node.create_array(name, shape=(0,), chunks=(chunk,), dtype=dtype, fill_value=0, compressors=[_CODEC])
        text, ends = self._node(f"{path}/text"), self._node(f"{path}/ends")
        seq, start = ends.shape[0], text.shape[0]
        if entry.get("seq", seq) != seq:
            raise TwinError(f"journal of {region}", expected=f"entry {seq}", found=f"entry {entry['seq']}")
        document = canonical({**entry, "seq": seq})
        data = np.frombuffer(document.encode(), dtype="u1")
        text.resize((start + len(data),))
        text[start:] = data
        ends.resize((seq + 1,))
        ends[seq] = start + len(data)
        self._appended.setdefault(region, []).append(json.loads(document))
        return seq

    def ledger(self, region: str) -> Ledger:
        return fold(self._store.at(self.snapshot).ledger(region), self._appended.get(region, ()))

    def commit(self, message: str) -> str:
        """Make all of it visible at once and durable; the new snapshot, or the old one if nothing changed.

        Conflict when another writer committed since this draft was opened: nothing of this draft is visible then.
        """
        if not self._session.has_uncommitted_changes:
            return self.snapshot
        # Of every region, not only those that changed: then any snapshot says by itself which entries it holds.
        last = {region: self.next_seq(region) - 1 for region in self.regions() if self.next_seq(region)}
        self._store.flush()  # chunks first: after a power cut no branch may point at what was still in memory
        with self._store.wait_lock():
            try:
                snapshot = self._session.commit(message, {"region": ",".join(sorted(self._appended)), "seq": last})
            except icechunk.ConflictError as err:
                winner = self._store.head()
                raise Conflict("store", expected=f"snapshot {self.snapshot}", found=winner) from err
            except icechunk.IcechunkError as err:
                raise Transient("store", expected="a commit", found=str(err), where=self._store.url) from err
            self._store.flush()
        return snapshot

    def __reduce__(self):
        raise TypeError("a draft belongs to its process; send the (url, snapshot) of a view")

    @cached_property
    def _root(self) -> Any:  # a zarr.Group; zarr types what it holds as group or array, whichever it is
        return zarr.open_group(self._session.store, mode="r+")

    def _days(self, region: str, dataset: xr.Dataset) -> np.ndarray:
        """Index of every time of `dataset` on the region's axis."""
        times = pd.DatetimeIndex(dataset["time"].values)
        if len(times) and not ((times == times.normalize()).all() and times.is_unique):
            found = f"{len(times)} times from {times.min()} to {times.max()}"
            raise TimeError("days to write", expected="different UTC midnights", found=found)
        days = np.asarray((times - self.origin(region)).days, dtype=np.int64)
        if len(days):
            self._not_before_origin("days to write", int(days.min()), times.min())
        return days

    def _not_before_origin(self, what: str, at: int, day: Any) -> None:
        if at < 0:
            raise TimeError(what, expected="no day before the region's first", found=str(pd.Timestamp(day).date()))

    def _cells(self, region: str, group: str, name: object, found: int) -> None:
        cells = self._group(region).attrs["cells"]
        if found != cells:
            raise TwinError(f"cells of {region}/{group}/{name}", expected=str(cells), found=str(found))

    def _forget_nodes(self) -> None:
        """Look every node up again: some are others now, or gone."""
        for known in (self._nodes, self._dailies, self._coords):
            known.clear()

    def _keep(self, node: Any, region: str, slot: int, at: int, state: xr.Dataset) -> None:
        """Put one state into a slot, growing the arrays to it."""
        arrays = {str(name): array.variable for name, array in state.data_vars.items()}
        for name, values in arrays.items():
            if "cell" in values.dims:
                self._cells(region, "restart", name, values.sizes["cell"])
        there = {name: (_dims(array)[1:], array.shape[1:], str(array.dtype)) for name, array in _state(node)}
        found = {name: (tuple(map(str, v.dims)), v.shape, str(v.dtype)) for name, v in arrays.items()}
        if there and there != found:
            differ = sorted(name for name in there.keys() | found.keys() if there.get(name) != found.get(name))
            raise SettingsError(
                f"state of {region}",
                expected=", ".join(f"{name} {there.get(name, 'absent')}" for name in differ),
                found=", ".join(f"{name} {found.get(name, 'absent')}" for name in differ),
                where=self._store.url,
            )
        for name in [] if there else sorted(arrays):
            values = arrays[name]
            node.create_array(
                name,
                shape=(node["day"].shape[0], *values.shape),
                chunks=(1, *(max(size, 1) for size in values.shape)),
                dtype=values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else 0,
                compressors=[_CODEC],
                dimension_names=("slot", *map(str, values.dims)),
                attributes=_attrs(name, values),
            )
        for _, array in node.arrays():
            if array.shape[0] <= slot:
                array.resize((slot + 1, *array.shape[1:]))
        for name, values in arrays.items():
            node[name][slot] = values.values
        node["day"][slot] = at


def canonical(document: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fold(ledger: Ledger, entries: Iterable[Mapping[str, Any]]) -> Ledger:
    """The ledger after `entries`: the newest wins; `retried` keys leave quarantine before the entry's own arrivals."""
    after = dict(ledger)
    for entry in entries:
        for key in entry.get("retried", ()):
            if after.get(key, {}).get("status") == "quarantined":
                del after[key]
        for status in ("consumed", "quarantined"):
            for arrival in entry.get(status, ()):
                after[arrival["key"]] = {**arrival, "status": status, "seq": entry["seq"]}
    return MappingProxyType(after)


class _Daily(BackendArray):
    """A daily array: full blocks of DAYS in `old`, the block being filled in `new`, one time axis; read lazily."""

    def __init__(self, node: Any, name: str) -> None:
        self.old, self.new = node[name], node[f"recent/{name}"]
        self.shape = (self.old.shape[0] + self.new.shape[0], *self.old.shape[1:])
        self.dtype, self.missing, self.dims = self.old.dtype, self.old.fill_value, _dims(self.old)
        self.attrs = dict(self.old.attrs)

    @property
    def variable(self) -> xr.Variable:
        """As xarray sees it, as long as it is now."""
        return xr.Variable(self.dims, indexing.LazilyIndexedArray(copy(self)), self.attrs)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self.read)

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """The values at `key`, one integer, slice or index array a dimension, each taken for itself."""
        time, *rest = key
        days, edge = np.atleast_1d(np.arange(self.shape[0])[time]), self.old.shape[0]
        places = (days < edge, self.old, 0), (days >= edge, self.new, edge)
        parts = [
            (here, np.asarray(array.oindex[(_span(days[here] - first), *rest)]))
            for here, array, first in places
            if here.any() or (not len(days) and array is self.old)
        ]
        if len(parts) == 1:
            values = parts[0][1]
        else:
            values = np.empty((len(days), *parts[0][1].shape[1:]), self.dtype)
            for here, part in parts:
                values[here] = part
        return values[0] if np.ndim(time) == 0 and not isinstance(time, slice) else values

    def grow(self, length: int) -> None:
        """Make the time axis `length` days long, never shorter; a block that is full by then moves to `old`."""
        length = max(length, self.shape[0])
        edge, rest = (length - 1) // DAYS * DAYS, self.old.shape[1:]
        first, filled = self.old.shape[0], self.new.shape[0]
        if edge > first:
            self.old.resize((edge, *rest))
            if filled:
                self.old[first : first + filled] = self.new[:]
                self.new.resize((0, *rest))
        if self.new.shape[0] < length - edge:
            self.new.resize((length - edge, *rest))
        self.shape = (length, *rest)

    def write(self, days: np.ndarray, values: xr.Variable) -> None:
        """Write `values` (time, ...) at the sorted `days`, which exist."""
        edge = self.old.shape[0]
        split = int(np.searchsorted(days, edge))
        _write_days(self.old, days[:split], values[:split])
        _write_days(self.new, days[split:] - edge, values[split:])


def _create(node: Any, name: str, values: xr.Variable) -> None:
    """A daily array like `values`, without a day yet, laid out for maps, series and appends alike."""
    dtype = np.dtype("f4") if values.dtype.kind == "f" else np.dtype("i1") if values.dtype.kind == "b" else values.dtype
    rest = values.shape[1:]
    cells, middle = rest[-1], (1,) * (len(rest) - 1)
    chunk = min(cells, CELLS)
    shard = -(-min(cells, SHARD) // chunk) * chunk
    common: dict[str, Any] = {
        "shape": (0, *rest),
        "dtype": dtype,
        "fill_value": np.nan if dtype.kind == "f" else np.iinfo(dtype).min,
        "compressors": [_CODEC],
        "dimension_names": values.dims,
        "attributes": _attrs(name, values),
    }
    # One chunk to a shard would only add an index to read.
    shards = (DAYS, *middle, shard) if shard > chunk else None
    node.create_array(name, chunks=(DAYS, *middle, chunk), shards=shards, **common)
    recent = node.require_group("recent")
    recent.create_array(name, chunks=(RECENT, *middle, min(cells, SHARD)), **common)


def _label(node: Any, origin: pd.Timestamp, first: int, end: int) -> None:
    """Give a group its CF time axis, days first..end since the origin, for whoever reads it with xarray alone."""
    if "time" not in node:
        units = {"units": f"days since {origin.date()}", "calendar": "standard", "standard_name": "time"}
        node.create_array(
            "time", shape=(0,), chunks=(8192,), dtype="i4", fill_value=-1, dimension_names=("time",), attributes=units
        )
    axis = node["time"]
    if axis.shape[0] != end - first or (end > first and int(axis[0]) != first):
        axis.resize((end - first,))
        axis[:] = np.arange(first, end, dtype="i4")


def _span(indices: np.ndarray) -> slice | np.ndarray:
    """Consecutive indices as the slice they are."""
    if len(indices) == 0:
        return slice(0, 0)
    return slice(int(indices[0]), int(indices[-1]) + 1) if (np.diff(indices) == 1).all() else indices


def _bits(values: np.ndarray) -> bytes:
    return np.ascontiguousarray(values).tobytes() if values.dtype.kind in "biufM" else repr(values.tolist()).encode()


def _write_days(target: zarr.Array, days: np.ndarray, values: xr.Variable) -> None:
    """Write `values` (time, ...) at the sorted `days`, each block of DAYS once: scattered days are merged first."""
    for block in np.unique(days // DAYS):
        at = np.flatnonzero(days // DAYS == block)
        first, last = int(days[at[0]]), int(days[at[-1]])
        data = np.asarray(values[at[0] : at[-1] + 1].values, dtype=target.dtype)
        if last - first + 1 > len(at):
            merged = np.array(target[first : last + 1])
            merged[days[at] - first] = data
            data = merged
        target[first : last + 1] = data


def _static_encoding(array: xr.Variable) -> dict[str, Any]:
    """Chunks of `_STATIC_CELLS` cells, whole in the other dims but for the first of three.

    A climatology is read for one time of the year at all cells, and for all of the year at one cell.
    """
    chunks = tuple(min(size, _STATIC_CELLS) if dim == "cell" else size for dim, size in array.sizes.items())
    if array.ndim == 3:
        chunks = (1, *chunks[1:])
    compressed = {"compressors": [_CODEC]} if array.dtype.kind in "biuf" else {}
    return {"chunks": chunks, **compressed} if all(chunks) else compressed


def _attrs(name: str, values: xr.Variable) -> dict[str, Any]:
    known = VARIABLES[name].attrs if name in VARIABLES else {}
    own = {key: value for key, value in values.attrs.items() if isinstance(value, (str, int, float, list))}
    return {**known, **own}


def _dims(array: zarr.Array) -> tuple[str, ...]:
    return tuple(str(dim) for dim in getattr(array.metadata, "dimension_names", None) or ())


def _state(group: Any) -> list[tuple[str, zarr.Array]]:
    """The restart arrays but for the days of the slots."""
    return sorted((name, array) for name, array in group.arrays() if name != "day")


def _walk_groups(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, child in group.groups():
        yield prefix + name, child
        if "daily" not in child.attrs:
            yield from _walk_groups(child, f"{prefix}{name}/")


def _folder(url: str) -> Path:
    """The folder a store's URL names."""
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        raise SettingsError("store.url", expected="a folder or file:// URL", found=url)
    return Path(unquote(parts.path) if parts.scheme else url).absolute()


@lru_cache(maxsize=8)
def _shared(url: str) -> Store:
    """One Store per process and URL for views that arrive pickled."""
    return Store.open(url)


def _view(url: str, snapshot: str) -> View:
    return _shared(url).at(snapshot)


def _find_syncfs() -> Any:
    """Linux's syncfs, which flushes one file system; None elsewhere."""
    try:
        return ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return None


_syncfs = _find_syncfs()
