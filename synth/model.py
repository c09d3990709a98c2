"""Model: the modules a recipe describes, built and joined. Knows no loop, no file and no sampling.

A model has an image part and, where it can make its own masks, a mask part.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synth import backbone, codec
from synth.codec.base import Codec
from synth.codec.texture import Texture
from synth.conditioning.conditioner import Conditioner
from synth.data.seen import Seen
from synth.denoiser import Denoiser
from synth.recipe import Part, Recipe


class FlowModel(nn.Module):
    """Conditioner and denoiser, trained together; its state dict is what a model folder holds."""

    def __init__(self, part: Part, *, channels: int, spatial_dims: int) -> None:
        super().__init__()
        self.conditioner = Conditioner(part.conditioning, spatial_dims=spatial_dims)
        network = backbone.build(
            part.backbone, channels=channels, spatial_dims=spatial_dims, ports=self.conditioner.spec
        )
        self.denoiser = Denoiser(network, part.process)


@dataclass(frozen=True, eq=False)
class PartModel:
    """One generator's modules: its codec, its flow, and the texture its codec leaves out (or None)."""

    part: Part
    codec: Codec
    flow: FlowModel
    texture: Texture | None = None

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules by the name they have in a model folder."""
        named: dict[str, nn.Module] = {"codec": self.codec, "flow": self.flow}
        return named if self.texture is None else {**named, "texture": self.texture}

    @property
    def device(self) -> torch.device:
        """Where its networks are."""
        return self.codec.latent_mean.device

    def to(self, device: torch.device) -> "PartModel":
        """Return self with its networks on `device`; the texture stays where noise is drawn, on the CPU."""
        self.codec.to(device)
        self.flow.to(device)
        return self

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by its dotted name."""
        return {f"{name}.{key}": t for name, module in self.modules().items() for key, t in module.state_dict().items()}


@dataclass(frozen=True, eq=False)
class Model:
    """A recipe with its trained parts, and the sha256 over both (empty until written or read).

    seen   which patients it saw; None where that is not known
    """

    recipe: Recipe
    image: PartModel
    mask: PartModel | None = None
    sha256: str = ""
    seen: Seen | None = None

    def parts(self) -> dict[str, PartModel]:
        """Return the parts by name."""
        return {"image": self.image} if self.mask is None else {"image": self.image, "mask": self.mask}

    def to(self, device: torch.device) -> "Model":
        """Return self with the networks of every part on `device`."""
        for part in self.parts().values():
            part.to(device)
        return self

    def eval(self) -> "Model":
        """Return self with every module in evaluation mode and without gradients."""
        for part in self.parts().values():
            for module in part.modules().values():
                module.eval().requires_grad_(False)
        return self


def build_part(part: Part) -> PartModel:
    """Return the untrained modules of one part."""
    encoder = codec.build(part.codec)
    flow = FlowModel(part, channels=encoder.channels, spatial_dims=encoder.spatial_dims)
    return PartModel(part, encoder, flow, Texture(encoder.in_channels) if part.texture else None)


def build(recipe: Recipe) -> Model:
    """Return the untrained model of a recipe."""
    mask = None if recipe.mask is None else build_part(recipe.mask)
    return Model(recipe, build_part(recipe.image), mask)
