"""Runs of Weights & Biases: online, or with ``WANDB_MODE=offline`` in a folder for ``wandb sync``."""

from __future__ import annotations

from pathlib import Path

import wandb

from raysslprune.trackers.runs import Run


class Wandb:
    """A tracker: a project. A step's id is its run's id, so a step that is sent again is the same run.

    folder: where wandb keeps its files. They say which steps were sent.
    """

    def __init__(self, project: str, folder: str) -> None:
        self.project, self.folder = project, Path(folder) / project

    def known(self) -> set[str]:
        return {path.name for path in self.folder.glob("sent/*")}

    def add(self, run: Run) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
        config = {**run.parameters, **run.tags}
        with wandb.init(
            project=self.project,
            id=run.step,
            name=run.name,
            config=config,
            resume="allow",
            reinit="create_new",
            dir=str(self.folder),
            settings=settings,
        ) as made:
            for seen, values in run.curve.items():
                made.log(dict(values), step=seen)
            at_end = max([*run.curve, int(run.parameters.get("samples", 0))])
            made.log(dict(run.metrics), step=at_end)
        sent = self.folder / "sent"
        sent.mkdir(exist_ok=True)
        (sent / run.step).touch()
