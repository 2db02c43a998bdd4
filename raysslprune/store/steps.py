"""Where steps live: ``<root>/steps/<id>/``, local or on s3:// or gs:// through pyarrow.fs.

A step is done when its ``SUCCESS`` is there, which is written last and holds the metrics, the facts of the
run, and the checksum of every other file. Nothing else counts as done, and nothing is ever unpickled.

All files but SUCCESS depend on the step alone, not on when or where it ran. Two processes that make the same
step at once therefore write the same bytes, and whichever finishes last leaves a whole step.

    <root>/raysslprune.json          marks the folder as ours
    <root>/steps/<id>/spec.json      what the step is, in words
    <root>/steps/<id>/*.safetensors  weights, snapshot-<samples>, mask
    <root>/steps/<id>/SUCCESS
    <root>/checkpoints/<id>          of a training in progress
    <root>/index.parquet             every SUCCESS once more, to be read in one go: a view, which may be deleted
    <root>/results/<scale>/          tables and figures: views, which may be deleted
    <root>/drafts/<scale>/           the same of a sweep that is not at its end, by sweep --draw
    <root>/damaged/                  what failed its checksum, set aside
    <root>/lock, lease               which sweep is at work
    <root>/status.json               how far it is
    <root>/logs/
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raysslprune.spec import Step, is_text, load, to_plain
from raysslprune.store import lock
from raysslprune.store.address import NO_SECRETS, SCHEMES, from_uri, has_secrets
from raysslprune.store.record import Damaged, File, Record, StoreError

MARKER = "raysslprune.json"
FORMAT = 1
VERIFY_AT_MOST = 1 << 30
"""Bytes, new since the last sweep, whose checksums are verified before one starts; more are verified where they are
read."""

INDEX = "index.parquet"
LEASE = "lease"
STATUS = "status.json"
_FOLDERS = ("steps", "checkpoints", "studies", "results", "drafts", "damaged", "logs", "curves")
_OURS = {MARKER, INDEX, LEASE, STATUS, "lock", *_FOLDERS}
"""All that a root holds."""
_STARTING = re.compile(
    rf"({'|'.join(map(re.escape, (MARKER, INDEX, LEASE, STATUS)))})\..*\.part|probe-[0-9a-f]*(\..*\.part)?"
)
"""What a sweep leaves that was killed while it wrote."""
_INDEX = pa.schema([("step", pa.string()), ("files", pa.string()), ("success", pa.binary())])
"""files: a digest of the step's names, sizes and times, as the store lists them."""


def read_parquet(data: bytes, schema: pa.Schema | None = None) -> pa.Table:
    """A Parquet file's table. Raises pa.ArrowException or OSError for what is not whole.

    Without Arrow's threads, those that read ahead among them: one that lets go of ``data`` while the interpreter ends
    would abort the process (https://github.com/apache/arrow/issues/34314), as happened to one command in twenty.
    """
    return pq.read_table(pa.BufferReader(data), schema=schema, use_threads=False, pre_buffer=False)


@dataclass(frozen=True, kw_only=True)
class Held:
    """The lock of a root. check: raises once another sweep has taken the root over. lockless: a sentence if the file
    system has no locks and ought to.
    """

    check: Callable[[], None]
    lockless: str = ""


class Store:
    """The files under one root. Cheap to make; safe to use from many processes."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """root: a folder, in which a leading ``~`` is the home folder, or an address. Raises StoreError for one that
        pyarrow does not know.
        """
        if not isinstance(root, str | os.PathLike | None):
            raise StoreError(f"the root is a folder, s3:// or gs://, not {root!r:.40}")
        root = os.path.expanduser(root or "")
        if not root:
            raise StoreError("--root wants the name of a folder")
        if not is_text(root):
            raise StoreError(f"can't use {root} as the root: its name is not UTF-8")
        self.root = root
        self.shown = root
        """What people are told: the address without its options."""
        try:
            if "://" in root:
                if has_secrets(root):
                    raise StoreError(NO_SECRETS)
                self.shown = re.split("[?#]", root)[0].rstrip("/")
                if root.partition("://")[0].lower() not in SCHEMES:
                    raise StoreError(f"can't use {self.shown} as the root: it is a folder, s3:// or gs://")
                self.fs, self.base = from_uri(root)
                if not self.base:
                    raise StoreError(f"can't use {root} as the root: it names no bucket")
            elif root.lower().startswith(tuple(f"{scheme}:" for scheme in SCHEMES)):
                raise StoreError("--root wants two slashes in an address, as s3://bucket/runs")
            elif root.startswith("~"):
                raise StoreError(
                    f"can't use {root} as the root: there is no such user; for a folder of that name: ./{root}"
                )
            else:
                self.fs, self.base = fs.LocalFileSystem(), os.path.abspath(root)
        except (ValueError, OSError, pa.ArrowException) as error:
            raise StoreError(f"can't use {self.shown} as the root: {_sentence(error)}") from None
        self.local = isinstance(self.fs, fs.LocalFileSystem)
        self._known: dict[str, tuple[str, bytes]] | None = None
        """Steps that were found whole, to the digest of their files and their SUCCESS; None: not looked up yet."""
        self._learned = False

    @property
    def address(self) -> str:
        """What makes the same Store in another process, wherever that works."""
        return self.base if self.local else self.root

    def path(self, name: str) -> str:
        """Where ``name`` is for people and for other programs."""
        return os.path.join(self.base, name) if self.local else f"{self.shown}/{name}"

    # ------------------------------------------------------------------ the root

    def is_new(self) -> bool:
        """True if the root does not exist yet. Raises StoreError if the folder is not ours, or can't be read."""
        try:
            if self._is_marked():
                return False
            info = self.fs.get_file_info(self.base)
            if info.type == fs.FileType.File:
                raise StoreError(f"{self.shown} is a file; --root wants a folder")
            inside = self.fs.get_file_info(fs.FileSelector(self.base, allow_not_found=True))
            names = {i.base_name for i in inside if not _STARTING.fullmatch(i.base_name)}
            if "steps" in names and names <= _OURS:  # it is no other's, and has lost its marker
                return False
            if names:
                raise StoreError(
                    f"{self.shown} holds other files and no {MARKER}; "
                    "--root wants a new or empty folder, or one that raysslprune made"
                )
        except (OSError, ValueError) as error:
            raise StoreError(f"can't read {self.shown}: {_sentence(error)}") from None
        return True

    def _is_marked(self) -> bool:
        """Whether the marker is there. Raises StoreError where it is another version's, and ValueError where it is not
        whole, unless it lies where it can only be ours."""
        if not self._info(MARKER).is_file:
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

    def create(self) -> str:
        """Make the root, or see that it can be written; gives a sentence on what was mended. Raises StoreError."""
        try:
            new, marked = self.is_new(), self._is_marked()
            if not marked:
                self.mark()
            probe = f"probe-{uuid.uuid4().hex}"
            self.write(probe, b"probe")
            self.fs.delete_file(self._at(probe))
        except OSError as error:
            raise StoreError(f"can't write to {self.shown}: {_sentence(error)}") from None
        return "" if new or marked else f"{self.path(MARKER)} was missing or damaged, and is written anew"

    def mark(self) -> None:
        """Say that the root is ours; again after a run, in case somebody deleted the folder meanwhile."""
        self.write(MARKER, json.dumps({"raysslprune": FORMAT}).encode())

    @contextmanager
    def lock(self) -> Iterator[Held]:
        """One sweep at a time. Raises StoreError while another sweep holds the root, and if another takes it over."""
        try:
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
        except lock.Taken as taken:
            raise StoreError(str(taken)) from None

    def holder(self) -> tuple[lock.Holder | str | None, bool]:
        """Who holds the root, and whether they live. Writes nothing."""
        return lock.look(self, LEASE, self._at("lock")) if self.local else lock.look(self, "lock", None)

    # ------------------------------------------------------------------ steps

    def survey(self, ids: Iterable[str]) -> tuple[dict[str, Record], list[Damaged]]:
        """The finished steps among ``ids``, and those that say so but are not whole.

        One listing of the store and of what changed since the last :meth:`remember`, a few calls a step.
        """
        present = self._listing()
        if self._known is None:
            self._known = self._recall()
        done = [i for i in ids if "SUCCESS" in present.get(i, {})]
        digests = {i: _digest(present[i]) for i in done}
        found: dict[str, Record | Damaged] = {}
        for step_id in done:
            digest, success = self._known.get(step_id, ("", b""))
            if digest == digests[step_id]:
                found[step_id] = _record_or_damage(step_id, lambda success=success: success)
        unknown = [i for i in done if not isinstance(found.get(i), Record)]
        with ThreadPoolExecutor(16) as pool:
            read = pool.map(lambda i: _record_or_damage(i, lambda: self.read(f"steps/{i}/SUCCESS")), unknown)
            found |= zip(unknown, read, strict=True)
            for step_id in unknown:
                record = found[step_id]
                wrong = [n for n, f in _files(record).items() if present[step_id].get(n, (-1, 0))[0] != f.size]
                if wrong:
                    found[step_id] = Damaged(step_id, f"{wrong[0]} is missing or of the wrong size")
            new = [record for i in unknown if isinstance(record := found[i], Record)]
            if sum(f.size for record in new for f in record.files.values()) <= VERIFY_AT_MOST:
                found |= {damage.step_id: damage for damage in pool.map(self._verify, new) if damage}
        records = {i: record for i in done if isinstance(record := found[i], Record)}
        learned = {i: (digests[i], records[i].to_bytes()) for i in unknown if i in records}
        self._known |= learned
        self._learned |= bool(learned)
        return records, [damage for i in done if isinstance(damage := found[i], Damaged)]

    def remember(self) -> None:
        """Write down what surveys have found, so that the next command need not ask for each step again."""
        if self._known and self._learned:
            steps, rows = list(self._known), self._known.values()
            table = pa.table([steps, [files for files, _ in rows], [success for _, success in rows]], schema=_INDEX)
            buffer = io.BytesIO()
            pq.write_table(table, buffer, compression="zstd")
            self.write(INDEX, buffer.getvalue())
            self._learned = False

    def _recall(self) -> dict[str, tuple[str, bytes]]:
        """What was written down; nothing where that is not whole."""
        try:
            columns = read_parquet(self.read(INDEX), _INDEX).to_pydict()
        except (OSError, pa.ArrowException):
            return {}
        return dict(zip(columns["step"], zip(columns["files"], columns["success"], strict=True), strict=True))

    def record(self, step_id: str) -> Record | None:
        """The record of a finished step, None if it is not finished. Raises Damaged."""
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
        """Write a finished step; SUCCESS last."""
        everything = {"spec.json": json.dumps(to_plain(step), indent=1).encode(), **files}
        for name, data in everything.items():
            self.write(f"steps/{step.id}/{name}", data)
        record = Record(
            step=step.id,
            metrics=dict(metrics),
            facts=dict(facts),
            files={n: File(size=len(d), sha256=hashlib.sha256(d).hexdigest()) for n, d in everything.items()},
        )
        self.write(f"steps/{step.id}/SUCCESS", record.to_bytes())
        return record

    def artefact(self, step_id: str, name: str) -> bytes:
        """A file of a finished step, checked. Raises Damaged."""
        record = self.record(step_id)
        if record is None or name not in record.files:
            raise Damaged(step_id, f"{name} is not there")
        try:
            data = self.read(f"steps/{step_id}/{name}")
        except OSError as error:
            raise Damaged(step_id, f"{name} can't be read: {_sentence(error)}") from None
        if hashlib.sha256(data).hexdigest() != record.files[name].sha256:
            self._distrust(step_id)
            raise Damaged(step_id, f"{name} does not match its checksum")
        return data

    def _distrust(self, step_id: str) -> None:
        """Force the next survey to re-read this step, whose damage neither sizes nor times show."""
        name = f"steps/{step_id}/SUCCESS"
        with suppress(OSError):  # a root that can't be written
            self.write(name, self.read(name))

    def find(self, text: str) -> str:
        """The id of the one step in the store that begins with ``text``. Raises ValueError where none or several do."""
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
        """A finished step as it was asked for, with all that it was made from, by the files beside them.

        Raises Damaged, also where one of these is gone, and ValueError where another version made them.
        """
        plain: dict[str, dict[str, Any]] = {}
        stack = [step_id]
        while stack:
            if (one := stack.pop()) not in plain:
                plain[one] = json.loads(self.artefact(one, "spec.json"))
                stack += _parents(plain[one])
        ordered: dict[str, dict[str, Any]] = {}
        stack = [step_id]
        while stack:  # every parent before its children
            missing = [parent for parent in _parents(plain[stack[-1]]) if parent not in ordered]
            stack += missing
            if not missing:
                one = stack.pop()
                ordered[one] = plain[one]
        try:
            return load(ordered)[step_id]
        except (KeyError, TypeError):  # a kind or a field that is not known here
            raise ValueError(f"step {step_id} was made by another version of raysslprune") from None

    def set_aside(self, step_id: str) -> str:
        """Move a damaged step out of the way, to be looked at; returns where it went."""
        if self.local:
            return self._move_aside(f"steps/{step_id}")
        target = f"damaged/{step_id}-{uuid.uuid4().hex[:8]}"
        source = self._at(f"steps/{step_id}")
        self.fs.create_dir(self._at(target), recursive=True)
        for info in self.fs.get_file_info(fs.FileSelector(source)):  # an object store has no folders to rename
            self.fs.copy_file(info.path, f"{self._at(target)}/{info.base_name}")
        self.fs.delete_dir(source)
        return self.path(target)

    def _move_aside(self, name: str) -> str:
        """On a local root; returns where it went."""
        target = f"damaged/{os.path.basename(name)}-{uuid.uuid4().hex[:8]}"
        os.makedirs(self._at("damaged"), exist_ok=True)
        os.rename(self._at(name), self._at(target))
        return self.path(target)

    # ------------------------------------------------------------------ checkpoints of trainings in progress

    def save_checkpoint(self, step_id: str, data: bytes) -> None:
        """With a checksum of these bytes and of the step, so that none is taken for another's."""
        self.write(f"checkpoints/{step_id}", hashlib.sha256(step_id.encode() + data).digest() + data)

    def load_checkpoint(self, step_id: str) -> bytes | None:
        """The last checkpoint, None where there is none that is whole."""
        try:
            data = self.read(f"checkpoints/{step_id}")
        except FileNotFoundError:
            return None
        except OSError:
            if self.local:
                return None
            raise  # the store may be back in a minute
        return data[32:] if hashlib.sha256(step_id.encode() + data[32:]).digest() == data[:32] else None

    def checkpoint_time(self, step_id: str) -> float | None:
        """When the last checkpoint was written, as :meth:`modified` has it."""
        return self.modified(f"checkpoints/{step_id}")

    def drop_checkpoint(self, step_id: str) -> None:
        self.remove(f"checkpoints/{step_id}")

    # ------------------------------------------------------------------ bytes

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all: by rename on a local root, by the object store's own promise elsewhere."""
        target = self._at(name)
        path = f"{target}.{uuid.uuid4().hex}.part" if self.local else target
        if self.local:
            os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            with self.fs.open_output_stream(path) as stream:
                stream.write(data)
            if self.local:
                try:
                    os.replace(path, target)
                except IsADirectoryError:  # which nobody of us has made
                    self._move_aside(name)
                    os.replace(path, target)
        except BaseException:  # Ctrl-C too
            if self.local and os.path.exists(path):
                os.remove(path)
            raise

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        with self.fs.open_input_stream(self._at(name)) as stream:
            return cast(bytes, stream.read())

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._info(name).is_file

    def modified(self, name: str) -> float | None:
        """When a file was written, in seconds since 1970 by the root's clock; None if there is none."""
        info = self._info(name)
        return info.mtime_ns / 1e9 if info.is_file else None

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.has(name):
            self.fs.delete_file(self._at(name))

    def _at(self, name: str) -> str:
        if ".." in name.split("/"):  # as an id may be that a file of the root names
            raise StoreError(f"{name!r} leads out of {self.shown}")
        return f"{self.base}/{name}"

    def _info(self, name: str) -> fs.FileInfo:
        return self.fs.get_file_info(self._at(name))

    def _listing(self) -> dict[str, Listed]:
        """Of each step's folder, in one call. On a local root with what is in the place of a folder or a file."""
        selector = fs.FileSelector(self._at("steps"), recursive=True, allow_not_found=True)
        steps: dict[str, Listed] = {}
        top = self._at("steps")
        for info in self.fs.get_file_info(selector):
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

    def _verify(self, record: Record) -> Damaged | None:
        for name, file in record.files.items():
            try:
                data = self.read(f"steps/{record.step}/{name}")
            except OSError as error:
                return Damaged(record.step, f"{name}: {_sentence(error)}")
            if hashlib.sha256(data).hexdigest() != file.sha256:
                return Damaged(record.step, f"{name} does not match its checksum")
        return None


Listed = dict[str, tuple[int, int]]
"""The files of a step: name to size and time of the last change."""


_WRONG = (-1, 0)
"""No file has this size."""


def _digest(files: Listed) -> str:
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]


def _record_or_damage(step_id: str, read: Callable[[], bytes]) -> Record | Damaged:
    try:
        return Record.from_bytes(read(), step_id)
    except FileNotFoundError:
        return Damaged(step_id, "its SUCCESS is gone")
    except Damaged as damage:
        return damage
    except OSError as error:
        return Damaged(step_id, _sentence(error))


def _files(found: Record | Damaged) -> dict[str, File]:
    return found.files if isinstance(found, Record) else {}


def _parents(plain: Any) -> list[str]:
    """Ids of the steps that a step in words names."""
    if isinstance(plain, dict):
        return [plain["step"]] if "step" in plain else [i for value in plain.values() for i in _parents(value)]
    return []


def _sentence(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
