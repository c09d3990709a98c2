"""python -m tests.training.teamwork FOLDER [STEP] under a launcher: the tiny task, trained by a team; stopped at STEP.

Only one process is told to stop: the others must learn of it.
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

    fit(tiny.task(), tiny.config(accumulation=2), Path(sys.argv[1]), seed=1, report=report, team=team)
