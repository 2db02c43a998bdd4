"""Input of images from disk at ImageNet's size: ours beside torchvision's, and the cores that GPUs would need."""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.statistics import spread
from raysslprune import catalogue
from raysslprune.commands.common import positive
from raysslprune.plan.cost import cores

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from raysslprune.data import Dataset
    from raysslprune.data.files import Files
    from raysslprune.spec import Recipe

IMAGES = 96
"""Number of images. They are read repeatedly, so from the page cache: the processor is measured, not the disk."""

SIZES = ((500, 375), (500, 333), (375, 500), (500, 400))
"""Width and height of ImageNet's usual images."""

QUALITY = 98
"""Quality of the JPEGs, which then have 100 kB on average; ImageNet's have 110."""

BATCH, WARM = 16, 6
"""Samples in a batch; batches before the clock starts, which fill the queues."""

COPIES = {"256": 256, "320": 320}
"""Shorter sides of copies with smaller images, by name."""

TASKS = ("labels", "exemplar", "npid")
GPUS = 8
SEED = 0

Way = tuple[str, str]
"""Task, and the way in which its images are read."""

Batches = Generator[int, None, None]
"""Endless generator of the number of samples of each batch."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Samples per second of wall time, and per second of busy cores."""

    clock: float
    core: float


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the samples/s that reach the network, by the paper's recipes for ResNet-50.

    usual: torchvision's ImageFolder and transforms for the recipe, in the processes of a DataLoader. tensors: the same
    with torchvision's decoder and its transforms of uint8. ours: the input of the training loop, decoded and cropped by
    threads; flips, colours and normalisation are left to the GPU. ours and the rest: with these on the CPU, too.
    ours, 256: from the copy that ``raysslprune resize`` makes.
    """
    from raysslprune import data
    from raysslprune.commands.resize import resize
    from raysslprune.data.folder import Folder
    from raysslprune.paper.recipes import NETS, VIEWS

    counts = sorted({1, *(min(count, cores()) for count in options.cores)})
    runs: list[dict[int, dict[Way, Rate]]] = []
    made: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.dataset:
            _linked(_files(data.source(options.dataset).load(Path(options.data))), root / "images")
        else:
            photographs(root / "images")
        found = {"original": Folder("images").load(root)}
        with contextlib.redirect_stdout(sys.stderr):
            for name, shorter in COPIES.items():
                begun = time.process_time()
                resize(Folder("images"), root, root, shorter)
                made[name] = IMAGES / (time.process_time() - begun)
                found[name] = Folder(f"images-{shorter}").load(root)
        ways = _ways(found)
        for _ in range(options.repeats):
            runs.append({})
            for threads in counts:
                with _on(threads):
                    runs[-1][threads] = {way: _rate(begin(threads), options.samples) for way, begin in ways.items()}
        copies = {name: _files(copy) for name, copy in found.items()}
        candidates = _candidates(copies["original"], options.repeats)
        fidelity = {name: _fidelity(copies["original"], copies[name]) for name in COPIES}
        kilobytes = {name: spread(_kilobytes(files)) for name, files in copies.items()}
    gpus = {task: GPUS * NETS["resnet50"].on_gpu / VIEWS.get(task, 1) for task in TASKS}
    return {
        "kB an image": kilobytes,
        "dB that a copy is off": fidelity,
        "copy, images/s of a core": {name: spread([rate]) for name, rate in made.items()},
        "crop, time over ours": candidates,
        "samples/s of a core": {", ".join(way): spread([run[1][way].core for run in runs]) for way in ways},
        "over usual": {
            ", ".join(way): spread([run[1][way].core / run[1][way[0], "usual"].core for run in runs])
            for way in ways
            if way[1] != "usual"
        },
        f"cores for {GPUS} GPUs": {
            ", ".join(way): spread([gpus[way[0]] / run[1][way].core for run in runs]) for way in ways
        },
    } | {
        f"{threads} cores over one": {
            ", ".join(way): spread([run[threads][way].clock / run[1][way].clock for run in runs]) for way in ways
        }
        for threads in counts[1:]
    }


def _ways(found: Mapping[str, Dataset]) -> dict[Way, Callable[[int], Batches]]:
    """Return the ways to read the original images and the copies: functions from a number of threads to batches."""
    from raysslprune.paper.recipes import VIEWS, appendix_d

    ways: dict[Way, Callable[[int], Batches]] = {}
    original = found["original"]
    for task in TASKS:
        recipe, views = appendix_d(task, "imagenet", "resnet50"), VIEWS.get(task, 1)
        ways[task, "usual"] = partial(_usual, _files(original), recipe, views, False)
        if task == "labels":
            ways[task, "tensors"] = partial(_usual, _files(original), recipe, views, True)
            ways[task, "ours and the rest"] = partial(_ours, original, recipe, views, True)
        ways[task, "ours"] = partial(_ours, original, recipe, views, False)
        ways |= {(task, f"ours, {name}"): partial(_ours, found[name], recipe, views, False) for name in COPIES}
    return ways


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=5, help="how often (default: %(default)s)")
    parser.add_argument("--samples", type=positive, default=256, help="each time, of each way (default: %(default)s)")
    parser.add_argument("--cores", type=positive, nargs="+", default=[1, 2], help="how many (default: 1 2)")
    parser.add_argument("--data", type=catalogue.data_root, default="", help="where data sets lie")
    parser.add_argument("--dataset", default="", help="imagenet, say (default: parts of scikit-learn's photographs)")


# ------------------------------------------------------------------------------------- the images


def photographs(folder: Path, count: int = IMAGES) -> None:
    """Write parts of scikit-learn's two photographs as JPEGs of ImageNet's usual sizes; two are in val, too."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.RandomState(SEED)
    for number in range(count):
        photograph, (width, height) = photographs[number % 2], SIZES[number // 2 % len(SIZES)]
        scale = rng.uniform(0.75, 1) * min(photograph.width / width, photograph.height / height)
        wide, high = scale * width, scale * height
        left, top = rng.uniform(0, photograph.width - wide), rng.uniform(0, photograph.height - high)
        box = (left, top, left + wide, top + high)
        for split in ("train", "val")[: 2 if number < 2 else 1]:
            path = folder / split / "all" / f"{number:03}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            part = photograph.resize((width, height), Image.Resampling.BICUBIC, box=box)
            part.save(path, quality=QUALITY)


def _linked(files: Files, folder: Path) -> None:
    """Link some of a data set's images, evenly spread over all of it."""
    for split, count in (("train", IMAGES), ("val", 2)):
        (folder / split / "all").mkdir(parents=True)
        for number in range(count):
            name: str = files.names[number * len(files) // count]
            (folder / split / "all" / f"{number:03}{Path(name).suffix}").symlink_to(Path(files.root) / name)


def _files(whole: Dataset) -> Files:
    """Return the training images. Ends the benchmark if they are resident."""
    from raysslprune.data.files import Files

    if not isinstance(whole.train, Files):
        raise SystemExit("raysslprune: this benchmark is for data sets whose images stay on disk")
    return whole.train


def _kilobytes(files: Files) -> list[float]:
    return [os.path.getsize(os.path.join(files.root, name)) / 1000 for name in files.names]


# ------------------------------------------------------------------------------------- whole pipelines


@dataclass(frozen=True)
class _Several:
    """A transform that makes several views of an image; a class, so that a DataLoader can send it to processes."""

    transform: Callable[[Any], Tensor]
    count: int

    def __call__(self, image: Any) -> list[Tensor]:
        return [self.transform(image) for _ in range(self.count)]


def _usual(files: Files, recipe: Recipe, views: int, tensors: bool, workers: int) -> Batches:
    import torch
    from torch.utils.data import DataLoader, RandomSampler
    from torchvision import transforms
    from torchvision.datasets.folder import ImageFolder, default_loader
    from torchvision.transforms import v2

    kind: Any = v2 if tensors else transforms
    turn = kind.InterpolationMode.BILINEAR
    steps = [kind.RandomResizedCrop(files.size, scale=(recipe.crop, 1.0)), kind.RandomHorizontalFlip()]
    steps += [kind.RandomRotation(recipe.angle, turn)] if recipe.angle else []
    steps += [kind.ColorJitter(*recipe.jitter)] if recipe.jitter else []
    steps += [kind.RandomGrayscale(recipe.grayscale)] if recipe.grayscale else []
    steps += [v2.ToDtype(torch.float32, scale=True)] if tensors else [transforms.ToTensor()]
    steps += [kind.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    load = _decoded if tensors else default_loader
    images = ImageFolder(os.path.join(files.root, "train"), _Several(kind.Compose(steps), views), loader=load)
    sampler = RandomSampler(images, replacement=True, num_samples=10**9)
    batches = iter(DataLoader(images, BATCH, sampler=sampler, num_workers=workers))
    while True:
        pixels, _ = next(batches)
        yield len(pixels[0])


def _decoded(path: str) -> Tensor:
    from torchvision.io import ImageReadMode, decode_image, read_file

    return decode_image(read_file(path), ImageReadMode.RGB)


def _ours(whole: Dataset, recipe: Recipe, views: int, rest: bool, _threads: int) -> Batches:
    """Yield our batches, decoded by the executor's threads."""
    from raysslprune.data.batches import Feed
    from raysslprune.data.views import Views, draws

    made = Views(whole, whole.train, recipe)
    feed = Feed(whole.train, recipe, SEED, views=views, draws=draws(recipe), own=1)
    position = 0
    try:
        while True:
            batch = feed.take(position, BATCH)
            position += BATCH
            for view in range(views if rest else 0):
                made(batch, view)
            yield BATCH
    finally:
        for _, _, decoding in feed.ahead:
            wait(decoding)  # so that they do not slow down the next measurement


def _rate(batches: Batches, samples: int) -> Rate:
    for _ in range(WARM):
        next(batches)
    clock, busy = time.perf_counter(), _busy()
    count = sum(next(batches) for _ in range(max(1, samples // BATCH)))
    rate = Rate(clock=count / (time.perf_counter() - clock), core=count / (_busy() - busy))
    batches.close()
    return rate


def _busy() -> float:
    """Return the CPU seconds of this process and its children; other processes do not count."""
    ticks = 0
    for child in multiprocessing.active_children():
        ticks += sum(map(int, Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _on(threads: int) -> Iterator[None]:
    """Restrict this process, its threads and its children to ``threads`` cores, and decode in as many threads."""
    import torch

    from raysslprune.data import files

    allowed, before = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, sorted(allowed)[:threads])
    torch.set_num_threads(threads)
    files.executor.cache_clear()
    try:
        yield
    finally:
        files.executor().shutdown()
        files.executor.cache_clear()
        torch.set_num_threads(before)
        os.sched_setaffinity(0, allowed)


# ------------------------------------------------------------------------------------- one image at a time


def _boxes(files: Files) -> list[list[int]]:
    """Draw a random resized crop for each image."""
    import numpy as np

    from raysslprune.data.boxes import TRIES, crop_boxes

    drawn = np.random.RandomState(SEED).uniform(size=(len(files), 1, 3 + 2 * TRIES))
    return [crop_boxes(row, *files.image(i).size, 0.08)[0].tolist() for i, row in enumerate(drawn)]


def _fidelity(originals: Files, copies: Files) -> dict[str, Any]:
    """Return the peak signal-to-noise ratio of the copies' views, for testing and for training, in dB."""
    import numpy as np

    def ratio(one: np.ndarray, other: np.ndarray) -> float:
        return 10 * math.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9))

    test, train = [], []
    for index, box in enumerate(_boxes(originals)):
        size = originals.image(index).size * 2
        same = partial(_scaled, tuple(edge / side for edge, side in zip(box, size, strict=True)))
        test.append(ratio(originals.view(index), copies.view(index)))
        train.append(ratio(originals.view(index, same), copies.view(index, same)))
    return {"view for testing": spread(test), "crop": spread(train)}


def _scaled(box: Sequence[float], width: int, height: int) -> list[float]:
    """Convert a box in fractions of the image to pixels."""
    return [edge * side for edge, side in zip(box, (width, height) * 2, strict=True)]


def _candidates(files: Files, repeats: int) -> dict[str, Any]:
    """Measure the time of other ways to make a crop, in one thread, relative to our way.

    Pillow's draft mode halves while it decodes, if the crop keeps 224 pixels; this gives other pixels. torchvision's
    decoder with Pillow's resize gives the same pixels, torchvision's decoder and resize other ones.
    """
    import numpy as np
    import torch
    from PIL import Image
    from torchvision.transforms.v2 import functional

    boxes = _boxes(files)
    paths = [os.path.join(files.root, name) for name in files.names]
    square = (files.size, files.size)

    def pixels(image: Image.Image) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

    def ours(index: int) -> object:
        return files.view(index, lambda _w, _h: boxes[index])

    def draft(index: int) -> object:
        left, top, right, bottom = boxes[index]
        with Image.open(paths[index]) as image:
            width, height = image.size
            enough = files.size * width / (right - left), files.size * height / (bottom - top)
            image.draft("RGB", (math.ceil(enough[0]), math.ceil(enough[1])))
            x, y = image.width / width, image.height / height
            box = (left * x, top * y, right * x, bottom * y)
            return pixels(image.resize(square, Image.Resampling.BILINEAR, box=box))

    def decoder(index: int) -> object:
        left, top, right, bottom = boxes[index]
        image = Image.fromarray(_decoded(paths[index]).permute(1, 2, 0).numpy())
        return pixels(image.resize(square, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))

    def both(index: int) -> object:
        left, top, right, bottom = boxes[index]
        image = _decoded(paths[index])
        return functional.resized_crop(image, top, left, bottom - top, right - left, list(square), antialias=True)

    ways = {
        "Pillow's draft": draft,
        "torchvision's decoder": decoder,
        "and its resize": both,
    }
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(repeats):
        took = dict.fromkeys([*ways, "ours"], 0.0)
        for index in range(len(files)):  # by turns, because the machine's speed changes
            for name, way in (*ways.items(), ("ours", ours)):
                begun = time.process_time()
                way(index)
                took[name] += time.process_time() - begun
        for name in ways:
            ratios[name].append(took[name] / took["ours"])
    torch.set_num_threads(threads)
    return {name: spread(values) for name, values in ratios.items()}
