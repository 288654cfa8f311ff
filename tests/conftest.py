"""Shared fixtures: the real data when there is some, and no network beyond this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_socket import socket_allow_hosts


@pytest.fixture(autouse=True)
def only_this_machine():
    """No test may reach the internet: connections leave for the loopback addresses only."""
    socket_allow_hosts(["127.0.0.1", "::1", "localhost"], allow_unix_socket=True)


@pytest.fixture(autouse=True, scope="session")
def nothing_slow_unless_asked():
    """What is not about assimilation or training does not wait for it: a test of one sets its …__ENABLED itself."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ASSIMILATION", "TRAINING"):
            patch.setenv(f"TWIN_{name}__ENABLED", "false")
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that need it are skipped, with this reason, where there is none."""
    folder = os.environ.get("TWIN_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data not here: TWIN_REAL_DATA names no folder")
    return Path(folder).resolve()
