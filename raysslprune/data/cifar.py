"""CIFAR-10 and CIFAR-100 as torchvision downloads and reads them; it checks the MD5 of all that it unpickles."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from raysslprune.data.dataset import DataError, Dataset, no_argument, resident
from raysslprune.data.parquet import nearest


class CIFAR10:
    """50,000 training and 10,000 test images, uint8 (n, 3, 32, 32), under ``<data>/cifar10/cifar-10-batches-py``."""

    name: ClassVar[str] = "cifar10"
    kind: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10

    def __init__(self, argument: str = "") -> None:
        no_argument(self.name, argument)

    def locate(self, root: Path, fetch: bool = False) -> None:
        """As in Source. ``fetch`` needs no network where the archive lies in ``<data>/cifar10`` already."""
        folder, kind = root.absolute() / self.name, self.kind
        files = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
        wrong = [name for name, md5 in files if not check_integrity(folder / kind.base_folder / name, md5)]
        if wrong and fetch:
            try:
                self.fetch(folder)
            except DataError as error:
                raise DataError(f"{error}{self.hint(root)}") from error
        elif wrong:
            path = folder / kind.base_folder / wrong[0]
            raise DataError(
                f"{path} is {'damaged' if path.exists() else 'missing'}; wanted: what is in {kind.url},"
                f" unpacked in {folder}{self.hint(root)}"
            )

    def hint(self, root: Path) -> str:
        """The rest of a sentence on what lies under the data root in another layout, and how to use it."""
        root, hints = root.absolute(), list[str]()
        for name in (self.kind.base_folder, self.kind.filename):
            if (root / name).exists() and root.name == self.name:
                hints.append(f"{root / name} is there: --data wants the folder above, {root.parent}")
            elif (root / name).exists():
                hints.append(f"{root / name} is there: move it into {root / self.name}")
        if images := nearest(root, self.name):
            use = f'data="parquet/{images}" in a sweep file of your own'
            hints.append(f"{root} has Parquet files of that name: {use} uses them")
        return "".join(f"; {hint}" for hint in hints)

    def fetch(self, folder: Path) -> None:
        """Download and unpack. Two that do so at once do no harm: each file is moved to its place when it is whole.

        Folders that were made for it and stayed empty are removed. Raises DataError.
        """
        kind = self.kind
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
                if check_integrity(folder / kind.filename, kind.tgz_md5):
                    shutil.copy(folder / kind.filename, temporary)
                with contextlib.redirect_stdout(sys.stderr):
                    kind(temporary, download=True)
                (folder / kind.base_folder).mkdir(exist_ok=True)
                for file in (Path(temporary) / kind.base_folder).iterdir():
                    file.replace(folder / kind.base_folder / file.name)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{kind.url} could not be downloaded ({reason}); without a network, put that file into {folder}"
            ) from error
        finally:
            for path in made:
                with contextlib.suppress(OSError):  # it is not empty
                    path.rmdir()

    def load(self, root: Path) -> Dataset:
        return resident(self.split(root, True), self.split(root, False))

    def split(self, root: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Images and labels. Raises DataError."""
        folder = root.absolute() / self.name
        try:
            read = self.kind(folder, train=train)
        except (OSError, RuntimeError) as error:
            self.locate(root)  # says which file it is
            raise DataError(f"{folder} can't be read: {error}") from error
        return torch.from_numpy(read.data).permute(0, 3, 1, 2), torch.tensor(read.targets)


class CIFAR100(CIFAR10):
    """As CIFAR-10, with 100 classes, under ``<data>/cifar100/cifar-100-python``."""

    name = "cifar100"
    kind = datasets.CIFAR100
