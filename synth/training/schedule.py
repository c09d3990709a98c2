"""The learning rate as a function of the step. Knows no optimiser."""

import math

from synth.training.config import FitConfig


def learning_rate(config: FitConfig, step: int) -> float:
    """Return the rate of step `step`: linear warm-up, then a cosine down to `final` of the peak.

    step < warmup: peak (step + 1) / warmup;   after: peak (final + (1 - final) (1 + cos(pi u)) / 2),
    u = (step - warmup) / (steps - warmup) (Loshchilov & Hutter 2017).

    >>> config = FitConfig(steps=110, warmup=10, learning_rate=1.0, final=0.1)
    >>> [round(learning_rate(config, step), 3) for step in (0, 9, 10, 60, 110)]
    [0.1, 1.0, 1.0, 0.55, 0.1]
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))
