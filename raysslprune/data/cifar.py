"""CIFAR-10 and CIFAR-100 as torchvision downloads and reads them; it checks the MD5 of every file it unpickles."""

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


class CIFAR10:
    """50,000 training and 10,000 test images, uint8 (n, 3, 32, 32), under ``<data>/cifar10/cifar-10-batches-py``."""

    name: ClassVar[str] = "cifar10"
    kind: ClassVar[type[datasets.CIFAR10]] = datasets.CIFAR10

    def __init__(self, argument: str = "") -> None:
        no_argument(self.name, argument)

    def locate(self, root: Path, fetch: bool = False) -> None:
        """Check the files, as in Source. ``fetch`` needs no network if the archive is in ``<data>/cifar10``."""
        folder, kind = root.absolute() / self.name, self.kind
        files = [*kind.train_list, *kind.test_list, [kind.meta["filename"], kind.meta["md5"]]]
        wrong = [name for name, md5 in files if not check_integrity(folder / kind.base_folder / name, md5)]
        if wrong and fetch:
            self.fetch(folder)
        elif wrong:
            path = folder / kind.base_folder / wrong[0]
            fault = "damaged" if path.exists() else "missing"
            raise DataError(f"{path} is {fault}; expected: the contents of {kind.url}, unpacked in {folder}")

    def fetch(self, folder: Path) -> None:
        """Download and unpack. Two processes may do so at once: each file is moved to its place when it is complete.

        Raises DataError, and then leaves no new folder.
        """
        kind = self.kind
        try:
            place = next(path for path in (folder, *folder.parents) if path.exists())
            with tempfile.TemporaryDirectory(prefix=".download-", dir=place) as temporary:
                if check_integrity(folder / kind.filename, kind.tgz_md5):
                    shutil.copy(folder / kind.filename, temporary)
                with contextlib.redirect_stdout(sys.stderr):
                    kind(temporary, download=True)
                (folder / kind.base_folder).mkdir(parents=True, exist_ok=True)
                for file in (Path(temporary) / kind.base_folder).iterdir():
                    file.replace(folder / kind.base_folder / file.name)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise DataError(
                f"{kind.url} could not be downloaded ({error}); if this machine has no network, put the file "
                f"into {folder}"
            ) from error

    def load(self, root: Path) -> Dataset:
        return resident(self.split(root, True), self.split(root, False))

    def split(self, root: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Images and labels. Raises DataError."""
        folder = root.absolute() / self.name
        try:
            read = self.kind(folder, train=train)
        except (OSError, RuntimeError) as error:
            self.locate(root)  # names the file
            raise DataError(f"{folder} can't be read: {error}") from error
        return torch.from_numpy(read.data).permute(0, 3, 1, 2), torch.tensor(read.targets)


class CIFAR100(CIFAR10):
    """CIFAR-100, in the form of CIFAR-10, with 100 classes, under ``<data>/cifar100/cifar-100-python``."""

    name = "cifar100"
    kind = datasets.CIFAR100
