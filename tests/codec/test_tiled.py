"""Tiles of an axis and of a volume: every voxel once, windows of one shape, the whole's pixels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from synth.codec.autoencoder import Autoencoder
from synth.codec.config import AutoencoderConfig
from synth.codec.tiled import decode_tiled, tiles


@given(size=st.integers(1, 90), tile=st.integers(1, 30), halo=st.integers(0, 12))
def test_tiles_give_every_voxel_once_and_see_its_halo(size: int, tile: int, halo: int) -> None:
    spans, window = tiles(size, tile=tile, halo=halo), min(tile + 2 * halo, size)
    assert [voxel for _, first, end in spans for voxel in range(first, end)] == list(range(size))
    for start, first, end in spans:
        assert start >= 0 and start + window <= size
        assert first - start >= min(halo, first), "the halo before, or all there is"
        assert start + window - end >= min(halo, size - end), "the halo after, or all there is"


@pytest.mark.parametrize("grid", [(21, 9, 14), (30, 17)])
def test_windows_have_one_shape_and_add_up_to_the_whole(grid: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """One shape: windows cut short at borders once made tiled decoding take more memory than whole decoding."""
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(spatial_dims=len(grid), channels=3, width=4, decoder_blocks=1)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    latents, shapes, decode = torch.randn(2, 3, *grid), [], model.decode

    def seen(piece: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(piece.shape[2:]))
        return decode(piece)

    with torch.no_grad():
        whole = model.decode(latents, grid=tuple(4 * n - 1 for n in grid))
        monkeypatch.setattr(model, "decode", seen)
        tiled = decode_tiled(model, latents, tile=3, grid=tuple(4 * n - 1 for n in grid))
    assert set(shapes) == {tuple(min(3 + 2 * 4, n) for n in grid)} and len(shapes) > 1
    assert float((whole - tiled).abs().max()) < 1e-5 * float(whole.abs().max())
