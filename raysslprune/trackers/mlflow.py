"""Runs of MLflow."""

from __future__ import annotations

import os
import time
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from raysslprune.trackers.runs import Run

EXPERIMENT = "raysslprune"
TAG = "raysslprune.step"
BATCH = 500
"""Metrics in a call; MLflow takes 1,000."""


class MLflow:
    """A tracker: the experiment ``raysslprune`` at an address, or that of ``MLFLOW_EXPERIMENT_NAME``."""

    def __init__(self, address: str) -> None:
        self.client = MlflowClient(tracking_uri=address)
        self._experiment = ""
        self._begun: dict[str, str] = {}

    @property
    def experiment(self) -> str:
        """The experiment's id; it is made if it does not exist."""
        if not self._experiment:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
            found = self.client.get_experiment_by_name(name)
            self._experiment = found.experiment_id if found else self.client.create_experiment(name)
        return self._experiment

    def known(self) -> set[str]:
        steps: set[str] = set()
        page: Any = None
        while True:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=page and page.token)
            for run in page:
                step = run.data.tags.get(TAG, "")
                if run.info.status == "FINISHED":
                    steps.add(step)
                else:
                    self._begun[step] = run.info.run_id
            if not page.token:
                return steps

    def add(self, run: Run) -> None:
        begun = round(1000 * (run.begun or time.time()))  # masks have no beginning of their own
        tags = {TAG: run.step, **{f"raysslprune.{name}": value for name, value in run.tags.items() if name != "step"}}
        run_id = self._begun.get(run.step) or self._create(run, begun, tags)
        parameters = [Param(name, str(value)) for name, value in run.parameters.items()]
        end = begun + round(1000 * run.seconds)
        at_end = max([*run.curve, int(run.parameters.get("samples", 0))])
        metrics = [Metric(name, value, end, at_end) for name, value in run.metrics.items()]
        for seen, values in run.curve.items():
            at = begun + round(1000 * run.seconds * seen / max(at_end, 1))
            metrics += [Metric(name, value, at, seen) for name, value in values.items() if seen < at_end]
        for first in range(0, max(len(metrics), 1), BATCH):
            self.client.log_batch(run_id, metrics=metrics[first : first + BATCH], params=[] if first else parameters)
        self.client.set_terminated(run_id, "FINISHED", end)

    def _create(self, run: Run, begun: int, tags: dict[str, str]) -> str:
        made = self.client.create_run(self.experiment, start_time=begun, tags=tags, run_name=run.name)
        self._begun[run.step] = made.info.run_id
        return made.info.run_id
