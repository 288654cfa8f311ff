"""How far a long run is, as an artifact of the run on Prefect's own pages."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

EVERY = 5.0  # seconds between two entries


def progress(key: str, label: str) -> Callable[[float, str], None]:
    """Makes the artifact; to be called with the share that is done and a sentence, as often as one likes."""
    bar = create_progress_artifact(0.0, key=key, description=label)
    told = 0.0

    def show(share: float, sentence: str) -> None:
        nonlocal told
        if time.monotonic() - told >= EVERY:
            told = time.monotonic()
            update_progress_artifact(UUID(str(bar)), 100.0 * share, sentence)

    return show
