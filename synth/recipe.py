"""The whole experiment as one frozen value: what a model is, how it was trained, what data it knows.

Free of torch. A training config in configs/ is a recipe without `schema`; a model folder holds the same
recipe with `schema` and the conditioning filled in, so that nothing else is needed to use it right.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from synth.backbone.config import BackboneConfig, UNetConfig
from synth.codec.config import AutoencoderConfig, CodecConfig
from synth.conditioning.config import GROUPS, ConditioningConfig
from synth.data.schema import Schema
from synth.errors import ConfigError, nearest, require_least
from synth.process import ProcessConfig, RectifiedFlow
from synth.sampler import Euler, SamplerConfig
from synth.training.config import Coupling, FitConfig


def check_window(window: tuple[int, ...] | None) -> None:
    """Refuse a window too small to overlap its neighbours. Errors: ConfigError."""
    if window is not None and not (window and min(window) >= 2):
        raise ConfigError(f"window is {window}; give at least 2 latent voxels for each axis")


@dataclass(frozen=True, kw_only=True)
class CodecTraining:
    """How a codec is trained: `crop` voxels along each axis (clipped to the volume), `batch` crops a step.

    adversarial    weight of a critic of patches that is trained beside the codec; images only
    perceptual     weight of the distance in that critic's features
    critic_from    share of the steps after which the codec hears its critic
    tune           with `train --from`: train the model's codec on; else it is kept, unless labels of the data are new
    """

    fit: FitConfig = FitConfig()
    crop: int = 48
    batch: int = 4
    pca_volumes: int = 64
    tune: bool = False
    adversarial: float = 0.0
    perceptual: float = 0.0
    critic_from: float = 0.5

    def __post_init__(self) -> None:
        require_least(self, ("crop", "batch", "pca_volumes"), place="codec_training.")
        require_least(self, ("adversarial", "perceptual"), 0, place="codec_training.")
        if not 0 <= self.critic_from <= 1:
            raise ConfigError(f"codec_training.critic_from is {self.critic_from}; give a share of the steps, 0 to 1")

    @property
    def critical(self) -> bool:
        """Whether a critic is trained beside the codec."""
        return self.adversarial > 0 or self.perceptual > 0


@dataclass(frozen=True, kw_only=True)
class FlowTraining:
    """How a generator is trained: mostly on latent patches, then on whole volumes.

    patch            latent voxels of a patch along each axis; `patch_batch` of them a step
    whole_batch      whole volumes a step, for the last `whole_share` of the steps
    channel_power    loss weight of a latent channel ~ (its scale in pixels) ** channel_power
    pooled           weight of the error of the window's mean beside that of its voxels
    coupling         how noise is paired with data; None = independently
    flip             axes (from 0) along which each volume is flipped half of the time, with its mask: what the
                     population shows both ways. Texts and attributes that name sides would be wrong then
    """

    fit: FitConfig = FitConfig()
    patch: tuple[int, ...] = (8, 10, 8)
    patch_batch: int = 16
    whole_batch: int = 2
    whole_share: float = 0.3
    channel_power: float = 1.0
    pooled: float = 0.0
    coupling: Coupling | None = None
    flip: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if sorted(set(self.flip)) != list(self.flip) or any(not 0 <= axis <= 2 for axis in self.flip):
            raise ConfigError(f"training.flip is {list(self.flip)}; give different axes in order, such as [0]")
        require_least(self, ("patch", "patch_batch", "whole_batch"), place="training.")
        require_least(self, ("channel_power", "pooled"), 0, place="training.")
        if not 0 <= self.whole_share <= 1:
            raise ConfigError(f"training.whole_share is {self.whole_share}; give a share of the steps, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One generator: codec, process, backbone, conditions, and how it samples and trains by default.

    window   latent voxels along each axis that the network sees at once when it samples, larger volumes in
             overlapping windows; None = always the whole. For models that were trained on patches alone
    """

    codec: CodecConfig = AutoencoderConfig()
    process: ProcessConfig = RectifiedFlow(prediction="clean")
    backbone: BackboneConfig = UNetConfig()
    conditioning: ConditioningConfig = ConditioningConfig()
    sampler: SamplerConfig = Euler()
    steps: int = 8
    guidance: Mapping[str, float] = field(default_factory=dict)
    texture: bool = True
    window: tuple[int, ...] | None = None
    codec_training: CodecTraining = CodecTraining()
    training: FlowTraining = FlowTraining()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; give at least 1")
        check_window(self.window)
        for name, scale in self.guidance.items():
            if name not in GROUPS:
                raise ConfigError(f"guidance {name!r} is no condition; {nearest(name, GROUPS)}")
            if not 0 <= scale < math.inf:
                raise ConfigError(f"guidance.{name} is {scale}; give 0 or more")
        if self.codec_training.critical and not isinstance(self.codec, AutoencoderConfig):
            raise ConfigError(f"codec_training: a critic trains an autoencoder, not {self.codec.kind}; take it out")
        if self.training.coupling is not None and self.sampler.stochastic:
            raise ConfigError("training.coupling learns a flow, which an ancestral sampler leaves; take euler or heun")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model: the image part, the mask part that makes masks where none are given, and the schema of the data."""

    name: str
    seed: int = 0
    description: str = ""
    image: Part = Part()
    mask: Part | None = None
    schema: Schema | None = None

    def __post_init__(self) -> None:
        require_least(self, ("seed",), 0, place="")

    def fits(self) -> dict[str, FitConfig]:
        """Return how long and how fast each stage trains, by its place in the recipe.

        >>> sorted(Recipe(name="no-masks").fits())
        ['image.codec_training', 'image.training']
        """
        parts = {"image": self.image} if self.mask is None else {"image": self.image, "mask": self.mask}
        stages = {
            name: {"codec_training": part.codec_training, "training": part.training} for name, part in parts.items()
        }
        return {f"{name}.{kind}": stage.fit for name, own in stages.items() for kind, stage in own.items()}
