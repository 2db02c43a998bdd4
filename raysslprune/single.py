"""Train one network, without a sweep file and without Ray: ``raysslprune.train(...)``, and the command ``train``.

    first = raysslprune.train("rotnet", "digits", "conv4", lr=0.1)
    raysslprune.train("labels", "digits:10%-of-images", "conv4", start=first.step)

A training is a step as those of sweeps: where the fields are the same, so is its id, and it is never made twice.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from raysslprune import catalogue, words
from raysslprune.experiment import Experiment, Failed
from raysslprune.messages import SCALE, USAGE, UserError, note, traceback_file
from raysslprune.paper.scalefile import in_samples
from raysslprune.paper.scales import SETTINGS, few_updates, images_of
from raysslprune.paper.scaletext import LENGTHS
from raysslprune.plan.graph import Job
from raysslprune.results import steps, to_parquet
from raysslprune.spec import Final, ImportedWeights, Init, Mask, Option, Recipe, Rewind, Start, Step, Train, is_whole
from raysslprune.store.record import Damaged, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, SweepError, checked
from raysslprune.sweepfile import Figure, Point

OTHER = "cifar10-small"
"""Scale whose recipes are used on data sets that no scale has, with as many epochs."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A finished training. metrics: its results, as in tables. recipe: where its recipe is from, in words.

    trained: False if it was finished before.
    """

    step: Train
    metrics: Mapping[str, float]
    recipe: str
    trained: bool

    def __repr__(self) -> str:
        shown = ", ".join(words.metric_value(*item) for item in catalogue.shown_metrics(self.metrics).items())
        return f"<{words.title(self.step)} (step {self.step.id}): {shown}>"


def train(
    task: str,
    data: str,
    arch: str,
    *,
    start: Start | Train | ImportedWeights | str | None = None,
    mask: Mask | str | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    root: str | os.PathLike[str] = "runs",
    data_root: str | os.PathLike[str] | None = None,
    device: str | None = None,
    remake: bool = False,
    **changes: Option | tuple[Any, ...],
) -> Training:
    """Train a network in this process, and store it as a step of ``root``; what is finished is not trained again.

    task, data, arch: names as in a sweep file. start: a training, or imported weights, whose final weights it starts
    from, or the id of such a step (the first digits are enough), or a Start; by default, weights drawn from the seed.
    mask: the mask that it trains under, or its id. recipe: by default that of a scale of the package (see
    :func:`default_recipe`). changes: fields of the recipe, and options of the task, to change. data_root: folder of the
    data sets; None for ``$RAYSSLPRUNE_DATA``, else ./data. device: ``cpu`` or ``cuda``; by default a GPU if there is
    one. On the CPU one thread trains, as in sweeps, and the result has the same bits. remake: as for Experiment.run.

    Raises SweepError for a wrong argument, StoreError if the root can't be used, Failed if the training fails.
    """
    store, folder = Store(root), os.path.abspath(catalogue.data_root(data_root))
    if device not in (None, "cpu", "cuda"):
        raise SweepError(f"device must be cpu or cuda, not {device!r:.40}")
    with _wrong():
        catalogue.check("task", catalogue.TASKS, task)
        catalogue.check("architecture", catalogue.ARCHITECTURES, arch)
        _check_data(data)
        found, told = (recipe, "as given") if recipe else default_recipe(task, data, folder)
        changed = with_changes(found, task, changes, lambda: _size(data, folder)[0])
        step = Train(
            task=task,
            data=data,
            arch=arch,
            recipe=changed,
            seed=seed,
            start=_start(store, start, seed, arch),
            mask=_mask(store, mask, arch),
        )
        metric = next(iter(catalogue.metrics(step)), "top1")
        point = Point(step=step, task=task, init="", level=0, seed=seed, metric=metric)
    sweep = Sweep(name="train", drawing=Figure(title="train"), claims=(), points=(point,))
    experiment = Experiment(sweeps=(checked(sweep, "train"),), scale=SCALE, store=store, data=folder)
    if sentence := few_updates([(task, changed)], "samples or batch"):
        note(sentence)
    ran: list[str] = []

    def run(job: Job) -> None:
        _run(job, store, folder, device)
        ran.append(job.id)

    records = experiment.train_here(run, remake)
    table = f"results/train/{step.id}-steps.parquet"  # for SQL's view steps
    if ran or not store.has(table):
        store.write(table, to_parquet(steps((point,), records)))
    return Training(step=step, metrics=records[step.id].metrics, recipe=told, trained=step.id in ran)


def _check_data(data: str) -> None:
    """Raise ValueError for an unknown data set, with a hint if it is the name of a folder."""
    try:
        catalogue.check("data set", catalogue.DATASETS, catalogue.data_parts(data)[0])
    except ValueError as error:
        hint = "; the folder is --data-root (data_root in Python)" if os.path.isdir(data) else ""
        raise ValueError(f"{error}{hint}") from None


# ------------------------------------------------------------------------------------- the recipe


def default_recipe(task: str, data: str, data_root: str) -> tuple[Recipe, str]:
    """Return the recipe for a task on a data set, and words that say where it is from.

    It is that of the first scale with this data set: ``laptop`` for digits. On any other data set, or another part of
    it, it is that of a scale with as many epochs: of the data set's own scale, else of OTHER; for images on disk with
    random crops in place of shifts. A user's own task has the recipe of ``labels``.
    """
    for scale, setting in SETTINGS.items():
        for part in ("", f":{data.partition(':')[2]}"):
            if f"{setting.data}{part}" == data and (name := _key(setting.recipes, task, part)):
                return setting.recipes[name], _told(scale, task, name)
    source = data.partition(":")[0]
    scale = next((name for name, setting in SETTINGS.items() if setting.data == source), OTHER)
    setting = SETTINGS[scale]
    name = _key(setting.recipes, task, "") or "labels"
    images, on_disk = _size(data, data_root)
    ratio = images / images_of(setting.data)
    base = setting.recipes[name]
    recipe = replace(
        base,
        samples=max(1, round(ratio * base.samples)),
        warmup=round(ratio * base.warmup),
        decay_at=tuple(round(ratio * at) for at in base.decay_at),
    )
    told = f"{_told(scale, task, name)}, as many epochs"
    if on_disk and recipe.pad:
        return replace(recipe, pad=0, crop=0.08), f"{told}, crops in place of shifts"
    return recipe, told


def _key(recipes: Mapping[str, Recipe], task: str, part: str) -> str | None:
    """Return the name of a task's recipe on a part of the images; None if there is none."""
    names = [f"{task}{part}"] if task == "labels" or not part else []
    names += [name for name in recipes if name.startswith(f"{task}:")] if task == "s4l" else []
    names += ["labels"] if task not in catalogue.TASKS and not part else []
    return next((name for name in names if name in recipes), None)


def _told(scale: str, task: str, name: str) -> str:
    return f"that of scale {scale}" + ("" if name.partition(":")[0] == task else f" for {name}")


def _size(data_name: str, data_root: str) -> tuple[int, bool]:
    """Return the number of training images of a data set, and whether they are files that are decoded from disk."""
    from raysslprune import data  # imports torch, which takes seconds
    from raysslprune.data.files import Files

    for _ in data.source(data_name).locate(Path(data_root), True) or ():
        pass
    split = data.load(data_name, data_root).train
    return len(split), isinstance(split, Files)


def with_changes(recipe: Recipe, task: str, changes: Mapping[str, Any], images: Callable[[], int]) -> Recipe:
    """Change fields of a recipe, and options of its task. Raises ValueError for an unknown name or a wrong value.

    A length may be text as in a scale file: ``24 epochs``. images: gives the number of training images.
    """
    known = {field.name for field in fields(Recipe)} - {"options"}
    kind = catalogue.OPTIONS.get(task)
    allowed = {field.name for field in fields(kind)} if kind else None
    for name in changes.keys() - known:
        if allowed is not None and name not in allowed:
            near = difflib.get_close_matches(name, known | allowed, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            options = f"; the options of {task}: {', '.join(sorted(allowed))}" if allowed else ""
            raise ValueError(
                f"{name!r} is neither a field of a recipe nor an option of task {task}; {hint}"
                f"Fields: {', '.join(sorted(known))}{options}"
            )
    options = {**dict(recipe.options), **{name: value for name, value in changes.items() if name not in known}}
    own = {name: value for name, value in changes.items() if name in known}
    given = own.get("batch", recipe.batch)
    batch = given if is_whole(given) else 0  # the recipe refuses it, in a sentence

    def length(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(length(name, one) for one in value)
        try:
            return in_samples(value, batch, images) if isinstance(value, str) else value
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None

    own |= {name: length(name, own[name]) for name in LENGTHS if name in own}
    return replace(recipe, options=options, **own)


# ------------------------------------------------------------------------------------- where it starts


def _start(store: Store, start: Start | Train | ImportedWeights | str | None, seed: int, arch: str) -> Start:
    if start is None:
        return Init(seed=seed)
    kinds = Train | ImportedWeights
    given: Any = start
    if isinstance(start, str):
        given = _stored(store, start, "start", kinds, "a training or imported weights")
    found: Start = Final(of=given) if isinstance(given, kinds) else given
    if isinstance(found, Rewind | Final) and found.of.arch != arch:
        raise ValueError(f"the start, step {found.of.id}, is of {found.of.arch}, not of {arch}")
    return found


def _mask(store: Store, mask: Mask | str | None, arch: str) -> Mask | None:
    found: Mask | None = _stored(store, mask, "mask", Mask, "a mask") if isinstance(mask, str) else mask
    if found is not None and found.arch != arch:
        raise ValueError(f"the mask, step {found.id}, is of {found.arch}, not of {arch}")
    return found


def _stored(store: Store, text: str, role: str, kind: Any, called: str) -> Any:
    """Read a step by its id. Raises ValueError if it is not finished, or of another kind."""
    if store.is_new():
        raise ValueError(f"there are no results in {store.shown}, so no step {text!r} to use as the {role}")
    step_id = store.find(text)
    try:
        if store.record(step_id) is None:
            raise ValueError(f"step {step_id} is not finished; run its sweep again to finish it")
        step: Step = store.step(step_id)
    except Damaged as damage:
        raise StoreError(f"{damage}; run its sweep again to rebuild it") from damage
    if not isinstance(step, kind):
        raise ValueError(f"the {role} must be {called}, but step {step_id} is a {type(step).__name__}")
    return step


@contextmanager
def _wrong() -> Iterator[None]:
    """Raise a SweepError in place of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise SweepError(str(error)) from error


# ------------------------------------------------------------------------------------- in this process


def _run(job: Job, store: Store, data_root: str, device: str | None) -> None:
    """Run a job in this process, and show its progress on stderr if that is a terminal.

    Raises Failed if the training fails, Damaged for a damaged input file.
    """
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from raysslprune.training.make_masks import NoExchange
    from raysslprune.training.runner import Runner

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no GPU here; device cpu computes on a core", code=USAGE)
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    threads = torch.get_num_threads()
    console = Console(stderr=True, force_jupyter=False)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        bar = shown.add_task(job.title, total=None)

        def progress(_: str, seen: int, end: int) -> None:
            shown.update(bar, completed=seen, total=end)

        runner = Runner(store=store, exchange=NoExchange(), data_root=data_root, device=on, progress=progress)
        if on.type == "cpu":
            torch.set_num_threads(1)  # as a sweep's workers, for the same bits
        try:
            runner.run(job.to_plain())
        except (UserError, Damaged, OSError):
            raise
        except Exception as error:
            why = f"{job.title} failed: {type(error).__name__}: {error}"
            raise Failed(f"{why}{traceback_file()}") from error
        finally:
            torch.set_num_threads(threads)
