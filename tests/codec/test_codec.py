"""Codecs beyond the laws: MONAI's, whitening of all latents, texture's spectrum, faults."""

from itertools import pairwise

import pytest
import torch

from synth import codec
from synth.codec.autoencoder import Autoencoder
from synth.codec.config import AutoencoderConfig, IdentityConfig, MonaiConfig, OneHotConfig, PatchPCAConfig
from synth.codec.onehot import OneHot
from synth.codec.texture import Texture
from synth.codec.tiled import decode_tiled
from synth.errors import ConfigError


@pytest.mark.parametrize("dims", [2, 3])
def test_monai_is_a_codec(dims: int) -> None:
    pytest.importorskip("monai")
    grid = (9, 6, 7)[:dims]
    made = codec.build(MonaiConfig(spatial_dims=dims, channels=3, widths=(8, 8, 8), groups=4)).eval()
    pixels = torch.randn(2, 1, *grid)
    with torch.no_grad():
        made.fit_whitening(made.raw_encode(made.pad(v[None]))[0] for v in pixels)
        latents = made.encode(pixels)
        assert tuple(latents.shape[2:]) == made.latent_grid(grid)
        assert torch.allclose(latents.movedim(1, 0).flatten(1).std(dim=1, correction=0), torch.ones(3), atol=1e-2)
        assert made.decode(latents, grid=grid).shape == pixels.shape
        assert made.halo is None
        with pytest.raises(ConfigError, match="halo"):
            decode_tiled(made, latents, tile=1)
    terms = made.loss(pixels, torch.Generator().manual_seed(0))  # pyright: ignore[reportCallIssue]
    assert {name: term.shape for name, term in terms.items()} == dict.fromkeys(("l1", "gradient", "kl"), (2,))


def test_whitening_sees_every_volume() -> None:
    """The last of many volumes weighs as much as the first, and volumes of unequal size weigh by voxels."""
    made = codec.build(IdentityConfig(spatial_dims=2))
    volumes = [torch.zeros(1, 8, 8)] * 9 + [torch.full((1, 16, 16), 4.0)]
    made.fit_whitening(iter(volumes))
    every = torch.cat([v.flatten() for v in volumes])
    assert float(made.latent_mean) == pytest.approx(float(every.mean()), rel=1e-6)
    assert float(made.latent_std) == pytest.approx(float(every.std(correction=0)), rel=1e-6)


@pytest.mark.parametrize(
    "inner", [AutoencoderConfig(in_channels=3, spatial_dims=2, channels=8, width=16, decoder_blocks=1)]
)
def test_onehot_learns_a_label_map(inner: AutoencoderConfig) -> None:
    """Odd grids come back as labels, and a few steps of its loss lower the share of wrong ones."""
    torch.manual_seed(0)
    made = codec.build(OneHotConfig(labels=3, inner=inner))
    assert isinstance(made, OneHot)
    axis = torch.arange(14.0)
    radius = (axis[:, None] - 7).square() + (axis[None, :] - 6).square()
    labels = ((radius < 36).float() + (radius < 9).float())[None, None]
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for step in range(60):
        terms = made.loss(labels, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    with torch.no_grad():
        back = made.decode(made.encode(labels), grid=(14, 14))
    assert back.shape == labels.shape
    assert float((back != labels).float().mean()) < 0.02


def test_autoencoder_gradients_reach_every_part() -> None:
    model = Autoencoder(AutoencoderConfig(spatial_dims=2, channels=2, width=8, decoder_blocks=1))
    for _ in range(2):  # the silent last layers hide the inner ones from the first step
        terms = model.loss(torch.randn(2, 1, 9, 8), torch.Generator().manual_seed(0))
        model.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter -= 0.1 * parameter.grad
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in model.parameters() if parameter.grad is not None)


def test_texture_spectrum_within_half_a_decibel() -> None:
    """Known law: white noise through a Gaussian filter, SD 0.02 in the dark half and 0.06 in the bright one."""
    rng = torch.Generator().manual_seed(1)
    n, count = 32, 12
    frequency = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(n)] * 3, indexing="ij")).square().sum(dim=0).sqrt()
    gain = torch.exp(-4 * frequency**2)
    gain = gain / gain.square().mean().sqrt()
    white = torch.fft.fftn(torch.randn(count, n, n, n, generator=rng), dim=(1, 2, 3))
    normal = torch.fft.ifftn(white * gain, dim=(1, 2, 3)).real
    step = torch.where(torch.arange(n) < n // 2, 0.2, 0.8).expand(1, n, n, n)
    spread = torch.where(step < 0.5, 0.02, 0.06)
    texture = Texture()
    texture.fit([(step + spread * noise, step) for noise in normal])
    drawn = torch.stack([texture.sample(step, rng)[0] for _ in range(count)])
    for dark in (True, False):
        half = drawn[..., : n // 2] if dark else drawn[..., n // 2 :]
        assert float(half.std()) == pytest.approx(0.02 if dark else 0.06, rel=0.03)
    power = torch.fft.fftn(drawn / spread, dim=(1, 2, 3)).abs().square().mean(dim=0)
    edges = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    for low, high in pairwise(edges):
        band = (frequency >= low) & (frequency < high)
        ratio = float(power[band].mean() / (gain.square() * n**3)[band].mean())
        assert abs(10 * torch.tensor(ratio).log10()) < 0.5, (low, high)


def test_texture_fitted_on_small_grids_serves_large_ones() -> None:
    """Frequencies between those of the fitted grid have power too."""
    rng = torch.Generator().manual_seed(0)
    small = torch.full((1, 8, 8, 8), 0.5)
    texture = Texture()
    texture.fit([(small + 0.1 * torch.randn(small.shape, generator=rng), small) for _ in range(16)])
    assert float(texture.spectrum.min()) > 0.5
    drawn = texture.sample(torch.full((1, 24, 24, 24), 0.5), rng)
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PatchPCAConfig(channels=65),
        lambda: AutoencoderConfig(channels=0),
        lambda: MonaiConfig(widths=(32, 40)),
        lambda: OneHotConfig(labels=3),
    ],
)
def test_impossible_configurations_are_refused(make) -> None:  # noqa: ANN001
    with pytest.raises(ConfigError):
        make()


def test_tile_below_one_is_refused() -> None:
    made = codec.build(PatchPCAConfig(spatial_dims=2))
    with pytest.raises(ConfigError, match="tile"):
        decode_tiled(made, torch.zeros(1, 16, 4, 4), tile=0)
