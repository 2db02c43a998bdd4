"""A server that speaks S3, in a process of its own on this machine."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from raysslprune.store.steps import Store
from tests.helpers.processes import wait_until

KEY, SECRET = "AKIAEXAMPLE", "wJalrXUtnFEMI/bPxRfiCYEXAMPLEKEY"


@dataclass(frozen=True, kw_only=True)
class Server:
    port: int
    log: Path

    def root(self, bucket: str) -> str:
        return f"s3://{bucket}/runs?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def bucket(self) -> str:
        """A new one."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
        return name

    def calls(self) -> list[str]:
        """What it was asked so far: ``PUT /bucket/key``, and so on."""
        return re.findall(r"(?:GET|PUT|POST|HEAD|DELETE) /\S*", self.log.read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(folder: Path, **environment: str) -> Iterator[Server]:
    """A server in a process of its own."""
    there = Server(port=free_port(), log=folder / "log")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(there.port)]
    with (
        there.log.open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment}) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or answers(there.port), 60)
            assert process.poll() is None, there.log.read_text()
            yield there
        finally:
            process.kill()


def objects(store: Store) -> dict[str, bytes]:
    """Every object below the root, by its name there."""
    found = store.fs.get_file_info(fs.FileSelector(store.base, recursive=True))
    names = [info.path.removeprefix(f"{store.base}/") for info in found if info.is_file]
    return {name: store.read(name) for name in names}


def names(store: Store) -> list[str]:
    found = store.fs.get_file_info(fs.FileSelector(store.base, recursive=True, allow_not_found=True))
    return [info.path.removeprefix(f"{store.base}/") for info in found if info.is_file]
