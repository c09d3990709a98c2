"""Shared by all tests: no network, one thread, and a tiny dataset, recipe and trained model."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from synth.data.prepared import Prepared
from synth.volume import Volume

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # no test may fail for a busy machine
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection or look-up of a name but this machine's is an error."""
    here = ("127.0.0.1", "::1", "localhost", "", None, socket.gethostname())

    def guard(home: object, name: str, host_of: Callable[..., object]) -> None:
        call = getattr(home, name)

        def guarded(*arguments: Any, **options: Any) -> Any:
            if host_of(*arguments) not in here:
                raise AssertionError(f"a test reached for {host_of(*arguments)}")
            return call(*arguments, **options)

        monkeypatch.setattr(home, name, guarded)

    for name in ("connect", "connect_ex"):
        guard(socket.socket, name, lambda _, address: address[0] if isinstance(address, tuple) else "")
    guard(socket, "getaddrinfo", lambda host=None, *_: host)


def phantom(index: int, grid: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A disc or ball with a core, of varying size; image and labels 0..2."""
    rng = np.random.default_rng(index)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in grid], indexing="ij")
    centre = rng.uniform(-0.15, 0.15, size=len(grid))
    radius = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))
    size = rng.uniform(0.55, 0.8)
    labels = (radius < size).astype(np.uint8) + (radius < size / 2).astype(np.uint8)
    image = np.choose(labels, [0.0, 400.0, 800.0]) + rng.normal(0, 20, grid)
    return image.astype(np.float32), labels


def write_dataset(folder: Path, count: int, grid: tuple[int, ...], affine: np.ndarray, values: dict[str, int]) -> Path:
    """An nnU-Net dataset of phantoms, labels under the given values, with attributes and text."""
    from synth.io import write

    table = np.array([0, *values.values()])
    rows = ["case,patient,text,size,kind"]
    for index in range(count):
        image, labels = phantom(index, grid)
        write(Volume(image[None], affine), folder / "imagesTr" / f"c{index:02d}_0000.nii.gz")
        write(Volume(table[labels].astype(np.int16)[None], affine), folder / "labelsTr" / f"c{index:02d}.nii.gz")
        rows.append(
            f"c{index:02d},p{index // 2},a {('round', 'long')[index % 2]} thing,{index},{('a', 'b')[index % 2]}"
        )
    info = {
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, **values},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder


OBLIQUE = np.array([[1.9, 0.3, 0.0, -20.0], [-0.28, 2.0, 0.0, 5.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])
"""Anisotropic and turned about the third axis; columns made orthogonal below."""
OBLIQUE[:3, 1] = np.cross(OBLIQUE[:3, 2], OBLIQUE[:3, 0])
OBLIQUE[:3, 1] *= 2.0 / np.linalg.norm(OBLIQUE[:3, 1])

TINY = """
name: tiny
image:
  codec: {kind: autoencoder, in_channels: 1, spatial_dims: DIMS, stride: 2, channels: 2, width: 8, encoder_blocks: 1, decoder_blocks: 1}
  process: {kind: rectified_flow, prediction: clean}
  backbone: {kind: unet, widths: [8, 8], blocks: [1, 1], attention: [1], head: 8, time_width: 16}
  conditioning: {mask_width: 8, width: 8}
  steps: 2
  codec_training: {fit: {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 2, log_every: 1}, crop: 8, batch: 2}
  training: {fit: {steps: 6, warmup: 1, validate_every: 3, checkpoint_every: 2, log_every: 1}, patch: PATCH, patch_batch: 2, whole_batch: 1}
mask:
  codec:
    kind: onehot
    labels: 3
    inner: {kind: autoencoder, in_channels: 3, spatial_dims: DIMS, stride: 2, channels: 2, width: 8, encoder_blocks: 1, decoder_blocks: 1}
  process: {kind: rectified_flow, prediction: velocity}
  backbone: {kind: unet, widths: [8, 8], blocks: [1, 1], attention: [], head: 8, time_width: 16}
  conditioning: {width: 8}
  steps: 2
  codec_training: {fit: {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 2, log_every: 1}, crop: 8, batch: 2}
  training: {fit: {steps: 4, warmup: 1, validate_every: 2, checkpoint_every: 2, log_every: 1}, patch: PATCH, patch_batch: 2, whole_batch: 1}
"""


def tiny_recipe(dims: int) -> str:
    """A recipe that trains in seconds."""
    return TINY.replace("DIMS", str(dims)).replace("PATCH", str([4] * dims))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight oblique, anisotropic cases of four patients; label values 3 and 200."""
    folder = tmp_path_factory.mktemp("data") / "source"
    return write_dataset(folder, 8, (14, 12, 10), OBLIQUE, {"shell": 3, "core": 200})


@pytest.fixture(scope="session")
def prepared(dataset: Path) -> Prepared:
    """The dataset, prepared."""
    from pipelines.cli import run

    out = dataset.parent / "prepared"
    assert run("prepare", [str(dataset), "--out", str(out), "--holdout", "0.25", "--test", "0.25"]) == 0
    return Prepared.load(out)


@pytest.fixture(scope="session")
def model(prepared: Prepared) -> Path:
    """A tiny trained model folder."""
    from pipelines.cli import run

    recipe = prepared.folder.parent / "tiny.yaml"
    recipe.write_text(tiny_recipe(3))
    out = prepared.folder.parent / "run"
    assert run("train", [str(recipe), "--data", str(prepared.folder), "--out", str(out)]) == 0
    return out / "model"


@pytest.fixture(scope="session")
def lesion_model(model: Path) -> Path:
    """The tiny model, its core called a lesion: a label that can be placed."""
    from dataclasses import replace

    from synth.generator import Generator, load, save

    trained = load(model).model
    schema = trained.recipe.schema
    assert schema is not None
    labels = tuple(replace(label, name="lesion") if label.name == "core" else label for label in schema.labels)
    recipe = replace(trained.recipe, schema=replace(schema, labels=labels))
    out = model.parent.parent / "lesions"
    save(Generator(replace(trained, recipe=recipe)), out)
    return out
