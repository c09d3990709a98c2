"""The network of all arms: MONAI's DynUNet, on blocks of 2^dims voxels unless told otherwise. Knows no arm.

MONAI is imported inside `build` and `labelled`, the only ones that need it.
"""

from typing import TYPE_CHECKING

import numpy as np

from evaluation.utility.config import UtilityConfig
from synth.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BLOCK = 2
LEVELS = 3
"""Levels of the U-Net, each of half the grid of the one above."""
_SHORTEST = 3  # voxels of the deepest level below which bfloat16 weight gradients are unwritten memory


def needs_monai() -> None:
    """Raise ConfigError with the way to install it where MONAI is missing."""
    try:
        import monai  # noqa: F401
    except ImportError as error:
        raise ConfigError("utility trains MONAI's DynUNet; pip install 'synthvol[monai]'") from error


def shrink(config: UtilityConfig) -> int:
    """Return how many voxels of the image one of the deepest level spans; sides must be a multiple of it.

    >>> shrink(UtilityConfig()), shrink(UtilityConfig(blocks=False))
    (8, 4)
    """
    return 2 ** (LEVELS - 1) * (BLOCK if config.blocks else 1)


def build(config: UtilityConfig, *, channels: int, classes: int, dims: int, seed: int) -> "nn.Module":
    """Return a module (batch, channel, *grid) -> scores: (batch, K+1, *grid), or (batch, levels) to classify.

    DynUNet is nnU-Net's network (Isensee et al. 2021), here of three levels. On blocks, voxels 2 x 2 (x 2) come in as
    channels and scores leave the same way (Shi et al. 2016): an eighth of the voxels, as many scores. Classes are
    read from the mean and the maximum over the deepest level. Weights depend on `seed` alone.
    Errors: ConfigError without MONAI.
    """
    needs_monai()
    import torch
    from monai.networks.nets.dynunet import DynUNet
    from monai.networks.utils import pixelshuffle, pixelunshuffle
    from torch import nn

    block = BLOCK**dims if config.blocks else 1

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = DynUNet(
                dims,
                channels * block,
                classes * block,
                kernel_size=[3] * LEVELS,
                strides=[1, *[2] * (LEVELS - 1)],
                upsample_kernel_size=[2] * (LEVELS - 1),
                filters=[config.width * 2**level for level in range(LEVELS)],
            )
            if config.task == "classification":
                self.head = nn.Linear(2 * config.width * 2 ** (LEVELS - 1), classes)

        def forward(self, x: "Tensor") -> "Tensor":
            x = pixelunshuffle(x, dims, BLOCK) if config.blocks else x
            if config.task == "classification":
                for part in (self.body.input_block, *self.body.downsamples, self.body.bottleneck):
                    x = part(x)
                deep = x.flatten(2)
                return self.head(torch.cat([deep.mean(dim=2), deep.amax(dim=2)], dim=1))
            scores = self.body(x)
            return pixelshuffle(scores, dims, BLOCK) if config.blocks else scores

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network()


def patch_of(grid: tuple[int, ...], config: UtilityConfig) -> tuple[int, ...]:
    """Return the sides of what is trained at once: the grid, or `patch` along longer axes; two deepest voxels at least.

    >>> patch_of((64, 80, 200), UtilityConfig(patch=96)), patch_of((14, 12, 10), UtilityConfig())
    ((64, 80, 96), (16, 16, 16))
    """
    step = shrink(config)
    # instance norm needs more than one voxel
    least, most = 2 * step, max(config.patch // step, 2) * step
    return tuple(min(max(-(-n // step) * step, least), most) for n in grid)


def reduced(patch: tuple[int, ...], config: UtilityConfig) -> bool:
    """True where a step on this patch may run in bfloat16: no axis of the deepest level is shorter than its kernel.

    Weight gradients of bfloat16 convolutions over shorter grids are unwritten memory (torch 2.13, CPU).
    """
    return min(patch) // shrink(config) >= _SHORTEST


def padded(image: np.ndarray, patch: tuple[int, ...], *, fill: float | None = None) -> np.ndarray:
    """Return an image (channel, *grid) at least as long as the patch along each axis, filled with its lowest value."""
    short = [(0, max(side - n, 0)) for n, side in zip(image.shape[1:], patch, strict=True)]
    if not any(after for _, after in short):
        return image
    return np.pad(image, [(0, 0), *short], constant_values=image.min() if fill is None else fill)


def scores_of(model: "nn.Module", image: np.ndarray, config: UtilityConfig) -> "torch.Tensor":
    """Return the probabilities of one image (channel, *grid): (K+1, *grid), or (levels,) of a centre patch.

    Images longer than the patch are seen in windows that overlap by half and are blended by a Gaussian.
    """
    import torch
    from monai.inferers.utils import sliding_window_inference

    grid = image.shape[1:]
    patch = patch_of(grid, config)
    pixels = torch.from_numpy(np.array(padded(image, patch), dtype=np.float32))[None].to(config.device)
    with torch.inference_mode():
        if config.task == "classification":
            first = [(n - side) // 2 for n, side in zip(pixels.shape[2:], patch, strict=True)]
            box = tuple(slice(start, start + side) for start, side in zip(first, patch, strict=True))
            return model(pixels[(..., *box)])[0].float().softmax(dim=0).cpu()
        whole = tuple(pixels.shape[2:]) == patch
        found = (
            model(pixels) if whole else sliding_window_inference(pixels, patch, 1, model, overlap=0.5, mode="gaussian")
        )
        assert isinstance(found, torch.Tensor)
        return found[(0, slice(None), *(slice(0, n) for n in grid))].float().softmax(dim=0).cpu()
