"""MONAI, TorchIO and nnU-Net take what the stream gives, in their own forms."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

import synth
from synth.data.schema import Schema
from synth.errors import ConfigError, SynthError
from synth.stream import Stream
from synth.stream.nnunet import in_file_order, locations, spacing_zyx
from synth.stream.space import Space
from tests.stream.conftest import fill, told

Make = Callable[..., Stream]


def _own(make: Make, tiny: Path, **options: object) -> Stream:
    """A stream of a loop that brings its real cases itself."""
    stream = make(real=None, ratio=0.5, intensity="unit", **options)
    fill(stream, tiny)
    return stream


def test_monai_replaces_cases_with_the_share_that_is_asked(make: Make, tiny: Path) -> None:
    data = pytest.importorskip("monai.data")
    transforms = pytest.importorskip("monai.transforms")
    from synth.stream.monai import RandSynthesized

    stream = _own(make, tiny)
    steps = [
        transforms.EnsureTyped(keys=["image", "label"]),
        RandSynthesized(stream, prob=0.5, mask="label"),
        transforms.RandSpatialCropd(keys=["image", "label"], roi_size=(8, 8, 8), random_size=False),
    ]
    items = [
        {"image": np.full((1, 16, 12, 12), 9.0), "label": np.zeros((1, 16, 12, 12)), "case": f"r{n}"} for n in range(60)
    ]

    def seen(workers: int = 0) -> list[tuple[str, float]]:
        composed = transforms.Compose(steps)
        loader = data.DataLoader(
            data.Dataset(items, composed), batch_size=4, num_workers=workers, generator=torch.Generator().manual_seed(5)
        )
        batches = list(loader)
        assert all(batch["image"].shape == (4, 1, 8, 8, 8) for batch in batches)
        assert all(isinstance(batch["image"], data.MetaTensor) for batch in batches)
        return [(case, float(image.max())) for batch in batches for case, image in zip(batch["case"], batch["image"])]

    first = seen()
    assert first == seen()
    made = [value for case, value in first if case.startswith("syn_")]
    assert 20 <= len(made) <= 40 and max(made) < 2.1
    assert {value for case, value in first if not case.startswith("syn_")} == {9.0}
    assert {case for case, _ in first if case.startswith("syn_")} <= {f"syn_{n:05d}" for n in range(4)}
    assert any(case.startswith("syn_") for case, _ in seen(workers=1))
    with pytest.raises(ConfigError, match="the item has no 'mask'"):
        RandSynthesized(stream)({"image": torch.zeros(1, 2, 2, 2)})
    with pytest.raises(ConfigError, match="prob is 2"):
        RandSynthesized(stream, prob=2.0)


def test_a_stream_without_real_cases_is_not_iterated(make: Make, tiny: Path) -> None:
    with pytest.raises(ConfigError, match="there are no real cases and ratio is below 1"):
        next(iter(_own(make, tiny)))
    assert len(list(make(real=None, ratio=1.0, intensity="unit", size=(4, 4, 4)))) == 24


def test_torchio_takes_the_items_as_subjects(make: Make, tiny: Path) -> None:
    torchio = pytest.importorskip("torchio")
    from synth.stream.subjects import SynthSubjects

    stream = make(size=(8, 8, 8))
    fill(stream, tiny)
    plain = told(stream.loader())
    subjects = SynthSubjects(stream)
    assert len(subjects) == len(subjects.dry_iter()) == 24
    first = subjects[0]
    assert isinstance(first, torchio.Subject) and first.spacing == pytest.approx(stream.space.spacing_mm)
    for workers in (0, 2):
        batches = list(torchio.SubjectsLoader(subjects, batch_size=4, num_workers=workers))
        seen = [
            {**batch, "image": batch["image"][torchio.DATA], "mask": batch["mask"][torchio.DATA]} for batch in batches
        ]
        assert told(seen) == plain
    flips = torchio.RandomNoise(std=1.0)
    noisy = SynthSubjects(stream, transform=flips)
    assert torch.equal(noisy[3]["image"].data, noisy[3]["image"].data)
    assert not torch.equal(noisy[3]["image"].data, subjects[3]["image"].data)
    queue = torchio.Queue(subjects, 4, 2, torchio.UniformSampler(4), num_workers=0, shuffle_subjects=False)
    assert next(iter(torchio.SubjectsLoader(queue, batch_size=2)))["image"][torchio.DATA].shape == (2, 1, 4, 4, 4)
    with pytest.raises(IndexError):
        subjects[24]
    stream.transform = flips
    with pytest.raises(ConfigError, match="transform of its own"):
        SynthSubjects(stream)


@pytest.mark.parametrize(
    "turn", [np.diag([1.0, 1.0, 1.0]), np.diag([-1.0, -1.0, 1.0]), np.eye(3)[[1, 2, 0]] * [1, -1, 1]]
)
def test_nnunet_arrays_are_those_it_reads_from_files(tmp_path: Path, turn: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array([1.0, 1.5, 3.0])
    data = np.random.default_rng(0).random((1, 4, 5, 6)).astype(np.float32)
    volume = synth.Volume(data, affine)
    synth.write(volume, tmp_path / "case.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "case.nii.gz"))
    array = sitk.GetArrayFromImage(image)[None]
    labels = synth.Volume((data > 0.5).astype(np.uint8), affine, {"one": 1})
    stored = Space(labels={"one": 1}).place(volume, labels)
    back, mask = in_file_order(stored, affine)
    assert np.array_equal(back, array) and np.array_equal(mask, (array > 0.5).astype(np.uint8))
    along_ras = tuple(float(step) for step in np.abs(affine[:3, :3]).max(axis=1))
    schema = Schema(population="", channels=("MR",), labels=(), grid=(4, 5, 6), spacing_mm=along_ras, affine=())
    assert spacing_zyx(schema, affine) == pytest.approx(image.GetSpacing()[::-1])
    finer = replace(schema, native_grid=(8, 10, 12), native_spacing_mm=tuple(step / 2 for step in along_ras))
    assert spacing_zyx(finer, affine) == pytest.approx([step / 2 for step in image.GetSpacing()[::-1]])
    places = locations(mask, [1, 2], most=20)
    assert 10 <= len(places[1]) <= 20 and all(mask[tuple(place)] == 1 for place in places[1]) and len(places[2]) == 0


def test_a_missing_torchio_is_one_line(make: Make, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from synth.stream.subjects import SynthSubjects

    stream = make()
    fill(stream, tiny)
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(SynthError, match="needs TorchIO; pip install torchio"):
        SynthSubjects(stream)[0]


def test_the_trainer_file_is_python_with_a_signature_that_nnunet_reads() -> None:
    import ast

    path = Path(__file__).parents[2] / "docs" / "nnunet" / "nnUNetTrainerSynth.py"
    tree = ast.parse(path.read_text())
    trainer = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == path.stem)
    begin = next(node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    names = [argument.arg for argument in begin.args.args]
    assert names == ["self", "plans", "configuration", "fold", "dataset_json", "device"]
    assert begin.args.vararg is None and begin.args.kwarg is None
