"""What a stage will cost: a few steps, timed, and the memory they took. Leaves no file."""

import resource
import statistics
import sys
import time
from dataclasses import dataclass

import torch

from synth.training.config import FitConfig
from synth.training.fit import Task, Trained


@dataclass(frozen=True)
class Cost:
    """Seconds of one optimiser step (median) and of one validation, peak memory in GB, hours of the whole stage."""

    step_s: float
    validation_s: float
    peak_gb: float
    hours: float

    @classmethod
    def of(cls, step_s: float, validation_s: float, peak_gb: float, config: FitConfig) -> "Cost":
        """Return the cost of a stage of `config`."""
        validations = -(-config.steps // config.validate_every)
        return cls(step_s, validation_s, peak_gb, (step_s * config.steps + validation_s * validations) / 3600)


def time_steps(task: Task, config: FitConfig, *, seed: int, steps: int = 20) -> Cost:
    """Time `steps` optimiser steps and one validation of `task`; its weights are afterwards as they were.

    peak_gb is the device's on a GPU, the process's resident memory on a CPU.
    """
    weights = {name: tensor.detach().clone() for name, tensor in task.module.state_dict().items()}
    trained = Trained(task, config, seed)
    on_gpu = trained.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(trained.device)
    seconds: list[float] = []
    for step in range(max(steps, 2)):
        started = time.perf_counter()
        trained.step(step)  # its figures are numbers on the host, so the device has finished
        seconds.append(time.perf_counter() - started)
    started = time.perf_counter()
    trained.validate(max(steps, 2) - 1)
    validation = time.perf_counter() - started
    task.module.load_state_dict(weights)
    one = statistics.median(seconds[1:])
    return Cost.of(one, validation, peak_bytes(trained.device) / 1e9, config)


def peak_bytes(device: torch.device) -> int:
    """Return the most memory that was in use so far: the device's on a GPU, this process's resident one on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
