"""What a sweep says of its choice between cores and GPUs."""

from __future__ import annotations

import pytest

from raysslprune.cluster.options import Capacity
from raysslprune.execution import choice
from raysslprune.plan.device import Times

FASTER = Times(on_cores=7200, on_gpus=600, guessed=False)
SLOWER = Times(on_cores=600, on_gpus=500, guessed=False)
UNKNOWN = Times(on_cores=7200, on_gpus=1, guessed=True)


@pytest.mark.parametrize(
    ("times", "cpus", "gpus", "fault", "said"),
    [
        (
            FASTER,
            8,
            1,
            "",
            "trainings use 1 GPU and not 8 cores: 10:00 min against 2:00 h, by estimate; "
            "to use the cores: --gpus-per-worker 0",
        ),
        (
            SLOWER,
            1,
            2,
            "",
            "trainings use 1 core and not 2 GPUs: that is not clearly faster: 8:20 min against 10:00 min, by estimate; "
            "to use a GPU: --gpus-per-worker 0.25",
        ),
        (
            UNKNOWN,
            4,
            1,
            "",
            "trainings use 4 cores and not 1 GPU: the speed of these networks on a GPU is not known; "
            "to use a GPU: --gpus-per-worker 0.25",
        ),
        (
            FASTER,
            4,
            1,
            "can't compute on its GPU: no driver",
            "trainings use 4 cores, because this machine can't compute on its GPU: no driver",
        ),
    ],
)
def test_one_sentence_says_what_was_chosen_and_how_to_have_the_other(
    times: Times, cpus: float, gpus: float, fault: str, said: str
) -> None:
    assert choice(times, Capacity(cpus=cpus, gpus=gpus), 0.25, fault) == said
