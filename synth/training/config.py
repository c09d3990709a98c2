"""Configuration of training, free of torch."""

from dataclasses import dataclass
from typing import Literal

from synth.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long and how fast one stage trains; every interval counts optimiser steps.

    steps           0 keeps the generator of a model that is fine-tuned as it is
    learning_rate   peak of a cosine that warms up over `warmup` steps and ends at `final` of the peak
    clip            largest gradient norm
    ema             decay of the weights' moving average, reached after a ramp of (1 + n) / (10 + n)
    accumulation    batches whose mean gradient makes one step
    precision       of the forward pass, under autocast; weights stay fp32. bf16 is fp32 on a CPU that only emulates
                    it. fp16 scales the loss; where its gradient overflows the step is skipped and the scale halved
    patience        validations without a better hold-out score after which the stage ends; 0 = never
    """

    steps: int = 1000
    learning_rate: float = 1.0e-3
    warmup: int = 100
    final: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulation: int = 1
    checkpoint_every: int = 250
    validate_every: int = 250
    log_every: int = 10
    patience: int = 0

    def __post_init__(self) -> None:
        positive = ("learning_rate", "clip", "accumulation", "checkpoint_every", "validate_every", "log_every")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ConfigError(f"fit.{name} is {getattr(self, name)}; give a value above 0")
        for name in ("steps", "warmup", "weight_decay", "patience"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"fit.{name} is {getattr(self, name)}; give 0 or more")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"fit.final is {self.final}; give a share of the peak rate from 0 to 1")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"fit.ema is {self.ema}; give a decay from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """Pair noise with the data it lies nearest, within a batch and within equal conditions (Pooladian et al. 2023).

    Paths then cross less and fewer steps suffice. Only the pairing changes: under every condition (mask, image, text,
    attributes, place in the volume) noise stays N(0, 1). What is learned is a flow and no longer a score, so the
    samplers that follow it are the deterministic ones. Where every condition of a batch differs, nothing changes.
    """

    kind: Literal["minibatch_ot"] = "minibatch_ot"
