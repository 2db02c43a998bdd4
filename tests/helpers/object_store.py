"""An object store, as S3 and GCS look through pyarrow."""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from pyarrow import fs

from raysslprune.store.steps import Store


class _Upload(io.BytesIO):
    """Bytes that become visible when the stream is closed."""

    def __init__(self, publish: Callable[[bytes], None]) -> None:
        super().__init__()
        self.publish = publish

    def close(self) -> None:
        if not self.closed:
            self.publish(self.getvalue())
        super().close()


class ObjectStore(fs.FileSystemHandler):
    """Keys and bytes in memory. Like Arrow's S3 and GCS: folders need not be made, and can't be moved."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.times: dict[str, float] = {}
        self.clock: Callable[[], float] = time.time

    def get_type_name(self) -> str:
        return "objects"

    def normalize_path(self, path: str) -> str:
        return path

    def _info(self, path: str) -> fs.FileInfo:
        if path in self.keys:
            return fs.FileInfo(path, fs.FileType.File, size=len(self.keys[path]), mtime=self.times[path])
        below = any(key.startswith(f"{path}/") for key in self.keys)
        return fs.FileInfo(path, fs.FileType.Directory if below else fs.FileType.NotFound)

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        base = f"{selector.base_dir}/"
        below = [key for key in sorted(self.keys) if key.startswith(base)]
        if not below and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        if selector.recursive:
            return [self._info(key) for key in below]
        return [self._info(base + name) for name in dict.fromkeys(key[len(base) :].split("/")[0] for key in below)]

    def create_dir(self, path: str, recursive: bool) -> None: ...

    def delete_dir(self, path: str) -> None:
        self.keys = {key: data for key, data in self.keys.items() if not key.startswith(f"{path}/")}

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        self.keys = {}

    def delete_file(self, path: str) -> None:
        del self.keys[path]

    def move(self, src: str, dest: str) -> None:
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        if src not in self.keys:
            raise FileNotFoundError(errno.ENOENT, f"no such key {src}")
        self.put(dest, self.keys[src])

    def put(self, path: str, data: bytes) -> None:
        self.keys[path], self.times[path] = data, self.clock()

    def open_input_stream(self, path: str) -> pa.PythonFile:
        if path not in self.keys:
            raise FileNotFoundError(errno.ENOENT, f"no such key {path}")
        return pa.PythonFile(io.BytesIO(self.keys[path]), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        return pa.PythonFile(_Upload(lambda data: self.put(path, data)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        raise NotImplementedError


def object_store() -> Store:
    store = Store("mock:///bucket/runs")
    store.fs = fs.PyFileSystem(ObjectStore())
    store.create()
    return store
