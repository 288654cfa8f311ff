"""Jules: a LandModel that runs the user's executable, one process for each tile of cells."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from twin.errors import SettingsError
from twin.forcing import disaggregate
from twin.inputs import DAY, check_forcing, check_parameters, check_state
from twin.jules import accept, inputs, namelist, names, outputs, process, versions
from twin.variables import LAYERS

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
_WATER_TABLE = 6.0  # m, JULES' default of zw_max, the bottom of TOPMODEL's store


@dataclass(frozen=True)
class _Setup:
    """What every process of a run shares."""

    executable: Path
    namelists: Path
    version: str
    workdir: Path | None
    daily: bool
    deep: float | None  # depth of TOPMODEL's store below the soil, m
    timeout: float
    tolerance: float | None
    keep: bool


@dataclass(frozen=True)
class _Tile:
    """The cells of one process, numbered within the whole, and its share of the input."""

    first: int
    last: int
    state: xr.Dataset
    forcing: xr.Dataset
    parameters: xr.Dataset


class Jules:
    """LandModel over a JULES executable, versions 5.0 to 8.0.

    executable         jules.exe: a path, or a name on the PATH
    namelists          folder of its .nml files; copied for each run, never changed. Physics, the parameters of plants
                       (with leaf area and height) and of other surfaces are as they say; see docs/jules.md
    workdir            where run directories are made; the system's place for temporary files by default
    cells_per_process  most cells of one process
    map                calls a function on many inputs: the built-in one by one, an executor's or a cluster's at once
    timeout            s a process may take
    daily              diagnostics are of whole UTC days instead of every step of the forcing
    version            of JULES, where neither the executable nor the namelists tell
    tolerance          of the water balance, kg m-2 a day; by default from the precision of the build
    keep               leave the run directories of good runs too

    Raises SettingsError for an executable that cannot be started or namelists that cannot be used.
    """

    name = "jules"

    def __init__(
        self,
        executable: str | Path,
        namelists: str | Path,
        workdir: str | Path | None = None,
        *,
        cells_per_process: int = 256,
        map: Map = map,
        timeout: float = 86400.0,
        daily: bool = False,
        version: str | None = None,
        tolerance: float | None = None,
        keep: bool = False,
    ) -> None:
        if cells_per_process < 1:
            raise SettingsError("cells_per_process", expected="1 or more", found=cells_per_process)
        program = process.find(executable)
        folder = Path(namelists).expanduser().absolute()
        files = accept.read_namelists(folder)
        oldest, newest = versions.detect(files, process.probe(program), version)
        accept.check_namelists(files, oldest)
        hydrology = files["jules_hydrology"], "jules_hydrology"
        deep = None
        if namelist.value(*hydrology, "l_top", False):
            deep = namelist.value(*hydrology, "zw_max", _WATER_TABLE) - sum(LAYERS)
        here = Path(workdir).expanduser().absolute() if workdir is not None else None
        self.version = oldest if oldest == newest else f"{oldest} to {newest}"
        self.map = map
        self.cells_per_process = cells_per_process
        self._setup = _Setup(program, folder, oldest, here, daily, deep, timeout, tolerance, keep)

    def run(self, state: xr.Dataset, forcing: xr.Dataset, parameters: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        """See `twin.model.LandModel.run`; steps of at most 3 h, or days, which are spread over hours (`disaggregate`).

        The end state also carries, under `jules_*`, what JULES itself dumped, so that a run that goes on from it is the
        run that never stopped. State and forcing may be those of the embedded model.
        Raises what the protocol says before the first step; afterwards SettingsError for what stopped JULES, Transient
        when it was killed or took too long, AssetError, TimeError, VariableError or RangeError for output that is cut,
        missing, not finite, impossible, or does not close its water balance. The run directory then stays.
        """
        setup = self._setup
        if check_forcing(forcing, daily=True) == DAY:
            forcing, setup = disaggregate(forcing, "1h"), replace(setup, daily=True)
        parameters = check_parameters(parameters, forcing)
        kept = [str(name) for name in state.data_vars if str(name).startswith((names.DUMP, *names.DEEP.values()))]
        state = check_state(state, forcing, parameters, kept)
        tiles = self._tiles(state, forcing, parameters)
        ends, series = zip(*self.map(partial(_run, setup), tiles), strict=True)
        return _joined(ends), _joined(series)

    def _tiles(self, *whole: xr.Dataset) -> Iterator[_Tile]:
        cells = whole[0].sizes["cell"]
        for first in range(0, cells, self.cells_per_process):
            last = min(first + self.cells_per_process, cells)
            yield _Tile(first, last - 1, *(ds.isel(cell=slice(first, last)) for ds in whole))


def _run(setup: _Setup, tile: _Tile) -> tuple[xr.Dataset, xr.Dataset]:
    """One process from its namelists to its result, in a directory of its own that stays if something fails."""
    if setup.workdir:
        setup.workdir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="jules-", dir=setup.workdir))
    inputs.link(setup.namelists, folder)
    timestep = inputs.write(
        folder,
        accept.read_namelists(setup.namelists),
        setup.version,
        setup.daily,
        tile.state,
        tile.forcing,
        tile.parameters,
        names.written(setup.deep is not None),
    )
    cells = f"cells {tile.first} to {tile.last}"
    process.execute(setup.executable, folder, setup.timeout, cells)
    result = outputs.read(
        folder,
        tile.forcing,
        tile.parameters,
        daily=setup.daily,
        deep=setup.deep,
        steps=86400 // timestep,
        tolerance=setup.tolerance,
        first=tile.first,
        where=f"{cells}, run directory {folder}",
    )
    if not setup.keep:
        shutil.rmtree(folder)
    return result


def _joined(parts: tuple[xr.Dataset, ...]) -> xr.Dataset:
    """Tiles of cells side by side; what has no cells is the same in all."""
    if len(parts) == 1:
        return parts[0]
    return xr.concat(
        parts,
        "cell",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
