"""Tiled decoding: bounded memory, equal to whole decoding where the codec's halo is finite."""

from itertools import product

from torch import Tensor

from synth.codec.base import Codec
from synth.errors import ConfigError


def decode_tiled(codec: Codec, latents: Tensor, *, tile: int, grid: tuple[int, ...] | None = None) -> Tensor:
    """Return codec.decode(latents) computed in windows of at most tile + 2 halo latent voxels a side.

    A window gives the `tile` voxels inside its halo, and the halo too where that is the volume's border. All
    windows have one shape: allocators and convolution kernels keep memory for each shape they meet, which with
    windows cut short at borders adds up to more than the whole takes. Beyond the result, memory does not grow
    with the volume; time grows by ((tile + 2 halo) / tile) ** dims, so tiles below the halo are slow.

    Errors: ConfigError for a codec without a finite halo, whose tiles would not add up to the whole.
    """
    if codec.halo is None:
        raise ConfigError("this codec has no finite halo, so tiles would not equal the whole; decode it whole")
    if tile < 1:
        raise ConfigError(f"tile is {tile}; give at least 1 latent voxel")
    stride, sizes = codec.stride, latents.shape[2:]
    window = [min(tile + 2 * codec.halo, n) for n in sizes]
    out: Tensor | None = None
    for spans in product(*(tiles(n, tile=tile, halo=codec.halo) for n in sizes)):
        seen = tuple(slice(start, start + n) for (start, _, _), n in zip(spans, window, strict=True))
        piece = codec.decode(latents[(..., *seen)])
        if out is None:
            out = piece.new_empty((*piece.shape[:2], *(n * stride for n in sizes)))
        inner = tuple(slice((first - start) * stride, (end - start) * stride) for start, first, end in spans)
        out[(..., *(slice(first * stride, end * stride) for _, first, end in spans))] = piece[(..., *inner)]
        del piece  # before the next window is decoded
    assert out is not None
    return out if grid is None else out[(..., *(slice(0, n) for n in grid))]


def tiles(size: int, *, tile: int, halo: int) -> list[tuple[int, int, int]]:
    """Return (start of the window, first, end of what it gives) of the tiles along an axis of `size`.

    >>> tiles(10, tile=2, halo=2)
    [(0, 0, 4), (2, 4, 6), (4, 6, 10)]
    """
    window, first, spans = min(tile + 2 * halo, size), 0, []
    while first < size:
        start = min(max(first - halo, 0), size - window)
        end = size if start + window == size else start + window - halo
        spans.append((start, first, end))
        first = end
    return spans
