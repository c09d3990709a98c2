"""The trainer file on a stand-in of nnU-Net that has what it calls; benchmarks/nnunet_run.py runs it inside nnU-Net."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import synth
from synth.errors import DataError
from synth.stream import Stream
from synth.stream.nnunet import channel_order, drop_before, in_file_order, kept_or_made, spacing_zyx
from tests.stream.conftest import fill

FILE = Path(__file__).parents[2] / "docs" / "nnunet" / "nnUNetTrainerSynth.py"


class Real:
    """nnU-Net's dataset of preprocessed cases."""

    identifiers = ["c00", "c01"]

    def load_case(self, identifier: str) -> tuple[str, None, None, dict]:
        return identifier, None, None, {}


class Preprocessor:
    """Crops as nnU-Net's does, and gives views."""

    expected: list[float]

    def __init__(self, verbose: bool) -> None: ...

    def run_case_npy(self, data: np.ndarray, seg: np.ndarray, properties: dict, *_: Any) -> tuple[Any, Any, dict]:
        assert properties["spacing"] == self.expected, (
            "the sample's own: nnU-Net crops and normalises before it resamples"
        )
        return data[:, 1:, :, 2:], seg.astype(np.int8)[:, 1:, :, 2:], properties


class Base:
    """What the trainer file uses of nnUNetTrainer."""

    def __init__(self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: object) -> None:
        self.dataset_json, self.configuration_name, self.local_rank = dataset_json, configuration, 0
        self.current_epoch, self.num_iterations_per_epoch, self.is_cascaded = 0, 6, False
        self.configuration_manager = SimpleNamespace(
            patch_size=[4, 4, 4], batch_size=4, preprocessor_class=Preprocessor
        )
        self.plans_manager = SimpleNamespace(dataset_name="Dataset501_Real", plans_name="nnUNetPlans")
        self.label_manager = SimpleNamespace(foreground_labels=[1, 2], all_labels=[0, 1, 2], has_ignore_label=False)

    def get_tr_and_val_datasets(self) -> tuple[Real, Real]:
        return Real(), Real()

    def on_train_epoch_start(self) -> None: ...

    def on_train_end(self) -> None: ...


@pytest.fixture
def trainer(
    make: Callable[..., Stream], tiny: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Any]:
    """Trainers of one buffer; `make` keeps their streams from starting processes."""
    packages = ("nnunetv2", "nnunetv2.training", "nnunetv2.training.nnUNetTrainer")
    modules = {name: ModuleType(name) for name in (*packages, f"{packages[-1]}.nnUNetTrainer", "nnunetv2.paths")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    modules["nnunetv2.paths"].nnUNet_raw = tmp_path  # pyright: ignore[reportAttributeAccessIssue]
    modules[f"{packages[-1]}.nnUNetTrainer"].nnUNetTrainer = Base  # pyright: ignore[reportAttributeAccessIssue]
    (tmp_path / "Dataset501_Real").symlink_to(dataset)
    spec = importlib.util.spec_from_file_location("nnUNetTrainerSynth", FILE)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    for name, value in (("MODEL", str(tiny)), ("BUFFER", str(tmp_path / "nn")), ("RATIO", 0.5), ("REUSE", 2)):
        monkeypatch.setattr(loaded, name, value)
    channels = {str(number): name for number, name in enumerate(synth.load(tiny).model.recipe.schema.channels)}  # pyright: ignore[reportOptionalMemberAccess]
    info = {"labels": {"background": 0, "shell": 1, "core": 2}, "channel_names": channels, "file_ending": ".nii.gz"}
    return lambda: loaded.nnUNetTrainerSynth({}, "3d_fullres", 0, info, "cpu")


def test_samples_stand_between_real_cases_and_keep_their_voxels(trainer: Callable[[], Any], tiny: Path) -> None:
    one = trainer()
    train, validation = one.get_tr_and_val_datasets()
    Preprocessor.expected = list(spacing_zyx(one.stream.schema, one.affine))
    fill(one.stream, tiny)
    assert train.identifiers == ["c00", "c01", "syn_any_0000", "syn_any_0001"]
    assert validation.identifiers == ["c00", "c01"] and train.load_case("c01")[0] == "c01"
    first, again = one.preprocessed_sample(0.0), one.preprocessed_sample(0.0)  # made, then read back
    for made, read in zip(first, again, strict=True):
        assert np.array_equal(made, read) and made.dtype == read.dtype
    _, stored = one.stream.pick(0.0)
    assert stored.image.shape[1:] == (one.stream.schema.native_grid or one.stream.schema.grid)
    image, labels = in_file_order(stored, one.affine)
    assert np.array_equal(again[0], image[:, 1:, :, 2:]) and np.array_equal(again[1], labels[:, 1:, :, 2:])
    image, labels, stage, properties = train["syn_any_0001"]
    assert stage is None and sorted(properties["class_locations"]) == [1, 2]
    one.label_manager.has_ignore_label = True
    places = train.load_case("syn_any_0000")[3]["class_locations"]
    assert len(places[(-1, 0, 1, 2)]) > 0, "nnU-Net looks there for annotated voxels"


def test_what_is_no_longer_shown_is_dropped_and_a_resumed_training_asks_for_its_own_epoch(
    trainer: Callable[[], Any], tiny: Path
) -> None:
    one = trainer()
    one.get_tr_and_val_datasets()
    Preprocessor.expected = list(spacing_zyx(one.stream.schema, one.affine))
    for epoch in range(4):
        one.current_epoch = epoch
        one.on_train_epoch_start()
        fill(one.stream, tiny)
        one.preprocessed_sample(0.0)
        one.preprocessed_sample(0.99)
    kept = sorted(int(path.stem) for path in one._kept.glob("*.safetensors"))
    assert kept and kept[0] >= one.stream.store.wanted().first > 0
    one.on_train_end()
    last = trainer()
    last.current_epoch = 3
    last.get_tr_and_val_datasets()
    wanted = last.stream.store.wanted()
    assert wanted.first == last.stream.plan.needed(3 * 6, 5 * 6).start and last.stream.epoch == 3
    last.on_train_epoch_start()
    assert last.stream.store.wanted() == wanted and last.stream.epoch == 3


def test_channels_are_matched_by_name(trainer: Callable[[], Any]) -> None:
    assert channel_order(["T1", "T2", "FLAIR"], {"1": "FLAIR", "0": "T2"}) == [1, 2]
    one = trainer()
    one.dataset_json["channel_names"] = {"0": "CT"}
    with pytest.raises(DataError, match=r"channel 'CT', the model has not; .*known"):
        one.get_tr_and_val_datasets()


def test_views_are_kept_as_they_look(tmp_path: Path) -> None:
    """safetensors writes the bytes that lie from the first voxel on, whatever the strides."""
    data = np.arange(60, dtype=np.float32).reshape(1, 3, 4, 5)
    for number, pair in enumerate(((data[:, 1:, :, 2:], data.astype(np.int8).transpose(0, 3, 2, 1)), (data, data))):
        path = tmp_path / f"{number:08d}.safetensors"
        made = kept_or_made(path, lambda pair=pair: pair)
        for given, one, read in zip(pair, made, kept_or_made(path, pytest.fail), strict=True):
            assert np.array_equal(given, one) and np.array_equal(given, read)
    drop_before(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["00000001.safetensors"]
