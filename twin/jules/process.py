"""Starting the executable, and saying in one error why it did not do what it should."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from twin.errors import SettingsError, Transient, TwinError

OUT, ERR = "jules.out", "jules.err"  # what the process printed, in its run directory
_FATAL = re.compile(r"\[FATAL ERROR\]\s*(?:(\w+)\s*:)?\s*(.+)")
_ENOUGH = 1 << 16  # bytes read from either end of what was printed
_FORTRAN_RUNTIME = 2  # exit code of a Fortran runtime error


def find(executable: str | Path) -> Path:
    """The absolute path of a program: a path, or a name on the PATH. Raises SettingsError saying what is there."""
    path = Path(executable).expanduser()
    if len(path.parts) == 1 and (found := shutil.which(str(path))):
        path = Path(found)
    path = path.absolute()
    what, expected = "JULES executable", "a program that can be started"
    if not path.exists():
        raise SettingsError(what, expected=expected, found=f"nothing at {path}", where="TWIN_MODEL__EXECUTABLE")
    if not path.is_file():
        raise SettingsError(what, expected=expected, found=f"a folder, {path}", where="TWIN_MODEL__EXECUTABLE")
    if not os.access(path, os.X_OK):
        raise SettingsError(what, expected=expected, found=f"no permission to execute {path}", where=f"chmod +x {path}")
    return path


def probe(executable: Path, timeout: float = 60.0) -> str:
    """What the executable prints in an empty folder, where it should miss its first namelist file and stop.

    Raises SettingsError if it cannot be started at all.
    """
    with tempfile.TemporaryDirectory(prefix="jules-probe-") as folder:
        try:
            code = _start(executable, Path(folder), timeout)
        except Transient:
            code = 0
        printed = _printed(Path(folder), OUT) + _printed(Path(folder), ERR)
    if code == 127 or "error while loading shared libraries" in printed:
        raise _libraries(executable, printed)
    return printed


def execute(executable: Path, folder: Path, timeout: float, cells: str) -> None:
    """Run JULES in its run directory; what it prints goes to two files there.

    cells   which cells these are, for the error
    Raises Transient when it is still running after `timeout` seconds or was killed, SettingsError for anything else
    but an end that it calls good.
    """
    where = f"{cells}; see {ERR}, {OUT} and the namelists in {folder}"
    try:
        code = _start(executable, folder, timeout)
    except Transient as err:
        raise Transient(err.what, expected=err.expected, found=err.found, where=where) from err
    printed = _printed(folder, ERR) + _printed(folder, OUT)
    if code or _FATAL.search(printed):
        raise _explained(executable, code, printed, where)


def _start(executable: Path, folder: Path, timeout: float) -> int:
    """The exit code; Transient when time is up, SettingsError when the system cannot run the file."""
    with open(folder / OUT, "wb") as out, open(folder / ERR, "wb") as err:
        try:
            # a session of its own, so that a wrapper (mpirun, a script) ends with what it started;
            # one thread, as the cells are already spread over processes
            process = subprocess.Popen(
                [str(executable), "."],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={"OMP_NUM_THREADS": "1", **os.environ},
            )
        except OSError as error:
            raise _unstartable(executable, error) from error
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise Transient("JULES", expected=f"an end within {timeout:g} s", found="still running") from error
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _explained(executable: Path, code: int, printed: str, where: str) -> TwinError:
    """One error for an exit code and what was printed."""
    if fatal := _FATAL.search(printed):
        routine = f" ({fatal[1]})" if fatal[1] else ""
        return SettingsError("JULES", expected="a run to the end", found=fatal[2].strip() + routine, where=where)
    if code == 127 or "error while loading shared libraries" in printed:
        return _libraries(executable, printed)
    last = " | ".join([line.strip() for line in printed.splitlines() if line.strip()][-3:])[-500:]
    said = f": {last}" if last else ""
    number = -code if code < 0 else code - 128  # a shell reports signal n as 128 + n
    if number in {int(s) for s in signal.Signals}:
        name = signal.Signals(number).name
        if name in ("SIGKILL", "SIGTERM"):
            return Transient(
                "JULES", expected="a run to the end", found=f"killed, {name}; too little memory?{said}", where=where
            )
        hint = {"SIGSEGV": "; try `ulimit -s unlimited`", "SIGFPE": "; a division by zero or an overflow"}.get(name, "")
        return SettingsError("JULES", expected="a run to the end", found=f"a crash, {name}{hint}{said}", where=where)
    kind = "a Fortran runtime error" if code == _FORTRAN_RUNTIME else f"exit code {code}"
    return SettingsError("JULES", expected="a run to the end", found=f"{kind}{said}", where=where)


def _unstartable(executable: Path, error: OSError) -> SettingsError:
    if error.errno == errno.ENOEXEC:
        found = f"{executable}, which is no program for this machine (another architecture?)"
    elif error.errno == errno.ENOENT:
        found = f"{executable}, whose interpreter or loader is missing"
    else:
        found = f"{executable}: {error.strerror}"
    return SettingsError("JULES executable", expected="a program that can be started", found=found)


def _libraries(executable: Path, printed: str) -> SettingsError:
    line = next((line for line in printed.splitlines() if "shared librar" in line), "exit code 127")
    return SettingsError(
        "JULES executable", expected="its shared libraries (LD_LIBRARY_PATH)", found=line.strip(), where=str(executable)
    )


def _printed(folder: Path, name: str) -> str:
    """The two ends of what was printed."""
    with open(folder / name, "rb") as file:
        first = file.read(_ENOUGH)
        size = file.seek(0, os.SEEK_END)
        if size <= _ENOUGH:
            return first.decode(errors="replace")
        file.seek(max(_ENOUGH, size - _ENOUGH))
        return (first + b"\n" + file.read()).decode(errors="replace")
