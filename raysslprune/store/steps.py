"""Storage of steps under ``<root>/steps/<id>/``, local or on s3:// or gs:// through pyarrow.fs.

A step is done when it has a ``SUCCESS``, which is written last and holds the metrics, the facts of the
run, and the checksum of every other file. Nothing else counts as done, and nothing is ever unpickled.

All files but SUCCESS depend on the step alone, not on when or where it ran. Two processes that make the same
step at once therefore write the same bytes, and whichever finishes last leaves a complete step.

    <root>/raysslprune.json          marks the folder as ours
    <root>/steps/<id>/spec.json      the step as JSON data
    <root>/steps/<id>/*.safetensors  weights, snapshot-<samples>, mask
    <root>/steps/<id>/SUCCESS
    <root>/checkpoints/<id>          checkpoint of a training in progress
    <root>/index.parquet             a copy of every SUCCESS, to read in one go: a view, which may be deleted
    <root>/results/<scale>/          tables and figures: views, which may be deleted
    <root>/drafts/<scale>/           the same for an unfinished sweep, by sweep --draw
    <root>/damaged/                  files that failed their checksums, set aside
    <root>/replaced/                 steps that were made again by other source, set aside
    <root>/lock, lease               the running sweep
    <root>/status.json               its progress
    <root>/logs/
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raysslprune.spec import Step, is_text, load, not_read, to_plain
from raysslprune.store import lock
from raysslprune.store.address import NO_SECRETS, SCHEMES, from_uri, has_secrets
from raysslprune.store.record import Damaged, File, Record, StoreError

MARKER = "raysslprune.json"
FORMAT = 1
MAX_VERIFIED = 1 << 30
"""Maximum bytes of new files whose checksums are verified before a sweep starts; if there are more, each file is
verified when it is read."""

RETRY_EVERY = 2.0
"""Seconds between looks at the lock of another sweep."""

INDEX = "index.parquet"
LEASE = "lease"
STATUS = "status.json"
_FOLDERS = ("steps", "checkpoints", "studies", "results", "drafts", "damaged", "replaced", "logs", "curves", "wandb")
_OURS = {MARKER, INDEX, LEASE, STATUS, "lock", *_FOLDERS}
"""Names of everything in a root."""
_TEMPORARY = re.compile(
    rf"({'|'.join(map(re.escape, (MARKER, INDEX, LEASE, STATUS)))})\..*\.part|probe-[0-9a-f]*(\..*\.part)?"
)
"""Pattern of the temporary files that a killed sweep leaves."""
_INDEX = pa.schema([("step", pa.string()), ("files", pa.string()), ("success", pa.binary())])
"""Schema of the index. files: a digest of the names, sizes and times of a step's files, as the store lists them."""

Listed = dict[str, tuple[int, int]]
"""Files of a step: size and time of the last change, by name."""

UNREAD = "unread"
"""Key in ``spec.json`` of ancestors that the step does not read, by id; perhaps nothing trains them."""

_WRONG = (-1, 0)
"""Size and time that no file has."""


def read_parquet(data: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """Read a Parquet file's table. Raises pa.ArrowException or OSError for a damaged one.

    Arrow's threads are off, also those that read ahead: if one releases ``data`` while the interpreter exits, the
    process aborts (https://github.com/apache/arrow/issues/34314), as one command in twenty did.
    """
    return pq.read_table(pa.BufferReader(data), schema=schema, use_threads=False, pre_buffer=False)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The lock of a root.

    check: raises StoreError once another sweep has taken the root over. lockless: a note for the user if the file
    system of a folder has no locks.
    """

    check: Callable[[], None]
    lockless: str = ""


class Store:
    """The files under one root. Cheap to create; safe to use from many processes."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """root: a folder, whose leading ``~`` is the home folder, or an address. Raises StoreError if it is invalid."""
        if not isinstance(root, str | os.PathLike | None):
            raise StoreError(f"the root must be a folder, s3:// or gs://, not {root!r:.40}")
        root = os.path.expanduser(root or "")
        if not root:
            raise StoreError("--root needs the name of a folder")
        if not is_text(root):
            raise StoreError(f"can't use {root} as the root: its name is not UTF-8")
        if "://" not in root and root.lower().startswith(tuple(f"{scheme}:" for scheme in SCHEMES)):
            raise StoreError("--root needs two slashes in an address, as s3://bucket/runs")
        if root.startswith("~"):
            raise StoreError(f"can't use {root} as the root: there is no such user; write ./{root} for a folder")
        if "://" in root and has_secrets(root):
            raise StoreError(NO_SECRETS)
        self.root = root
        self.shown = re.split("[?#]", root)[0].rstrip("/") if "://" in root else root
        """Address for messages: without its options."""
        try:
            self.fs, self.base = self._open()
        except (ValueError, OSError, pa.ArrowException) as error:
            raise StoreError(f"can't use {self.shown} as the root: {_sentence(error)}") from None
        self.local = isinstance(self.fs, fs.LocalFileSystem)
        self._learned = False

    def _open(self) -> tuple[fs.FileSystem, str]:
        """Return the file system and the path of the root. Raises ValueError, OSError or pa.ArrowException."""
        scheme, mark, _ = self.root.partition("://")
        if not mark:
            return fs.LocalFileSystem(), os.path.abspath(self.root)
        if scheme.lower() not in SCHEMES:
            raise ValueError("it must be a folder, s3:// or gs://")
        files, base = from_uri(self.root)
        if not base:
            raise ValueError("the address has no bucket")
        return files, base

    @property
    def address(self) -> str:
        """Address that opens the same root in another process, whatever its working directory."""
        return self.base if self.local else self.root

    def path(self, name: str) -> str:
        """Path of ``name`` for people and for other programs."""
        return os.path.join(self.base, name) if self.local else f"{self.shown}/{name}"

    # ------------------------------------------------------------------ the root

    def is_new(self) -> bool:
        """Return whether the root has yet to be created. Raises StoreError if the folder is not ours, or unreadable."""
        try:
            return not self._is_marked() and not self._is_unmarked_root()
        except (OSError, ValueError) as error:
            raise StoreError(f"can't read {self.shown}: {_sentence(error)}") from None

    def _is_marked(self) -> bool:
        """Return whether the marker exists and is intact.

        Raises StoreError for the marker of another version, ValueError for a damaged one without a folder ``steps``.
        """
        if not self.has(MARKER):
            return False
        try:
            found = json.loads(self.read(MARKER))
        except ValueError:
            if self._info("steps").type == fs.FileType.Directory:
                return False
            raise
        if found != {"raysslprune": FORMAT}:
            raise StoreError(f"{self.shown} was made by another version of raysslprune; use another --root")
        return True

    def _is_unmarked_root(self) -> bool:
        """Return whether the folder is a root without its marker. Raises StoreError if it contains other files."""
        if self.fs.get_file_info(self.base).is_file:
            raise StoreError(f"{self.shown} is a file; --root needs a folder")
        inside = self.fs.get_file_info(fs.FileSelector(self.base, allow_not_found=True))
        names = {i.base_name for i in inside if not _TEMPORARY.fullmatch(i.base_name)}
        if names and not ("steps" in names and names <= _OURS):
            raise StoreError(
                f"{self.shown} contains other files but no {MARKER}; "
                "--root needs a new or empty folder, or one that raysslprune made"
            )
        return bool(names)

    def create(self) -> str:
        """Create the root, or check that it is writable; return a note on any repair. Raises StoreError."""
        try:
            new, marked = self.is_new(), self._is_marked()
            if not marked:
                self.mark()
            probe = f"probe-{uuid.uuid4().hex}"
            self.write(probe, b"probe")
            self.fs.delete_file(self._at(probe))
        except OSError as error:
            raise StoreError(f"can't write to {self.shown}: {_sentence(error)}") from None
        return "" if new or marked else f"{self.path(MARKER)} was missing or damaged, and has been written again"

    def mark(self) -> None:
        """Mark the root as ours; called again after a run, in case the folder was deleted meanwhile."""
        self.write(MARKER, json.dumps({"raysslprune": FORMAT}).encode())

    @contextmanager
    def lock(self) -> Iterator[Held]:
        """Lock the root for one sweep. Raises StoreError while another sweep holds it, and if another takes it over."""
        if not self.local:
            with lock.lease(self, "lock", self.shown) as check:
                yield Held(check=check)
            return
        with (
            lock.flock(self._at("lock"), self.shown) as lacking,
            lock.lease(self, LEASE, self.shown, flocked=not lacking) as check,
        ):
            sentence = (
                f"the file system of {self.shown} has no locks ({lacking}), so this sweep holds a lease; if it is "
                f"killed, the root is free again {lock.STALE:.0f} s later"
            )
            yield Held(check=check, lockless=sentence if lacking else "")

    def holder(self) -> tuple[lock.Holder | None, bool]:
        """Return the holder of the root's lock, and whether it is alive. Write nothing."""
        return lock.look(self, LEASE, self._at("lock")) if self.local else lock.look(self, "lock", None)

    def await_release(self) -> None:
        """Wait until no sweep seems to hold the root's lock; this takes at least RETRY_EVERY seconds."""
        time.sleep(RETRY_EVERY)
        while self.holder()[1]:
            time.sleep(RETRY_EVERY)

    # ------------------------------------------------------------------ steps

    def survey(self, ids: Iterable[str]) -> tuple[dict[str, Record], list[Damaged]]:
        """Return the records of the finished steps among ``ids``, and the damage of the damaged ones.

        This takes one listing of the store, and a few calls for each step changed since the last :meth:`remember`.
        """
        present = self.listing()
        done = [i for i in ids if "SUCCESS" in present.get(i, {})]
        digests = {i: _digest(present[i]) for i in done}
        found: dict[str, Record | Damaged] = {}
        for step_id in done:
            digest, success = self._index.get(step_id, ("", b""))
            if digest == digests[step_id]:
                with suppress(Damaged):  # of the index
                    found[step_id] = Record.from_bytes(success, step_id)
        new = [i for i in done if i not in found]
        with ThreadPoolExecutor(16) as pool:
            found |= zip(new, pool.map(lambda i: self._examine(i, present[i]), new), strict=True)
            intact = [record for i in new if isinstance(record := found[i], Record)]
            if sum(file.size for record in intact for file in record.files.values()) <= MAX_VERIFIED:
                found |= {damage.step_id: damage for damage in pool.map(self._verify, intact) if damage}
        records = {i: record for i in done if isinstance(record := found[i], Record)}
        learned = {i: (digests[i], records[i].to_bytes()) for i in new if i in records}
        self._index.update(learned)
        self._learned |= bool(learned)
        return records, [damage for i in done if isinstance(damage := found[i], Damaged)]

    def _examine(self, step_id: str, listed: Listed) -> Record | Damaged:
        """Read a step's SUCCESS, and compare the listed sizes of its files."""
        try:
            record = Record.from_bytes(self.read(f"steps/{step_id}/SUCCESS"), step_id)
        except Damaged as damage:
            return damage
        except OSError as error:
            return Damaged(step_id, f"its SUCCESS can't be read: {_sentence(error)}")
        wrong = [name for name, file in record.files.items() if listed.get(name, _WRONG)[0] != file.size]
        return Damaged(step_id, f"{wrong[0]} is missing or of the wrong size") if wrong else record

    def _verify(self, record: Record) -> Damaged | None:
        """Read all files of a step, and return the first damage, None if they are intact."""
        for name in record.files:
            try:
                self._checked(record, name)
            except Damaged as damage:
                return damage
            except OSError as error:
                return Damaged(record.step, f"{name} can't be read: {_sentence(error)}")
        return None

    def _checked(self, record: Record, name: str) -> bytes:
        """Read a file of a step. Raises OSError, and Damaged if it does not match its checksum."""
        data = self.read(f"steps/{record.step}/{name}")
        if hashlib.sha256(data).hexdigest() != record.files[name].sha256:
            raise Damaged(record.step, f"{name} does not match its checksum")
        return data

    @cached_property
    def _index(self) -> dict[str, tuple[str, bytes]]:
        """Digest of the files, and SUCCESS, of each step that was found intact, in this process or an earlier one."""
        try:
            columns = read_parquet(self.read(INDEX), _INDEX).to_pydict()
        except (OSError, pa.ArrowException):  # missing or damaged
            return {}
        return dict(zip(columns["step"], zip(columns["files"], columns["success"], strict=True), strict=True))

    def remember(self) -> None:
        """Write what surveys found to the index, so that the next command need not read each step again."""
        if self._learned:
            rows = [{"step": i, "files": files, "success": success} for i, (files, success) in self._index.items()]
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, _INDEX), buffer, compression="zstd")
            self.write(INDEX, buffer.getvalue())
            self._learned = False

    def record(self, step_id: str) -> Record | None:
        """Return the record of a finished step, None if it is not finished. Raises Damaged."""
        try:
            data = self.read(f"steps/{step_id}/SUCCESS")
        except FileNotFoundError:
            return None
        try:
            return Record.from_bytes(data, step_id)
        except Damaged:
            self._distrust(step_id)
            raise

    def commit(
        self, step: Step, files: Mapping[str, bytes], metrics: Mapping[str, float], facts: Mapping[str, Any]
    ) -> Record:
        """Write a finished step; SUCCESS last, when all other files are there.

        To an object store, where each request waits, the other files are written at the same time.
        """
        plain = to_plain(step)
        if unread := not_read(step):  # perhaps nothing trains them, so that they have no folder of their own
            plain[UNREAD] = {one.id: to_plain(one) for one in unread}
        everything = {"spec.json": json.dumps(plain, indent=1).encode(), **files}
        with ThreadPoolExecutor(len(everything)) as threads:
            write = map if self.local else threads.map
            list(write(lambda file: self.write(f"steps/{step.id}/{file[0]}", file[1]), everything.items()))
        record = Record(
            step=step.id,
            metrics=dict(metrics),
            facts=dict(facts),
            files={n: File(size=len(d), sha256=hashlib.sha256(d).hexdigest()) for n, d in everything.items()},
        )
        self.write(f"steps/{step.id}/SUCCESS", record.to_bytes())
        return record

    def artefact(self, step_id: str, name: str) -> bytes:
        """Read a file of a finished step and verify its checksum. Raises Damaged."""
        record = self.record(step_id)
        if record is None or name not in record.files:
            raise Damaged(step_id, f"{name} is not there")
        try:
            return self._checked(record, name)
        except OSError as error:
            raise Damaged(step_id, f"{name} can't be read: {_sentence(error)}") from None
        except Damaged:
            self._distrust(step_id)
            raise

    def _distrust(self, step_id: str) -> None:
        """Force the next survey to read this step again: neither sizes nor times show its damage."""
        name = f"steps/{step_id}/SUCCESS"
        with suppress(OSError):  # a root that can't be written
            self.write(name, self.read(name))

    def find(self, text: str) -> str:
        """Return the id of the one step that begins with ``text``. Raises ValueError if none or several do."""
        selector = fs.FileSelector(self._at("steps"), allow_not_found=True)
        ids = sorted(info.base_name for info in self.fs.get_file_info(selector))
        found = [step_id for step_id in ids if step_id.startswith(text.lower())]
        if len(found) > 1:
            some = ", ".join(found[:3]) + (", ..." if len(found) > 3 else "")
            raise ValueError(f"{len(found)} steps in {self.shown} begin with {text!r}: {some}")
        if not found:
            raise ValueError(f"there is no step {text!r:.40} in {self.shown}")
        return found[0]

    def step(self, step_id: str) -> Step:
        """Rebuild a finished step and all its ancestors from their ``spec.json``.

        Raises Damaged, also if an ancestor is missing, and ValueError if another version made them.
        """
        plain = self.specs([step_id])
        parents_first = TopologicalSorter({one: parents_of(data) for one, data in plain.items()}).static_order()
        try:
            return load({one: plain[one] for one in parents_first})[step_id]
        except (KeyError, TypeError):  # an unknown kind or field
            raise ValueError(f"step {step_id} was made by another version of raysslprune") from None

    def specs(self, ids: Iterable[str], among: Container[str] | None = None) -> dict[str, dict[str, Any]]:
        """Return the ``spec.json`` of finished steps and of all their ancestors, by id.

        among: leave out other steps; None to leave out none. Raises Damaged, also if one is missing.
        """
        found: dict[str, dict[str, Any]] = {}
        wanted = set(ids)
        with ThreadPoolExecutor(16) as pool:
            while wanted := {i for i in wanted if i not in found and (among is None or i in among)}:
                plain = dict(zip(wanted, pool.map(self.spec, wanted), strict=True))
                for data in list(plain.values()):
                    plain |= data.pop(UNREAD, {})
                found |= plain
                wanted = {parent for data in plain.values() for parent in parents_of(data)}
        return found

    def spec(self, step_id: str) -> dict[str, Any]:
        """Return the ``spec.json`` of a finished step. Raises Damaged."""
        return json.loads(self.artefact(step_id, "spec.json"))

    def delete(self, step_id: str) -> None:
        """Delete a step; SUCCESS first, so that an interrupted deletion leaves no record without its files."""
        self.remove(f"steps/{step_id}/SUCCESS")
        self.fs.delete_dir(self._at(f"steps/{step_id}"))

    def forget(self, ids: Iterable[str]) -> None:
        """Have the next :meth:`remember` leave out these steps."""
        for step_id in ids:
            self._learned |= self._index.pop(step_id, None) is not None

    def set_aside(self, step_id: str, folder: str = "damaged") -> str:
        """Move a step to ``damaged/`` or ``replaced/``, for inspection; return its new path."""
        if self.local:
            return self._move_aside(f"steps/{step_id}", folder)
        target = f"{folder}/{step_id}-{uuid.uuid4().hex[:8]}"
        source = self._at(f"steps/{step_id}")
        self.fs.create_dir(self._at(target), recursive=True)
        for info in self.fs.get_file_info(fs.FileSelector(source)):  # an object store has no folders to rename
            self.fs.copy_file(info.path, f"{self._at(target)}/{info.base_name}")
        self.fs.delete_dir(source)
        return self.path(target)

    def _move_aside(self, name: str, folder: str = "damaged") -> str:
        """Move a file or folder of a local root to another folder of it; return its new path."""
        target = f"{folder}/{os.path.basename(name)}-{uuid.uuid4().hex[:8]}"
        os.makedirs(self._at(folder), exist_ok=True)
        os.rename(self._at(name), self._at(target))
        return self.path(target)

    # ------------------------------------------------------------------ checkpoints of unfinished trainings

    def save_checkpoint(self, step_id: str, data: bytes) -> None:
        """Write a checkpoint with a checksum over its bytes and the step's id, so that it fits no other step."""
        self.write(f"checkpoints/{step_id}", hashlib.sha256(step_id.encode() + data).digest() + data)

    def load_checkpoint(self, step_id: str) -> bytes | None:
        """Return the last checkpoint; None if it is missing or damaged."""
        try:
            data = self.read(f"checkpoints/{step_id}")
        except FileNotFoundError:
            return None
        except OSError:
            if self.local:
                return None
            raise  # the object store may be back in a minute
        return data[32:] if hashlib.sha256(step_id.encode() + data[32:]).digest() == data[:32] else None

    def checkpoints(self) -> dict[str, int]:
        """Return the sizes of all checkpoints, by the ids of their trainings."""
        folder = fs.FileSelector(self._at("checkpoints"), allow_not_found=True)
        return {info.base_name: info.size for info in self.fs.get_file_info(folder) if info.is_file}

    def checkpoint_time(self, step_id: str) -> float | None:
        """Return the time of the last checkpoint, as :meth:`modified` does."""
        return self.modified(f"checkpoints/{step_id}")

    def drop_checkpoint(self, step_id: str) -> None:
        self.remove(f"checkpoints/{step_id}")

    # ------------------------------------------------------------------ bytes

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically: by a rename on a local root, by the object store's own guarantee elsewhere."""
        target = self._at(name)
        if not self.local:
            self._write(target, data)
            return
        part = Path(f"{target}.{uuid.uuid4().hex}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._write(str(part), data)
            if os.path.isdir(target):  # a folder that is not ours
                self._move_aside(name)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _write(self, path: str, data: bytes) -> None:
        with self.fs.open_output_stream(path) as stream:
            stream.write(data)

    def read(self, name: str) -> bytes:
        """Read a file. Raises FileNotFoundError."""
        with self.fs.open_input_stream(self._at(name)) as stream:
            return cast(bytes, stream.read())

    def has(self, name: str) -> bool:
        """Return whether a file exists."""
        return self._info(name).is_file

    def modified(self, name: str) -> float | None:
        """Return when a file was written, in seconds since 1970 by the root's clock; None if there is no such file."""
        info = self._info(name)
        return info.mtime_ns / 1e9 if info.is_file else None

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""
        if self.has(name):
            self.fs.delete_file(self._at(name))

    def _at(self, name: str) -> str:
        if ".." in name.split("/"):  # an id in a file of the root may contain it
            raise StoreError(f"{name!r} is outside {self.shown}")
        return f"{self.base}/{name}"

    def _info(self, name: str) -> fs.FileInfo:
        return self.fs.get_file_info(self._at(name))

    def listing(self) -> dict[str, Listed]:
        """Return the files of each step's folder, by one call to the store.

        On a local root, files and folders in each other's place are _WRONG.
        """
        top = self._at("steps")
        steps: dict[str, Listed] = {}
        for info in self.fs.get_file_info(fs.FileSelector(top, recursive=True, allow_not_found=True)):
            folder, _, name = info.path.rpartition("/")
            above, _, step_id = folder.rpartition("/")
            if self.local and folder == top:
                if info.is_file:
                    steps[name] = {"SUCCESS": _WRONG}
            elif info.is_file:
                steps.setdefault(step_id, {})[name] = (info.size, info.mtime_ns)
            elif self.local and above == top:
                steps.setdefault(step_id, {})[name] = _WRONG
        return steps


def _digest(files: Listed) -> str:
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]


def parents_of(plain: Any) -> list[str]:
    """Return the ids of the steps that a step's JSON data names."""
    if isinstance(plain, dict):
        return [plain["step"]] if "step" in plain else [i for value in plain.values() for i in parents_of(value)]
    return []


def _sentence(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
