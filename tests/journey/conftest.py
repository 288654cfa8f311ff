"""A small simulated region, prepared once and copied for every twin that starts from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import verbs
from infra.settings import Settings, region
from infra.wiring import build


@pytest.fixture(scope="module")
def small_region():
    """The simulated region at four degrees: the same climate on about 150 cells."""
    saved = os.environ.get("TWIN_DEMO__RESOLUTION")
    os.environ["TWIN_DEMO__RESOLUTION"] = "4"
    yield region("demo")
    os.environ.pop("TWIN_DEMO__RESOLUTION")
    if saved is not None:
        os.environ["TWIN_DEMO__RESOLUTION"] = saved


@pytest.fixture(scope="module")
def prepared_home(tmp_path_factory, small_region) -> Callable[[Path], Path]:
    """Makes a home whose region is prepared already."""
    original = tmp_path_factory.mktemp("prepared")
    verbs.prepare(build(Settings(home=original)), small_region)

    def copy(target: Path) -> Path:
        shutil.copytree(original, target)
        return target

    return copy
