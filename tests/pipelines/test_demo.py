"""`synth demo` without a browser: what its callbacks give, refuse and keep to themselves."""

import contextlib
import gzip
import io
import itertools
import json
import socket
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import synth
from pipelines.cli import main
from pipelines.demo import own_folder
from pipelines.page import downloads
from pipelines.page.callbacks import Callbacks
from pipelines.page.cases import questions, side_of
from pipelines.page.gallery import Gallery
from pipelines.page.pairs import Pair
from pipelines.page.studio import Ask, Studio, how
from synth.errors import DataError
from synth.volume import Label, Volume
from tests.conftest import OBLIQUE

gradio = pytest.importorskip("gradio", reason="the page's extra is not installed")
NOTICE = "SYNTHETIC - not for diagnosis"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def calls(model: Path, place: Path) -> Callbacks:
    """The callbacks of a page with the tiny model; its attributes are size (a number) and kind."""
    (place / "uploads").mkdir()
    return Callbacks(Studio(str(model), place / "files"), None, uploads=place / "uploads", prefix="/x=")


@pytest.fixture(scope="module")
def pair(calls: Callbacks) -> Pair:
    assert calls.studio is not None
    return calls.studio.make(Ask(seed=5, text="a round thing", attributes={"kind": "a"}))


def made(calls: Callbacks, mask: str | None = None, *, seed: Any = 5, text: str = "a round thing") -> tuple[Any, ...]:
    said: list[Any] = []
    assert calls.studio is not None
    for attribute in calls.studio.schema.attributes:
        said += ["a"] if attribute.kind == "categorical" else [False, attribute.low]
    return calls.make([], text, mask, seed, 2, *said)


def upload(calls: Callbacks, name: str, volume: Volume | None = None, content: bytes = b"") -> str:
    path = calls.uploads / name
    if volume is None:
        path.write_bytes(content)
    else:
        synth.write(volume, path)
    return str(path)


def test_the_page_and_the_command_line_make_the_same_pair(
    calls: Callbacks, model: Path, tmp_path: Path, pair: Pair
) -> None:
    fault, view, facts, command, python, again, history, pictures = made(calls)
    assert fault == "" and again.case == "syn_00000_seed5" and "seed 5" in facts and history == [again]
    assert view["images"][0].startswith("/x=") and Path(pictures[0][0]).is_file()
    words = command.split()
    assert words[:3] == ["synth", "generate", str(model)]
    words[words.index("out")] = str(tmp_path / "out")
    import shlex

    assert main([*shlex.split(" ".join(words))[1:], "--workers", "1"]) == 0
    written = synth.read(tmp_path / "out" / "imagesTr" / "syn_00000_0000.nii.gz")
    shown = synth.read(again.images[0])
    np.testing.assert_array_equal(shown.data, written.data)
    np.testing.assert_allclose(shown.affine, written.affine, atol=1e-5)
    names: dict[str, Any] = {}
    exec(python, names)  # noqa: S102 - what the page tells people to run
    np.testing.assert_array_equal(names["sample"].image.data, shown.data)


def test_each_step_is_told_and_changes_nothing(calls: Callbacks, pair: Pair) -> None:
    told: list[tuple[float, str]] = []
    assert calls.studio is not None and pair.ask is not None
    again = calls.studio.make(pair.ask, lambda share, words: told.append((share, words)))
    assert [words for _, words in told] == ["mask: 1 of 2", "mask: 2 of 2", "image: 1 of 2", "image: 2 of 2"]
    assert [share for share, _ in told] == [0.5, 1.0, 0.5, 1.0]
    assert again.images[0].read_bytes() == pair.images[0].read_bytes()
    assert again.provenance["sampler"] == "euler"


def test_another_seed_is_another_picture(calls: Callbacks, pair: Pair) -> None:
    other = made(calls, seed=6)[5]
    assert not np.array_equal(synth.read(other.images[0]).data, synth.read(pair.images[0]).data)


def test_words_are_told_apart(calls: Callbacks) -> None:
    said = calls.chips("A round <b>wobble")
    assert "chip known' title='understood'>round" in said and "chip unknown" in said
    assert "<b>" not in said and "wobble" in said


def test_a_given_mask_is_followed(calls: Callbacks) -> None:
    labels = np.zeros((1, 14, 12, 10), np.uint8)
    labels[0, 4:9, 4:9, 3:7] = 3
    labels[0, 6, 6, 5] = 200
    fault, view, *_, again, _, _ = made(calls, upload(calls, "mine.nii.gz", Volume(labels, OBLIQUE)))
    assert fault == "" and view["mask"]
    np.testing.assert_array_equal(synth.read(again.mask).data, labels)
    assert [one.name for one in again.legend] == ["shell", "core"]
    voxel_ml = abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000
    assert again.legend[1].ml == pytest.approx(voxel_ml, rel=1e-4)
    assert "--masks masks" in how(again.ask, "m")[0]


def test_bad_uploads_are_one_line(calls: Callbacks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strange = np.zeros((1, 14, 12, 10), np.uint8)
    strange[0, 5, 5, 5] = 77
    bad = {
        upload(calls, "empty.nii.gz"): "empty",
        upload(calls, "notes.txt", content=b"hello"): "suffix",
        upload(calls, "lie.nii.gz", content=b"hello"): "lie.nii.gz",
        upload(calls, "strange.nii.gz", Volume(strange, OBLIQUE)): "label value 77",
        upload(calls, "flat.png", Volume(np.zeros((1, 9, 9), np.uint8))): "2D",
    }
    elsewhere = tmp_path / "secret.nii.gz"
    synth.write(Volume(strange, OBLIQUE), elsewhere)
    bad[str(elsewhere)] = "no upload of this page"
    bad[str(calls.uploads / ".." / ".." / "etc.nii.gz")] = "no upload of this page"
    for path, said in bad.items():
        fault = made(calls, path)[0]
        assert said in fault and "\n" not in fault and "our fault" not in fault, (path, fault)
        assert str(calls.uploads) not in fault and str(tmp_path) not in fault, fault


def test_a_grid_too_large_is_refused_by_its_header(calls: Callbacks) -> None:
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_shape((2048, 2048, 2048))
    header.set_data_dtype(np.uint8)
    raw = bytearray(header.binaryblock) + b"\0" * 4
    raw[108:112] = np.float32(352).tobytes()  # vox_offset
    fault = made(calls, upload(calls, "huge.nii", content=bytes(raw) + b"\0" * 64))[0]
    assert "huge.nii" in fault and "our fault" not in fault
    packed = upload(calls, "huge.nii.gz", content=gzip.compress(bytes(raw) + b"\0" * 64))
    assert "2048 x 2048 x 2048" in made(calls, packed)[0]


@pytest.mark.parametrize(("seed", "said"), [(-1, "seed"), (2**40, "seed"), (None, "whole number"), ("x", "whole")])
def test_bad_seeds_are_one_line(calls: Callbacks, seed: Any, said: str) -> None:
    assert said in made(calls, seed=seed)[0]


def test_words_the_model_does_not_know_at_all(calls: Callbacks) -> None:
    assert "no word that the model knows" in made(calls, text="wobble")[0]


def test_every_download_says_synthetic(pair: Pair) -> None:
    for way in downloads.offered().values():
        path = way(pair)
        assert "SYNTHETIC" in path.name
        assert way(pair).read_bytes() == path.read_bytes()
    for path in (*pair.images, pair.mask):
        assert path is not None and "SYNTHETIC" in path.name
        assert gzip.decompress(path.read_bytes())[148:228].rstrip(b"\0").decode() == NOTICE
    with zipfile.ZipFile(downloads.nifti(pair)) as archive:
        assert archive.read("NOTICE.txt").decode().strip() == NOTICE
        record = next(name for name in archive.namelist() if name.endswith(".json"))
        assert json.loads(archive.read(record))["synthetic"] is True


def test_the_zip_is_an_nnunet_dataset(pair: Pair, tmp_path: Path) -> None:
    from synth.formats import read

    with zipfile.ZipFile(downloads.nnunet(pair)) as archive:
        archive.extractall(tmp_path)
    dataset = read(tmp_path / "Dataset900_SYNTHETIC")
    assert [case.id for case in dataset.cases] == [pair.case] and dataset.layout == "nnU-Net"
    assert {label.name for label in dataset.labels} == {"shell", "core"}


def test_the_picture_is_radiological(tmp_path: Path) -> None:
    """A bright voxel at the patient's right stands at the left of the axial plane; one in front, at its top."""
    data = np.zeros((1, 20, 20, 20), np.float32)
    data[0, 17, 17, 10] = 100.0  # RAS+: right and front
    pair = Pair.written("x", (Volume(data), None), (("MR",), ()), tmp_path)
    tile = np.asarray(Image.open(io.BytesIO(pair.picture.read_bytes())).convert("RGB"))[:256, :256]
    blue = tile[..., 2].astype(int)  # letters are yellow
    row, column = np.unravel_index(blue.argmax(), blue.shape)
    assert column < 64 and row < 64


def test_sides_are_the_patients() -> None:
    body = np.argwhere(np.ones((10, 4, 4))).astype(float)
    high = body[body[:, 0] > 6]
    assert side_of(high, body, np.eye(4)) == "right"
    assert side_of(high, body, np.diag([-1.0, 1, 1, 1])) == "left"
    assert side_of(body, body, np.eye(4)) == "both sides"


def test_answers_are_measured_on_the_mask(tmp_path: Path) -> None:
    labels = np.zeros((1, 20, 20, 20), np.uint8)
    labels[0, 2:18, 2:18, 2:18] = 1
    for low in (3, 8):
        labels[0, 3:5, low : low + 3, 4:6] = 2  # two parts at the patient's left, 12 voxels each
    labels[0, 4, 15, 15] = 2  # too small to count
    mask = Volume(labels, np.diag([2.0, 2.0, 10.0, 1.0]), labels={"brain": 1, "lesion": 2})
    image = mask.replace(data=labels.astype(np.float32), labels=None)
    names = (("MR",), (Label("brain", 1), Label("lesion", 2)))
    row = {"condition": {"attributes": {"contrast": "T2"}}}
    pair = Pair.written("x", (image, mask), names, tmp_path, provenance=row)
    asked = {one.text.split()[0]: one for one in questions(pair, {"contrast": ("T1", "T2")})}
    assert asked["Which"].answer == "T2" and asked["Which"].because == "as asked"
    assert asked["Is"].answer == "yes" and asked["On"].answer == "left"
    parts = [one.answer for one in questions(pair, {}) if "parts" in one.text]
    assert parts == ["2"]
    size = [one for one in questions(pair, {}) if "large is" in one.text][0]
    assert size.answer == "1 to 4 ml" and size.because == "1.00 ml in the mask"
    assert all(one.answer in one.choices for one in questions(pair, {"contrast": ("T1", "T2")}))
    none = Pair.written("y", (image, mask.replace(data=np.minimum(labels, 1))), names, tmp_path / "none", provenance={})
    assert [one.answer for one in questions(none, {})] == ["no"]


def test_case_mode_hides_the_mask_until_asked(calls: Callbacks) -> None:
    state, question, choice, answer, verdict, reveal, view, fault = calls.next_case(None)
    assert fault == "" and view["mask"] is None and view["labels"] == [] and view["images"]
    asked = state["questions"][0]
    assert asked.text in question and list(choice.choices) == [(one, one) for one in asked.choices]
    state, _, view = calls.reveal(state)
    assert view["mask"] and view["labels"]
    state, _, view = calls.reveal(state)
    assert view["mask"] is None
    right = calls.answer(state, asked.answer)
    assert right[0]["right"] == 1 and right[4].startswith("Right")
    second = right[0]["questions"][1]
    wrong = calls.answer(right[0], next(one for one in second.choices if one != second.answer))
    assert wrong[0]["right"] == 1 and wrong[0]["total"] == 2 and second.answer in wrong[4]
    assert calls.answer(wrong[0], None)[4] == "Choose an answer first."


@pytest.fixture(scope="module")
def generated(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gallery") / "set"
    assert main(["generate", str(model), "--out", str(out), "--count", "2", "--seed", "1", "--workers", "1"]) == 0
    return out


def test_a_folder_is_browsed_and_not_written(generated: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in generated.rglob("*")}
    report = generated / "share" / "index.html"
    gallery = Gallery(generated, tmp_path / "files")
    assert "No shareable report" in gallery.report()
    calls = Callbacks(None, gallery, uploads=tmp_path)
    assert gallery.cases == ["syn_00000", "syn_00001"] and "2 pairs" in calls.about()
    fault, view, facts = calls.browse("syn_00001")
    assert fault == "" and view["mask"] and "euler" in facts
    shown = synth.read(view["images"][0])
    np.testing.assert_array_equal(shown.data, synth.read(generated / "imagesTr" / "syn_00001_0000.nii.gz").data)
    assert calls.neighbour("syn_00001", 1) == "syn_00000" and calls.neighbour(None, 1) == "syn_00000"
    assert {path: path.stat().st_mtime_ns for path in generated.rglob("*")} == before
    assert calls.next_case(None)[-1] == ""
    report.parent.mkdir()
    report.write_text("<script>alert('x')</script>")
    assert 'sandbox=""' in gallery.report() and "<script>" not in gallery.report()
    report.unlink()
    report.parent.rmdir()


def test_no_path_leaves_the_gallery(generated: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(generated, copy)
    secret = tmp_path / "secret.nii.gz"
    shutil.copy(copy / "imagesTr" / "syn_00000_0000.nii.gz", secret)
    (copy / "imagesTr" / "syn_00000_0000.nii.gz").unlink()
    (copy / "imagesTr" / "syn_00000_0000.nii.gz").symlink_to(secret)
    gallery = Gallery(copy, tmp_path / "files")
    with pytest.raises(DataError, match="outside"):
        gallery.show("syn_00000")
    for name in ("../../etc/passwd", "/etc/passwd", "syn_9"):
        with pytest.raises(DataError, match="not in the folder"):
            gallery.show(name)


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        bad = {
            ("--auth", "me"): "user:password",
            ("--port", "0"): "--port",
            ("--root-path", "synth"): "--root-path",
            ("--gallery", str(tmp_path / "none")): "not a folder",
            ("--port", str(port)): "is taken",
            ("nosuch", "--port", str(_free())): "no model folder",
        }
        for options, said in bad.items():
            assert main(["demo", *options]) == 2
            told = capsys.readouterr().err
            assert said in told and told.count("\n") == 1, told


def test_the_pages_folder_goes_though_an_answer_is_still_written() -> None:
    """An answer's files came between the listing and the removal of their folder: exit code 1, pictures left behind."""
    begun = threading.Event()

    def write(folder: Path) -> None:
        end = time.monotonic() + 0.6
        for number in itertools.count():
            inner = folder / "files" / str(number % 7)
            with contextlib.suppress(OSError):
                inner.mkdir(exist_ok=True)
                (inner / f"{number}.dcm").write_bytes(b"x" * 1000)
            if number == 200:
                begun.set()
            if time.monotonic() > end:
                return

    with own_folder("synth-test-") as folder:
        (folder / "files").mkdir()
        answer = threading.Thread(target=write, args=(folder,))
        answer.start()
        assert begun.wait(10)
        assert answer.is_alive()
    assert not folder.exists()
    answer.join()


def test_niivue_is_vendored_with_its_licence() -> None:
    from pipelines.page.app import ASSETS

    assert (ASSETS / "niivue.umd.js").stat().st_size > 2_000_000
    assert "BSD 2-Clause" in (ASSETS / "niivue.LICENSE").read_text()
    for name in ("viewer.html", "viewer.js", "viewer.css", "page.css"):
        assert "http" not in (ASSETS / name).read_text()


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
