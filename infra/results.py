"""What a worker knows of tasks: where the result of one is kept, how it is written, and how it is told to be whole.

Workers import this and what they run, nothing else of ours.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from twin.errors import Transient, VariableError

Arrays = dict[str, np.ndarray]

_STARTS = 4  # workers that may die while they run one task


def address_of(function: str, task: str) -> str:
    return hashlib.sha256(f"{function}\n{task}".encode()).hexdigest()


@dataclass(frozen=True)
class Work:
    """What a worker does with a task: run it, unless its result is there; back comes only a receipt."""

    folder: Path
    run: str
    key: str
    function: Callable[[Any], Arrays] | None  # None: where function_path is

    def __call__(self, task: Any) -> tuple[str, int, float, str]:
        """State, attempts, seconds and host of the task."""
        address, host = address_of(self.key, task.key), socket.gethostname()
        path = self.result_path(address)
        if path.exists():
            return "reused", 0, 0.0, host
        if self.function is not None:
            return self._kept(self.function, task, path, 1, host)
        hosts = self.begun(address)
        if len(hosts) >= _STARTS:  # whatever they died of: memory, a crash, the walltime
            found = f"{len(hosts)} that died, the last on {hosts[-1]}"
            raise Transient("task", expected="a worker that lives to its end", found=found)
        begun = self._begun_path(address)
        begun.parent.mkdir(parents=True, exist_ok=True)
        with begun.open("a") as file:
            file.write(f"{host}\n")
        try:
            return self._kept(_loaded(self.function_path), task, path, len(hosts) + 1, host)
        finally:
            begun.unlink(missing_ok=True)

    def _kept(self, function: Callable, task: Any, path: Path, attempts: int, host: str) -> tuple[str, int, float, str]:
        started = time.monotonic()
        arrays = function(task)
        write(path, packed(arrays))
        return "done", attempts, time.monotonic() - started, host

    def begun(self, address: str) -> list[str]:
        """The hosts that began this task and did not end it."""
        try:
            return self._begun_path(address).read_text().split()
        except FileNotFoundError:
            return []

    def _begun_path(self, address: str) -> Path:
        return self.folder / "tries" / self.run / address

    def result_path(self, address: str) -> Path:
        return self.folder / "results" / address[:2] / address

    @property
    def function_path(self) -> Path:
        return self.folder / "functions" / hashlib.sha256(self.key.encode()).hexdigest()


def packed(arrays: Arrays) -> bytes:
    """The arrays as a line of names, each in numpy's own format, and the SHA-256 of it all."""
    if not isinstance(arrays, Mapping):
        raise VariableError("result of a task", expected="arrays by name", found=type(arrays).__name__)
    file = io.BytesIO()
    file.write(json.dumps(list(arrays)).encode() + b"\n")
    for name, values in arrays.items():
        try:
            np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)
        except ValueError as err:
            found = f"{name} of Python objects"
            raise VariableError("result of a task", expected="arrays of numbers", found=found) from err
    return file.getvalue() + hashlib.sha256(file.getbuffer()).digest()


def intact(path: Path) -> Arrays | None:
    """The arrays of a result, which counts as used now; None, and no file, if they are not what was written."""
    try:
        os.listdir(path.parent)  # else a network file system may remember that it was not there
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    body, checksum = content[:-32], content[-32:]
    if hashlib.sha256(body).digest() != checksum:
        path.unlink(missing_ok=True)
        return None
    with suppress(FileNotFoundError):
        os.utime(path)
    file = io.BytesIO(body)
    return {name: np.lib.format.read_array(file, allow_pickle=False) for name in json.loads(file.readline())}


def write(path: Path, content: bytes) -> None:
    """The whole file or none, on disk before it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@lru_cache(maxsize=1)
def _loaded(path: Path) -> Callable:
    return pickle.loads(path.read_bytes())
