"""A task small enough to train in milliseconds, for the laws of the loop; also a script that is killed on purpose.

python tiny.py FOLDER KILLS SEED trains in forked children, kills each after a random moment, and lets the last end.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synth.rng import torch_rng
from synth.training.config import FitConfig
from synth.training.fit import Task, fit

SETTINGS: Mapping[str, Any] = {
    "steps": 12,
    "learning_rate": 1e-2,
    "warmup": 3,
    "checkpoint_every": 3,
    "validate_every": 4,
    "log_every": 2,
    "ema": 0.9,
}


def config(**changes: Any) -> FitConfig:
    return FitConfig(**{**SETTINGS, **changes})


def network() -> nn.Module:
    """A small conv net whose start does not depend on the global generator."""
    module = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv3d(4, 1, 3, padding=1))
    rng = torch_rng("start")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=rng))
    return module


def batch(number: int) -> Tensor:
    return torch.randn((2, 1, 4, 5, 6), generator=torch_rng("batch", number))


def loss(module: nn.Module, pixels: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
    noisy = pixels + torch.randn(pixels.shape, generator=rng)
    error = module(noisy).float() - pixels
    return {"l2": error.square().flatten(1).mean(1), "l1": 0.1 * error.abs().flatten(1).mean(1)}


def task(module: nn.Module | None = None, **changes: Any) -> Task:
    module = network() if module is None else module
    held = batch(10_000)

    def validate() -> dict[str, float]:
        return {"score": float((module(held) - held).square().mean())}

    return Task(**{**dict(name="tiny", module=module, loss=loss, batch=batch, validate=validate), **changes})


def files(folder: Path) -> dict[str, bytes]:
    """Everything a run leaves that equal runs share: all but times and TensorBoard."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name != "timing.jsonl" and "tensorboard" not in path.parts
    }


def _killed(folder: Path, kills: int, seed: int) -> int:
    """Train in children killed at random moments; return how many were really cut short."""
    import accelerate  # noqa: F401 - before the fork: children start fast
    import torch.utils.tensorboard  # noqa: F401 - as above

    moments, cut = random.Random(seed), 0
    while not (folder / "done.json").is_file():
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            fit(task(), config(steps=60, checkpoint_every=2, validate_every=3), folder, seed=0)
            os._exit(0)
        if cut < kills:
            time.sleep(moments.uniform(0.05, 0.35))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        cut += os.WIFSIGNALED(status)
        if os.WIFEXITED(status) and os.WEXITSTATUS(status):
            return -1
    return cut


if __name__ == "__main__":
    print(_killed(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
