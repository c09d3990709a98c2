"""Previews: what is real stands beside what is made, in 2D and 3D, and says the same each time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synth.codec.config import PatchPCAConfig
from synth.codec.patch_pca import PatchPCA
from synth.training.preview import codec_preview, mosaic


def test_mosaic_lays_out_the_middle_planes():
    volume = torch.arange(4 * 6 * 8, dtype=torch.float32).reshape(1, 4, 6, 8)
    picture = mosaic([(volume, volume), (volume,)])
    widths = 2 * (4 + 4 + 6) + 5 * 2
    assert picture.shape == (8 + 2 + 8, widths) and picture.dtype == torch.uint8
    plane = 255.0 * volume[0, :, :, 4].T.flip(0) / volume.max()
    assert torch.equal(picture[:6, :4], plane.round().to(torch.uint8))
    assert int(picture[:, 14 + 2 * 3 - 2 : 14 + 2 * 3].max()) == 0  # the gap between the first and the second volume


@pytest.mark.parametrize("grid", [(8, 12), (8, 12, 10)])
def test_codec_preview_is_a_picture_of_both(tmp_path: Path, grid: tuple[int, ...]):
    rng = torch.Generator().manual_seed(0)
    volumes = [torch.rand((1, *grid), generator=rng) for _ in range(2)]
    codec = PatchPCA(PatchPCAConfig(spatial_dims=len(grid), stride=2, channels=2 ** len(grid)))
    codec.fit(iter(volumes))
    show = codec_preview(codec, volumes, tmp_path / "previews")
    with torch.no_grad():
        show(200)
    path = tmp_path / "previews/0000200.png"
    first = path.read_bytes()
    picture = np.asarray(Image.open(path)).astype(int)
    half = (picture.shape[1] - 2) // 2
    assert np.abs(picture[:, :half] - picture[:, -half:]).max() <= 1  # as many channels as pixels: nothing is lost
    with torch.no_grad():
        show(200)
    assert path.read_bytes() == first
