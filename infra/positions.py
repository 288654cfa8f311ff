"""How far each projection of the journal has come; losing the file only means that everything is offered again."""

from __future__ import annotations

import json
import os
from pathlib import Path


class Positions:
    """The last journal entry published or announced, by target and region, in one small file replaced atomically."""

    def __init__(self, path: Path, target: str = "embedded") -> None:
        self.path, self.target = Path(path), target

    def get(self, projection: str, region: str) -> int:
        """The sequence of the last entry done; -1 before the first."""
        return int(self._read().get(self._name(projection, region), -1))

    def set(self, projection: str, region: str, seq: int) -> None:
        """Entry `seq` is done."""
        known = {**self._read(), self._name(projection, region): seq}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with fresh.open("w") as file:
            file.write(json.dumps(known, sort_keys=True, indent=1))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    def _name(self, projection: str, region: str) -> str:
        return f"{self.target}/{projection}/{region}"

    def _read(self) -> dict[str, int]:
        try:
            return json.loads(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
