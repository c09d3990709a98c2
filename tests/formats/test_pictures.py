"""PNG and JPEG: values as stored, turned as shown, spacing where a file says it; written as nnU-Net reads them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.cli import main
from synth import io
from synth.data.prepared import Prepared
from synth.data.reading import read_image, read_mask
from synth.errors import DataError, OutputError
from synth.formats import read
from synth.formats.nnunet import DatasetWriter
from synth.volume import Volume
from tests.conftest import tiny_recipe
from tests.formats import datasets

PHYS = (0.25, 0.5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read(dtype: str, channels: int, tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (channels, 7, 5)).astype(dtype)
    path = tmp_path / "a.png"
    io.write(Volume(data, np.diag([-PHYS[0], -PHYS[1], 1.0, 1.0])), path)
    back, header = io.read(path), io.read_header(path)
    np.testing.assert_array_equal(back.data, data)
    assert back.data.dtype == dtype == header.dtype and (header.grid, header.channels) == ((7, 5), channels)
    assert back.spacing_mm == header.outline().spacing_mm == PHYS
    if (dtype, channels) != ("uint16", 3):  # Pillow gives 8 bits of these
        np.testing.assert_array_equal(np.asarray(Image.open(path)).reshape(5, 7, channels).transpose(2, 1, 0), data)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_itk_sees_the_same(dtype: str, channels: int, tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    data = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (channels, 7, 5)).astype(dtype)
    io.write(Volume(data), tmp_path / "a.png")
    seen = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.png")))
    np.testing.assert_array_equal(seen.reshape(5, 7, channels).transpose(2, 1, 0), data)


def test_exif_turns_the_image_as_it_is_shown(tmp_path: Path) -> None:
    data = np.arange(40, dtype=np.uint8).reshape(5, 8) * 6
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    Image.fromarray(data).save(tmp_path / "a.jpg", exif=exif, quality=100)
    volume = io.read(tmp_path / "a.jpg")
    assert volume.grid == (5, 8) == io.read_header(tmp_path / "a.jpg").grid
    assert np.abs(volume.data[0].T.astype(int) - np.rot90(data, -1)).max() <= 3


def test_masks_are_read_by_index_and_by_stored_value(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)
    palette = Image.fromarray(values, mode="P")
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    palette.save(tmp_path / "palette.png", bits=2)
    Image.fromarray(values > 0).save(tmp_path / "bits.png")
    Image.fromarray(np.stack([values] * 3, axis=-1)).save(tmp_path / "grey as RGB.png")
    read_of = {
        name: io.read(tmp_path / f"{name}.png", labels={}).data[0].T for name in ("palette", "bits", "grey as RGB")
    }
    np.testing.assert_array_equal(read_of["palette"], values)
    np.testing.assert_array_equal(read_of["bits"], values > 0)
    np.testing.assert_array_equal(read_of["grey as RGB"], values)
    assert io.read(tmp_path / "palette.png").channels == 3


def test_alpha_counts_only_where_it_is_opaque(tmp_path: Path) -> None:
    data = np.full((4, 4, 4), 255, np.uint8)
    data[..., :3] = np.arange(48).reshape(4, 4, 3)
    Image.fromarray(data).save(tmp_path / "a.png")
    assert io.read(tmp_path / "a.png").channels == 3 == io.read_header(tmp_path / "a.png").channels
    data[0, 0, 3] = 0
    Image.fromarray(data).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="transparent in places"):
        io.read(tmp_path / "a.png")


def test_what_png_cannot_hold(tmp_path: Path) -> None:
    for volume, words in (
        (Volume(np.zeros((1, 4, 4), np.float32)), "takes uint8 and uint16"),
        (Volume(np.zeros((2, 4, 4), np.uint8)), "grey .1. or RGB .3. channels"),
        (Volume(np.zeros((1, 4, 4, 4), np.uint8)), "2D"),
    ):
        with pytest.raises(OutputError, match=words):
            io.write(volume, tmp_path / "a.png")
    with pytest.raises(OutputError, match="JPEG"):
        io.write(Volume(np.zeros((1, 4, 4), np.uint8)), tmp_path / "a.jpg")
    assert not list(tmp_path.iterdir())


def test_white_masks_are_one_label(tmp_path: Path) -> None:
    source = datasets.pictures(tmp_path, colour=False, ending=".jpg")
    for path in (source / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)
    (source / "dataset.json").unlink()
    assert read(source).label_values == {"foreground": 255}
    (source / "labels.json").write_text('{"1": "polyp"}')
    dataset = read(source)
    assert dataset.label_values == {"polyp": 255} and dataset.channels == ("grey",) and dataset.file_ending == ".png"
    assert dataset.notes[0] == "masks hold 0 and 255: 255 was taken as 'polyp'"
    assert "one pixel was taken as 1 mm (assumed)" in dataset.notes[1]


def test_a_mask_lies_where_its_picture_lies(tmp_path: Path) -> None:
    """Drawing programs drop or invent densities: of a mask only the grid counts."""
    source = datasets.pictures(tmp_path)
    for path in (source / "images").iterdir():
        io.write(io.read(path).replace(affine=np.diag([-PHYS[0], -PHYS[1], 1.0, 1.0])), path)
    dataset = read(source)
    image = read_image(dataset.cases[0], dataset)
    assert image.spacing_mm == PHYS and read_mask(dataset.cases[0], dataset, image).same_geometry(image)
    assert dataset.notes == ()


@pytest.mark.parametrize("channels", [("R", "G", "B"), ("grey",), ("near", "far")])
def test_nnunet_pictures_round_trip(channels: tuple[str, ...], tmp_path: Path) -> None:
    """Colour is one file of three samples a pixel, other channels a file each."""
    data = np.random.default_rng(0).integers(0, 256, (len(channels), 8, 6)).astype(np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (1, 8, 6)).astype(np.uint8)
    writer = DatasetWriter(tmp_path, name="P", channels=channels, labels={"a": 1, "b": 2}, file_ending=".png")
    files = writer.add("one", Volume(data), Volume(labels))
    writer.finish(1)
    images = [name for name in files if name.startswith("imagesTr")]
    assert images == (
        ["imagesTr/one_0000.png"] if len(channels) != 2 else ["imagesTr/one_0000.png", "imagesTr/one_0001.png"]
    )
    seen = np.asarray(Image.open(tmp_path / images[0]))
    assert seen.shape == ((6, 8, 3) if len(channels) == 3 else (6, 8))
    dataset = read(tmp_path)
    image = read_image(dataset.cases[0], dataset)
    np.testing.assert_array_equal(image.data, data)
    np.testing.assert_array_equal(read_mask(dataset.cases[0], dataset, image).data, labels)
    assert json.loads((tmp_path / "dataset.json").read_text())["file_ending"] == ".png"


def test_colour_pictures_end_to_end(tmp_path: Path) -> None:
    source = datasets.pictures(tmp_path / "source", ending=".jpg", count=6)
    (tmp_path / "tiny.yaml").write_text(tiny_recipe(2).replace("in_channels: 1", "in_channels: 3"))
    assert main(["prepare", str(source), "--out", str(tmp_path / "data")]) == 0
    assert Prepared.load(tmp_path / "data").schema.file_ending == ".png"
    line = ["train", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    assert main(line) == 0
    model, out = str(tmp_path / "run" / "model"), tmp_path / "syn"
    masks = ["--masks", str(source / "masks")]
    assert main(["generate", model, "--out", str(out), "--count", "2", "--workers", "1", *masks]) == 0
    image = Image.open(out / "imagesTr" / "syn_00000_0000.png")
    assert (image.mode, image.size) == ("RGB", (12, 9)) and len(list((out / "imagesTr").iterdir())) == 2
    np.testing.assert_array_equal(
        np.asarray(Image.open(out / "labelsTr" / "syn_00000.png")), np.asarray(Image.open(source / "masks" / "c0.png"))
    )
    judged = ["evaluate", "--synthetic", str(out), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "report")]
    assert main(judged) == 0


def test_pictures_are_prepared_as_they_are_stored(tmp_path: Path) -> None:
    """Rows run down: no picture is turned, and a sample that follows no mask is written the same way up."""
    source = datasets.pictures(tmp_path / "source", colour=False)
    assert main(["prepare", str(source), "--out", str(tmp_path / "data"), "--size", "12", "9"]) == 0
    done = Prepared.load(tmp_path / "data")
    for case in done.cases:
        stored = np.asarray(Image.open(source / "masks" / f"{case.case}.png")).T
        np.testing.assert_array_equal(done.mask(case), stored)
    np.testing.assert_array_equal(np.diag(done.schema.reference_affine), [-1, -1, 1, 1])


@pytest.mark.parametrize("beside_white", [8, 0])
def test_grey_masks_without_names_may_hold_some_labels(beside_white: int, tmp_path: Path) -> None:
    source = datasets.pictures(tmp_path, colour=False)
    (source / "dataset.json").unlink()
    values = [*range(beside_white + 1), 255] if beside_white else [*range(33)]
    for path in (source / "masks").iterdir():
        Image.fromarray(np.resize(np.array(values, np.uint8), (9, 12))).save(path)
    assert len(read(source).labels) == len(values) - 1
