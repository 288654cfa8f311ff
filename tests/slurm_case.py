"""A SLURM of four virtual nodes for the tests, and the settings that send work to each kind of compute."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.settings import Settings

SCRIPT = Path(__file__).parents[1] / "infra" / "deploy" / "slurm" / "slurm.sh"
KINDS = ("local", "processes", pytest.param("slurm", marks=pytest.mark.slurm))


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """SLURM while the block runs, SLURM_CONF set; skips the test, with the reason, where it is not installed."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    absent = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if not shutil.which(name, path=path)]
    if absent:
        pytest.skip(f"SLURM not here: no {', '.join(absent)} on the PATH (apt-get install slurm-wlm munge)")
    subprocess.run([SCRIPT, "start", folder], check=True, stdout=subprocess.DEVNULL)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run([SCRIPT, "stop", folder], check=True)
        del os.environ["SLURM_CONF"]


def settings(kind: str, home: Path, **compute: object) -> Settings:
    """Settings with that compute: two workers, of this machine only."""
    given = {"workers": 2, "jobs": 2, "memory": "500MB", "interface": "lo", "start_timeout": 60.0}
    return Settings(home=home, compute={"kind": kind, **given, **compute})
