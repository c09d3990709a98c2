"""Laws of codecs: unit variance, any size, PCA start, tiles equal the whole."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from synth import codec
from synth.codec.autoencoder import Autoencoder
from synth.codec.config import AutoencoderConfig, CodecConfig, IdentityConfig, OneHotConfig, PatchPCAConfig
from synth.codec.onehot import OneHot
from synth.codec.patch_pca import PatchPCA
from synth.codec.texture import Texture
from synth.codec.tiled import decode_tiled


def _volumes(dims: int, count: int = 6) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    pool = torch.nn.functional.avg_pool3d if dims == 3 else torch.nn.functional.avg_pool2d
    return [2 + pool(torch.randn(1, 1, *([26] * dims), generator=rng), 3, 1)[0] for _ in range(count)]


@pytest.mark.parametrize("dims", [2, 3])
def test_latents_have_unit_variance_and_keep_the_grid(dims: int) -> None:
    volumes = _volumes(dims)
    for config in (
        IdentityConfig(spatial_dims=dims),
        PatchPCAConfig(spatial_dims=dims, channels=3),
        AutoencoderConfig(spatial_dims=dims, channels=3, width=8),
    ):
        made = codec.build(config).eval()
        with torch.no_grad():
            made.fit_whitening(made.raw_encode(made.pad(v[None]))[0] for v in volumes)
            latents = torch.stack([made.encode(v[None])[0] for v in volumes]).movedim(1, 0).flatten(1)
        assert torch.allclose(latents.std(dim=1), torch.ones(made.channels), atol=1e-2)
        assert torch.allclose(latents.mean(dim=1), torch.zeros(made.channels), atol=1e-2)


@pytest.mark.parametrize("dims", [2, 3])
def test_latents_of_rare_labels_stay_within_reach_of_the_noise(dims: int) -> None:
    """At unit variance a label in one voxel of thousands lies tens of deviations away: E z^4 = 3 keeps it near."""
    side = 48 if dims == 2 else 24
    maps = []
    for index in range(4):
        labels = torch.zeros((1, *([side] * dims)))
        labels[(0, *([slice(4, side - 4)] * dims))] = 1.0
        corner = 8 + index
        labels[(0, *([slice(corner, corner + 4)] * dims))] = 2.0
        maps.append(labels)
    config = OneHotConfig(labels=3, inner=PatchPCAConfig(in_channels=3, spatial_dims=dims, channels=6))
    made = codec.build(config)
    made.fit_balance(maps)
    made.inner.fit(made.scaled(m[None])[0] for m in maps)
    made.fit_whitening(made.raw_encode(made.pad(m[None]))[0] for m in maps)
    latents = torch.stack([made.encode(m[None])[0] for m in maps]).movedim(1, 0).flatten(1)
    assert torch.allclose(latents.mean(dim=1), torch.zeros(6), atol=1e-3)
    assert torch.allclose((latents**4).mean(dim=1), torch.full((6,), 3.0), rtol=1e-3)
    wrong = [float((made.decode(made.encode(m[None]), grid=tuple(m.shape[1:]))[0] != m).float().mean()) for m in maps]
    assert max(wrong) < 0.02
    gaussian = torch.randn((6, 200, 200), generator=torch.Generator().manual_seed(1))
    made.fit_whitening([gaussian])
    assert torch.allclose(made.latent_std, torch.ones(6), atol=0.02)


@pytest.mark.parametrize("grid", [(9, 7), (8, 12), (5, 6, 7), (8, 8, 4)])
def test_any_size_comes_back(grid: tuple[int, ...]) -> None:
    pixels = torch.randn(1, 1, *grid)
    configs: list[CodecConfig] = [
        IdentityConfig(spatial_dims=len(grid)),
        AutoencoderConfig(spatial_dims=len(grid), width=8),
    ]
    for config in configs:
        made = codec.build(config)
        latents = made.encode(pixels)
        assert tuple(latents.shape[2:]) == made.latent_grid(grid)
        assert made.decode(latents, grid=grid).shape == pixels.shape


@pytest.mark.parametrize("dims", [2, 3])
def test_autoencoder_starts_as_the_pca(dims: int) -> None:
    volumes = _volumes(dims)
    pca = PatchPCA(PatchPCAConfig(spatial_dims=dims, channels=4))
    pca.fit(volumes)
    model = Autoencoder(AutoencoderConfig(spatial_dims=dims, channels=4, width=8))
    model.start_from(pca)
    pixels = volumes[0][None]
    assert torch.allclose(model.decode(model.encode(pixels)), pca.decode(pca.encode(pixels)), atol=1e-4)


def test_full_pca_is_lossless() -> None:
    volumes = _volumes(2)
    pca = PatchPCA(PatchPCAConfig(spatial_dims=2, channels=16))
    pca.fit(volumes)
    assert torch.allclose(pca.decode(pca.encode(volumes[0][None])), volumes[0][None], atol=1e-4)


@pytest.mark.parametrize(("dims", "size", "tile"), [(2, 40, 8), (3, 32, 8)])
def test_tiles_equal_the_whole(dims: int, size: int, tile: int) -> None:
    """In 3D: 128 voxels a side, where the halo of 4 latent voxels is far from the volume."""
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(spatial_dims=dims, channels=4, width=8, decoder_blocks=1)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    assert model.halo == 4
    latents = torch.randn(1, 4, *([size] * dims))
    with torch.no_grad():
        whole, tiled = model.decode(latents), decode_tiled(model, latents, tile=tile)
    assert float((whole - tiled).abs().max()) < 1e-5 * float(whole.abs().max())


def test_onehot_gives_labels_back() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (1, 1, 8, 8, 8))).float()
    made = codec.build(OneHotConfig(labels=3, inner=IdentityConfig(in_channels=3)))
    assert isinstance(made, OneHot)
    assert torch.equal(made.decode(made.encode(labels)), labels.long())


@pytest.mark.parametrize("dims", [2, 3])
def test_a_rare_label_has_a_latent_channel_of_its_own(dims: int) -> None:
    """How much of a label a block holds must be readable from its latents, or no generator learns to obey an amount."""
    grid = (64, 64) if dims == 2 else (32, 32, 32)
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(12):
        labels = (ndimage.gaussian_filter(rng.standard_normal(grid), 1.5) > 0).astype(np.float32)
        for _ in range(2):
            spot = [int(rng.integers(n // 4)) * 4 for n in grid]
            labels[tuple(slice(first, first + 3) for first in spot)] = 2
        maps.append(torch.from_numpy(labels)[None])

    def read_off(balance: float) -> float:
        """Share of the label's variance by block that is linear in the latents."""
        inner = PatchPCAConfig(in_channels=3, spatial_dims=dims, stride=4, channels=8)
        model = codec.build(OneHotConfig(labels=3, inner=inner, balance=balance))
        assert isinstance(model, OneHot) and isinstance(model.inner, PatchPCA)
        model.fit_balance(maps)
        model.inner.fit(model.scaled(each[None])[0] for each in maps)
        latents = torch.cat([model.raw_encode(each[None])[0].flatten(1) for each in maps], dim=1).T.double()
        pool = torch.nn.functional.avg_pool2d if dims == 2 else torch.nn.functional.avg_pool3d
        held = torch.cat([pool((each == 2).double()[None], 4).flatten() for each in maps])
        design = torch.cat([latents, torch.ones(len(latents), 1)], dim=1)
        rest = held - (design @ torch.linalg.lstsq(design, held[:, None]).solution)[:, 0]
        return float(1 - rest.square().mean() / held.var())

    assert read_off(0.0) < 0.1 and read_off(0.5) > 0.9


def test_texture_gives_back_spread_and_spectrum() -> None:
    rng = torch.Generator().manual_seed(0)
    decoded = torch.full((1, 24, 24, 24), 0.5)
    coloured = torch.nn.functional.avg_pool3d(torch.randn(8, 1, 26, 26, 26, generator=rng), 3, 1) * 0.2
    texture = Texture()
    texture.fit([(decoded + residual, decoded) for residual in coloured])
    drawn = torch.stack([texture.sample(decoded, rng) for _ in range(8)])
    assert abs(float(drawn.std() / coloured.std()) - 1) < 0.03

    def smooth(values: torch.Tensor) -> float:
        return float(torch.nn.functional.avg_pool3d(values, 3, 1).std() / values.std())

    assert abs(smooth(drawn) / smooth(coloured) - 1) < 0.06
    assert torch.equal(texture.sample(decoded, rng.manual_seed(3)), texture.sample(decoded, rng.manual_seed(3)))


@pytest.mark.parametrize("shape", [(1, 96, 96), (1, 24, 24, 24)])
def test_texture_makes_up_the_variance_that_the_decoder_lacks(shape: tuple[int, ...]) -> None:
    """A decoder's own grain, unlike the image's, lies in the residual too; counted twice, tissue is too grained."""
    rng = torch.Generator().manual_seed(0)

    def pair() -> tuple[torch.Tensor, torch.Tensor]:
        return 0.5 + 0.06 * torch.randn(shape, generator=rng), 0.5 + 0.03 * torch.randn(shape, generator=rng)

    texture = Texture()
    texture.fit([pair() for _ in range(12)])
    made = torch.stack([texture.finish(pair()[1], rng) for _ in range(6)])
    assert float(made.std()) == pytest.approx(0.06, rel=0.04)  # 0.073 where the whole residual is added


def test_texture_keeps_the_floor_of_the_data() -> None:
    """Air is equal to the last bit in stripped brains; a decoder's traces there must not come out as grain."""
    rng = torch.Generator().manual_seed(0)
    inside = torch.zeros(2, 16, 16, 16)
    inside[:, 4:12, 4:12, 4:12] = 0.6

    def pair() -> tuple[torch.Tensor, torch.Tensor]:
        noise = 0.02 * torch.randn(inside.shape, generator=rng)
        pixels = torch.where(inside > 0, inside + noise, 0.0)
        pixels[1] = pixels[1] + 0.3 * torch.rand(pixels[1].shape, generator=rng)  # no floor in the second channel
        return pixels, inside + 0.005 * torch.randn(inside.shape, generator=rng)

    texture = Texture(channels=2)
    texture.fit([pair() for _ in range(4)])
    _, decoded = pair()
    made = texture.finish(decoded, rng)
    assert float(((made[0] == 0) != (inside[0] == 0)).float().mean()) < 0.002
    assert 0.01 < float(texture.below[0]) < 0.59
    lonely = torch.zeros_like(decoded)
    lonely[:, 2, 2, 2] = 1.5 * float(texture.below[0])
    assert not texture.finish(lonely, rng)[0].any()
    assert float(texture.below[1]) == -float("inf")
    assert float((made[1] - decoded[1]).std()) > 0.05
