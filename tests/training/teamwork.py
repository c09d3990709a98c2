"""python -m tests.training.teamwork FOLDER [STEP [apart]] under a launcher: the tiny task, trained by a team.

Stopped at STEP, of which only one process is told: the others must learn of it. With `apart`, only the leader starts
from the tiny task's weights.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from synth.training.fit import fit
from synth.training.team import team_of_launch
from tests.training import tiny

if __name__ == "__main__":
    torch.set_num_threads(1)
    team, _ = team_of_launch()
    assert team.size > 1, "start this with a launcher"

    def report(done: int, *_: object) -> None:
        if len(sys.argv) > 2 and done == int(sys.argv[2]) and not team.leads:
            os.kill(os.getpid(), signal.SIGTERM)

    task = tiny.task()
    if "apart" in sys.argv and not team.leads:
        with torch.no_grad():
            for parameter in task.module.parameters():
                parameter.add_(1.0)
    fit(task, tiny.config(accumulation=2), Path(sys.argv[1]), seed=1, report=report, team=team)
