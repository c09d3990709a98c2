"""Tiled decoding: bounded memory, equal to whole decoding where the codec's halo is finite."""

from itertools import product

from torch import Tensor

from synth.codec.base import Codec
from synth.errors import ConfigError


def decode_tiled(codec: Codec, latents: Tensor, *, tile: int, grid: tuple[int, ...] | None = None) -> Tensor:
    """Return codec.decode(latents) computed in tiles of `tile` latent voxels, each with its halo around it.

    Errors: ConfigError for a codec without a finite halo, whose tiles would not add up to the whole.
    """
    if codec.halo is None:
        raise ConfigError("this codec has no finite halo, so tiles would not equal the whole; decode it whole")
    if tile < 1:
        raise ConfigError(f"tile is {tile}; give at least 1 latent voxel")
    stride, halo = codec.stride, codec.halo
    sizes = latents.shape[2:]
    out: Tensor | None = None
    for corner in product(*(range(0, n, tile) for n in sizes)):
        ends = [min(first + tile, n) for first, n in zip(corner, sizes, strict=True)]
        low = [max(first - halo, 0) for first in corner]
        high = [min(end + halo, n) for end, n in zip(ends, sizes, strict=True)]
        piece = codec.decode(latents[(..., *(slice(a, b) for a, b in zip(low, high, strict=True)))])
        if out is None:
            out = piece.new_empty((*piece.shape[:2], *(n * stride for n in sizes)))
        inner = tuple(
            slice((first - a) * stride, (end - a) * stride) for first, end, a in zip(corner, ends, low, strict=True)
        )
        place = tuple(slice(first * stride, end * stride) for first, end in zip(corner, ends, strict=True))
        out[(..., *place)] = piece[(..., *inner)]
    assert out is not None
    return out if grid is None else out[(..., *(slice(0, n) for n in grid))]
