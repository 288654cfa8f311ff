"""How far each projection of the journal has come; losing the files only means that everything is offered again."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from urllib.parse import quote


class Positions:
    """The last journal entry published or announced: a tiny file per target, projection and region, replaced whole."""

    def __init__(self, folder: Path, target: str = "embedded") -> None:
        self.folder, self.target = Path(folder), target

    def get(self, projection: str, region: str) -> int:
        """The sequence of the last entry done; -1 before the first, or where the file is no number."""
        try:
            return int(self._file(projection, region).read_text())
        except (FileNotFoundError, ValueError):
            return -1

    def set(self, projection: str, region: str, seq: int) -> None:
        """Entry `seq` is done."""
        target = self._file(projection, region)
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f"{target.name}.{os.getpid()}-{threading.get_ident()}")
        with fresh.open("w") as file:
            file.write(str(seq))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)

    def _file(self, projection: str, region: str) -> Path:
        return self.folder / quote(f"{self.target} {projection} {region}", safe=" ")
