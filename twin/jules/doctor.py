"""What is missing before JULES can run here, and how to get it."""

from __future__ import annotations

from pathlib import Path

from twin.errors import SettingsError
from twin.jules import accept, process, versions

HOW = (
    "JULES is licensed by the Met Office and not part of the twin. Up to version 7.9, ask for access to its code:",
    "https://jules-lsm.github.io/access_req/JULES_access.html (it can take two weeks). From version 8.0, see",
    "https://github.com/MetOffice/jules and its licence. Build it with NetCDF, in double precision for exact restarts.",
    "Then set TWIN_MODEL__EXECUTABLE to jules.exe and TWIN_MODEL__NAMELISTS to the folder of its .nml files.",
)


def doctor(
    executable: str | Path | None = None, namelists: str | Path | None = None, version: str | None = None
) -> list[str]:
    """Lines that say what is there and what is not; nothing longer than a start of the executable is run."""
    if not executable or not namelists:
        return ["JULES: not set up", *HOW]
    try:
        program = process.find(executable)
        banner = process.probe(program)
        files = accept.read_namelists(Path(namelists).expanduser())
        oldest, newest = versions.detect(files, banner, version)
        accept.check_namelists(files, oldest)
    except SettingsError as err:
        return [f"JULES: {err}", *HOW]
    which = oldest if oldest == newest else f"{oldest} to {newest}"
    return [f"JULES: {program} starts", f"JULES: {len(files)} namelist files of version {which} can be used"]
