"""The judge's segmenter: learns phantoms, recognises a class, repeats for a seed, travels as a folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.segmenter import (
    Example,
    Segmenter,
    SegmenterConfig,
    load_judge,
    save_judge,
    score_by_label,
    train_segmenter,
)
from synth.errors import CheckpointError
from tests.conftest import phantom

CONFIG = SegmenterConfig(channels=1, labels=("shell", "core"), attribute="kind", classes=("bright", "dark"), width=8)


def examples(count: int) -> list[Example]:
    out = []
    for index in range(count):
        image, mask = phantom(index, (16, 16, 16))
        dark = index % 2 == 1
        out.append(Example(((800 - image if dark else image) / 800.0)[None], mask, CONFIG.classes[dark]))
    return out


@pytest.fixture(scope="module")
def trained() -> Segmenter:
    return train_segmenter(CONFIG, examples(8), steps=4, seed=3)


def test_the_class_is_recognised_from_the_first_steps(trained: Segmenter) -> None:
    fresh = [example for example in examples(16)[8:]]
    assert np.mean([trained.label(example.image)[1] == example.name for example in fresh]) >= 0.9


def test_training_repeats_for_a_seed(trained: Segmenter) -> None:
    again = train_segmenter(CONFIG, examples(8), steps=4, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))


def test_a_judge_folder_gives_the_segmenter_back_and_a_damaged_one_is_refused(
    trained: Segmenter, tmp_path: Path
) -> None:
    save_judge(trained, tmp_path / "judge", facts={"held_out_dice": {"shell": 0.9, "core": 0.8}})
    model, facts = load_judge(tmp_path / "judge")
    image = examples(1)[0].image
    assert (model.label(image)[0] == trained.label(image)[0]).mean() > 0.99
    assert facts["held_out_dice"] == {"shell": 0.9, "core": 0.8}
    weights = tmp_path / "judge" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="judge.json names"):
        load_judge(tmp_path / "judge")
    with pytest.raises(CheckpointError, match="no judge folder"):
        load_judge(tmp_path / "absent")


@pytest.mark.parametrize("grid", [(17, 9), (20, 30)])
def test_any_grid_in_2d(grid: tuple[int, ...]) -> None:
    model = Segmenter(SegmenterConfig(channels=2, labels=("a",), spatial_dims=2, width=8)).eval()
    assert model.label(np.zeros((2, *grid)))[0].shape == grid


def test_examples_without_a_class_train_the_labels_and_no_class() -> None:
    some = [replace(example, name="" if index % 4 == 0 else example.name) for index, example in enumerate(examples(12))]
    model = train_segmenter(CONFIG, some, steps=4, seed=3)
    assert score_by_label(model, some)[1] >= 0.9, "who has no class is not asked for it"
