"""A codec against its critic: whose gradient is whose, exact resume, and what the chosen score says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.cli import run
from synth import config
from synth.codec.autoencoder import Autoencoder
from synth.codec.config import AutoencoderConfig
from synth.data.prepared import Prepared
from synth.errors import ConfigError
from synth.recipe import CodecTraining, Recipe
from synth.rng import torch_rng
from synth.training.adversary import Contest, Critic, Crops, sharpness_gap
from synth.training.codec_stage import Pixels, codec_task, train_codec
from synth.training.config import FitConfig
from synth.training.fit import fit
from tests.conftest import tiny_recipe

GRIDS = [(24, 20), (16, 12, 16)]


def _contest(dims: int) -> Contest:
    torch.manual_seed(0)
    small = AutoencoderConfig(spatial_dims=dims, channels=4, width=16)
    return Contest(Autoencoder(small), adversarial=0.1, perceptual=0.5)


def _pixels(grid: tuple[int, ...]) -> torch.Tensor:
    return torch.rand((3, 1, *grid), generator=torch_rng(1))


@pytest.mark.parametrize("grid", GRIDS)
def test_each_side_learns_from_its_own_terms_alone(grid: tuple[int, ...]) -> None:
    contest = _contest(len(grid))
    terms = contest.loss(Crops(_pixels(grid), heard=True), torch_rng(2))
    assert all(value.shape == (3,) for value in terms.values())
    codec, critic = list(contest.codec.parameters()), list(contest.critic.parameters())
    for name, value in terms.items():
        theirs = torch.autograd.grad(value.sum(), critic, retain_graph=True, allow_unused=True)
        ours = torch.autograd.grad(value.sum(), codec, retain_graph=True, allow_unused=True)
        assert any(g is not None and bool(g.abs().max() > 0) for g in theirs) == (name == "critic"), name
        assert any(g is not None and bool(g.abs().max() > 0) for g in ours) == (name != "critic"), name


@pytest.mark.parametrize("grid", GRIDS)
def test_the_critic_learns_under_autocast_and_sees_the_target_once(grid: tuple[int, ...]) -> None:
    """Autocast keeps casts: made without a graph, they would leave the critic's own loss without gradients."""
    contest, seen = _contest(len(grid)), []
    contest.critic.register_forward_hook(lambda *_: seen.append(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = contest.loss(Crops(_pixels(grid), heard=True), torch_rng(2))
    torch.stack([value.mean() for value in terms.values()]).sum().backward()
    weights = [p for p in contest.critic.parameters() if p.ndim > 1]  # the last bias is pulled both ways alike
    assert weights and all(p.grad is not None and bool(p.grad.any()) for p in weights)
    assert len(seen) == 3  # the target, what was rendered, and that again for the codec


def test_all_batches_of_a_step_hear_the_critic_or_none(prepared: Prepared, tmp_path: Path) -> None:
    """Processes that share a step's batches must add up figures of the same names."""
    training = replace(_training(5), fit=FitConfig(steps=5, accumulation=3))
    codec = Autoencoder(AutoencoderConfig(channels=4, width=16))
    task = codec_task(codec, training, Pixels(prepared, "image"), tmp_path, seed=0)
    heard = [[task.batch(3 * step + part).heard for part in range(3)] for step in range(5)]
    assert heard == [[False] * 3, [False] * 3, [True] * 3, [True] * 3, [True] * 3]


@pytest.mark.parametrize("grid", GRIDS)
def test_before_the_critic_is_heard_the_codec_has_its_plain_loss(grid: tuple[int, ...]) -> None:
    contest = _contest(len(grid))
    quiet = contest.loss(Crops(_pixels(grid), heard=False), torch_rng(2))
    plain = contest.codec.loss(_pixels(grid), torch_rng(2))
    assert set(quiet) == {*plain, "critic"}
    assert all(torch.equal(quiet[name], plain[name]) for name in plain)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_critic_learns_to_tell_blur_from_grain(grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    critic = Critic(channels=1, spatial_dims=len(grid), width=8)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=3e-3)
    pool = torch.nn.functional.avg_pool3d if len(grid) == 3 else torch.nn.functional.avg_pool2d

    def scores(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        real = torch.randn((4, 1, *grid), generator=torch_rng("grain", step))
        return critic(real)[0], critic(pool(real, 3, stride=1, padding=1))[0]

    for step in range(60):
        real, blurred = scores(step)
        (torch.relu(1 - real).mean() + torch.relu(1 + blurred).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        real, blurred = scores(1000)
    assert float(real.mean()) > 0.3 and float(blurred.mean()) < -0.3


@pytest.mark.parametrize("grid", GRIDS)
def test_the_sharpness_gap_rises_with_blur_and_with_grain_wherever_they_lie(grid: tuple[int, ...]) -> None:
    pixels = torch.rand((1, 1, *grid), generator=torch_rng(3))
    pool = torch.nn.functional.avg_pool3d if len(grid) == 3 else torch.nn.functional.avg_pool2d
    assert sharpness_gap(pixels, pixels) == 0.0
    assert sharpness_gap(pixels.transpose(2, 3), pixels) < 1e-6
    assert sharpness_gap(pool(pixels, 3, stride=1, padding=1), pixels) > 0.1
    assert sharpness_gap(pixels + 0.3 * torch.randn(pixels.shape, generator=torch_rng(4)), pixels) > 0.05


def _training(steps: int) -> CodecTraining:
    often = FitConfig(steps=steps, warmup=1, checkpoint_every=2, validate_every=2, log_every=1)
    return CodecTraining(fit=often, crop=16, batch=2, adversarial=0.1, perceptual=0.5, critic_from=0.5)


def test_a_stopped_contest_ends_as_the_uninterrupted_one(prepared: Prepared, tmp_path: Path) -> None:
    """The critic, its optimiser state and what the codec hears by step are all in the checkpoint."""
    from synth.errors import Interrupted

    def fresh() -> Autoencoder:
        torch.manual_seed(0)
        return Autoencoder(AutoencoderConfig(channels=4, width=16))

    pixels, training = Pixels(prepared, "image"), _training(6)
    whole = fresh()
    train_codec(whole, training, pixels, tmp_path / "whole", seed=0)
    cut = fresh()

    def stop(step: int, total: int, figures: object) -> None:
        if step == 3:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train_codec(cut, training, pixels, tmp_path / "cut", seed=0, report=stop)
    again = fresh()
    task = codec_task(again, training, pixels, tmp_path / "cut" / "previews", seed=0)
    fit(task, training.fit, tmp_path / "cut", seed=0)
    names = ["project.weight", "render.0.weight", "refine.0.weight"]
    for name in names:
        assert torch.equal(again.state_dict()[name], whole.state_dict()[name]), name
    lines = (tmp_path / "cut" / "train.jsonl").read_bytes()
    assert lines == (tmp_path / "whole" / "train.jsonl").read_bytes()
    assert b"perceptual" in lines and b"sharpness_gap" in lines


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("image: {codec: {kind: patch_pca}, codec_training: {adversarial: 0.1}}", "a critic trains an autoencoder"),
        ("mask: {codec: {kind: onehot}, codec_training: {perceptual: 1.0}}", "not onehot"),
        ("image: {codec_training: {adversarial: -1.0}}", "adversarial is -1.0; give 0 or more"),
        ("image: {codec_training: {critic_from: 2.0}}", "critic_from is 2.0; give a share"),
    ],
)
def test_a_critic_where_none_can_be_is_refused(lines: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.load(Recipe, f"name: x\n{lines}")


def test_a_recipe_with_a_critic_trains_to_a_model(prepared: Prepared, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny_recipe(3))
    options = ["--set", "image.codec_training.adversarial=0.05", "--set", "image.codec_training.perceptual=0.5"]
    command = [str(recipe), "--data", str(prepared.folder), "--out", str(tmp_path / "run"), *options]
    assert run("train", command) == 0
    import synth

    tensors = synth.load(tmp_path / "run" / "model").model.image.tensors()
    assert not any("critic" in name for name in tensors)
