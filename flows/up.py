"""The embedded twin: every process of it, started together, watched, and stopped together.

    prefect ─┐
    catalog ─┼─ supervisor (this process): starts them in order, restarts what dies, one Ctrl-C stops all
    portal  ─┤
    flows   ─┤
    analyses ┤  unless TWIN_ASSIMILATION__ENABLED and TWIN_TRAINING__ENABLED are false
    provider ┘  only for a simulated region

A child asks the kernel to be told to stop when this process dies (PR_SET_PDEATHSIG), so nothing stays behind.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console

from infra.settings import Region, Settings

console = Console()
FLOWS = ("flows", "analyses")  # started last and stopped first
GRACE = 10.0  # seconds a process has to stop by itself
PREFECT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
}


def free_port(preferred: int, taken: Collection[int] = ()) -> int:
    """`preferred` when nothing listens there, otherwise one the system chooses."""
    for candidate in (preferred, 0):
        with socket.socket() as probe:
            # as servers do, or a port just left by the last start would seem taken and every link would change
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            port = probe.getsockname()[1]
            if port not in taken:
                return port
    raise OSError("no free port on 127.0.0.1")


@dataclass
class Process:
    """One process of the twin: how to start it, and how to see that it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str = ""  # a URL that answers 200 once it is up
    log: Path = Path(os.devnull)
    child: subprocess.Popen | None = None
    starts: int = 0
    since: float = 0.0

    def start(self) -> None:
        """Start it in a process group of its own, its output in its log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self.starts += 1
        self.since = time.monotonic()

    def dead(self) -> bool:
        return self.child is None or self.child.poll() is not None

    def is_ready(self) -> bool:
        if not self.ready:
            return not self.dead()
        try:
            return httpx.get(self.ready, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def signal(self, number: int) -> None:
        """Signal the whole group, so that what it started stops with it."""
        if self.child is not None:
            try:
                os.killpg(self.child.pid, number)
            except ProcessLookupError:
                return


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def plan(settings: Settings, place: Region, sources: Sequence[str]) -> tuple[list[Process], dict[str, str]]:
    """The processes of the embedded twin and the links to show, ports chosen free."""
    home = Path(settings.home).resolve()
    ports: dict[str, int] = {}
    for name, preferred in {"prefect": 4200, "catalog": 8081, "portal": 8501}.items():
        ports[name] = free_port(preferred, set(ports.values()))
    at = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    external = settings.catalog.url
    catalog = external or at["catalog"]
    token = settings.catalog.token.get_secret_value() if settings.catalog.token else secrets.token_urlsafe(24)
    common = {
        **PREFECT,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": f"{at['prefect']}/api",
        "TWIN_HOME": str(home),
        "TWIN_CATALOG__URL": catalog,
        "TWIN_CATALOG__TOKEN": token,
        "TWIN_REGION": place.name,
        "PYTHONUNBUFFERED": "1",
    }
    reading = {
        name: value for name, value in common.items() if name != "TWIN_CATALOG__TOKEN"
    }  # the portal cannot write
    run = [sys.executable, "-m"]

    def process(name: str, *command: str, ready: str = "", environment: Mapping[str, str] = common) -> Process:
        return Process(name, [*run, *command], environment, ready, home / "logs" / f"{name}.log")

    processes = [
        process(
            "prefect",
            "prefect",
            "server",
            "start",
            "--host",
            "127.0.0.1",
            "--port",
            str(ports["prefect"]),
            ready=f"{at['prefect']}/api/health",
        ),
        process(
            "portal", "ui", "--port", str(ports["portal"]), ready=f"{at['portal']}/_stcore/health", environment=reading
        ),
    ]
    if not external:
        serve_catalog = ("stac.server", "--path", str(home / "catalog.sqlite"), "--port", str(ports["catalog"]))
        processes.insert(1, process("catalog", *serve_catalog, ready=f"{at['catalog']}/healthz"))
    if place.simulated and not sources:
        folder = home / "provider"
        sources = [str(folder / "catalog.json")]
        provide = (
            "infra.provider",
            "--folder",
            str(folder),
            "--region",
            place.name,
            "--interval",
            str(settings.demo.interval),
        )
        processes.append(process("provider", *provide))
    watched = [word for source in sources for word in ("--source", source)]
    processes.append(process("flows", "flows.serve", "--region", place.name, *watched))
    if settings.assimilation.enabled or settings.training.enabled:
        processes.append(process("analyses", "flows.serve", "--region", place.name, "--analyses"))
    links = {"portal": at["portal"], "runs (Prefect)": at["prefect"], "catalogue (STAC API)": catalog}
    return processes, links


def supervise(processes: Sequence[Process], links: Mapping[str, str], prepared: Callable[[], object]) -> int:
    """Start everything, keep it running until Ctrl-C or SIGTERM, stop everything; the exit code."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    flows = [process for process in processes if process.name in FLOWS]
    try:
        for process in processes:
            if process not in flows:
                process.start()
        prepared()
        while not stopping and not all(p.is_ready() for p in processes if p not in flows):
            _revive([p for p in processes if p not in flows])
            time.sleep(0.3)
        for process in flows:
            if not stopping:
                process.start()
        if not stopping:
            for name, link in links.items():
                console.print(f"  {name:<22} [bold]{link}[/bold]", highlight=False)
            console.print("Ctrl-C stops everything; starting again goes on where it stopped.")
        while not stopping:
            _revive(processes)
            time.sleep(0.5)
        return 0
    finally:
        console.print("stopping …")
        _stop_all(processes)


def _revive(processes: Sequence[Process]) -> None:
    """Start again what died, more slowly each time it dies soon after its start."""
    for process in processes:
        if process.dead() and time.monotonic() - process.since > 0.5 * 2 ** min(process.starts, 6):
            console.print(f"[yellow]{process.name} stopped; starting it again (its log: {process.log})[/yellow]")
            process.start()


def _stop_all(processes: Sequence[Process]) -> None:
    """Ask the flows to finish the run under way, then everything else to stop; insist after a grace period each."""
    flows = [process for process in processes if process.name in FLOWS]
    others = [process for process in processes if process not in flows]
    for group, number in ((flows, signal.SIGINT), (others, signal.SIGTERM)):
        for process in group:
            process.signal(number)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and not all(process.dead() for process in group):
            time.sleep(0.1)
        for process in group:
            process.signal(signal.SIGKILL)
