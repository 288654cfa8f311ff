"""The house itself: names resolve to this repository, and nothing opens on import."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "twin", "ui", "stac", "infra")


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_ours(name):
    """PyPI has packages called `stac` and `flows`; a test folder called like one of ours would hide it."""
    assert Path(importlib.import_module(name).__file__).resolve().is_relative_to(ROOT / name)


def test_the_top_level_is_the_agreed_one():
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {name.split("/")[0] for name in tracked}
    agreed = {*PACKAGES, "tests", "docs", "pyproject.toml", "README.md", "Makefile"}
    assert {name for name in top if not name.startswith(".")} <= agreed


def test_no_module_shadows_the_standard_library():
    ours = {path.stem for name in PACKAGES for path in (ROOT / name).rglob("*.py") if not path.stem.startswith("__")}
    assert not ours & set(sys.stdlib_module_names)


def test_importing_opens_nothing(tmp_path):
    """Importing every module of the lower layers leaves no file in the working directory and connects to nothing."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in ("twin", "stac", "infra")
        for path in (ROOT / name).rglob("*.py")
        if not path.stem.startswith("__")
    ]
    program = "import socket; socket.socket.connect = None\nimport importlib\n" + "".join(
        f"importlib.import_module({m!r})\n" for m in modules
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
