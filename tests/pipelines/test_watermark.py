"""Sets with a watermark: the same bytes whoever makes them, told by the key's id alone, found again, refused in words."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import synth
from pipelines.cli import main
from synth.volume import Volume
from synth.watermark.keys import Key
from tests.pipelines.test_plan import content, generate, manifest, refused

ROOT = Path(__file__).parents[2]


def mark(*words: object) -> int:
    return main(["watermark", *map(str, words)])


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A given key: of keys drawn anew, one in a hundred finds itself where it is not, at a level of 1 %."""
    path = tmp_path_factory.mktemp("keys") / "key"
    Key(bytes(range(32))).write(path)
    return path


@pytest.fixture(scope="module")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "set"
    assert generate(model, out, "--count", 4) == 0
    return out


@pytest.fixture(scope="module")
def marked(model: Path, key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("marked") / "set"
    assert generate(model, out, "--count", 4, "--watermark", key) == 0
    return out


def test_images_change_and_masks_do_not(marked: Path, plain: Path, key: Path) -> None:
    ask = json.loads((marked / "request.json").read_text())["watermark"]
    rows = manifest(marked)
    for row in rows:
        image, before = (synth.read(folder / "imagesTr" / f"{row['case']}_0000.nii.gz") for folder in (marked, plain))
        gap = np.abs(image.data - before.data)
        assert 0 < gap.max() <= row["watermark"]["peaks"][0] * 1.001
        mask = f"labelsTr/{row['case']}.nii.gz"
        assert (marked / mask).read_bytes() == (plain / mask).read_bytes()
        assert row["watermark"]["key"] == ask["key"]
    assert [row.get("watermark") for row in manifest(plain)] == [None] * 4
    assert json.loads((plain / "request.json").read_text())["watermark"] is None
    secret = key.read_text().strip().encode()
    assert not [name for name, data in content(marked).items() if secret in data or str(key).encode() in data]


def test_workers_shards_and_cuts_change_no_byte(model: Path, marked: Path, key: Path, tmp_path: Path) -> None:
    line = ["--count", 4, "--watermark", key]
    assert generate(model, tmp_path / "two", *line, "--workers", 2) == 0
    assert content(tmp_path / "two") == content(marked)
    for number in range(2):
        assert generate(model, tmp_path / f"shard{number}", *line, "--shard", f"{number}/2") == 0
    shards = [str(tmp_path / f"shard{number}") for number in range(2)]
    assert main(["merge", *shards, "--out", str(tmp_path / "joined")]) == 0
    assert content(tmp_path / "joined") == content(marked)
    shutil.copytree(marked, tmp_path / "cut")
    (tmp_path / "cut" / "records" / "syn_00002.json").unlink()
    (tmp_path / "cut" / "dataset.json").unlink()
    assert generate(model, tmp_path / "cut", *line) == 0
    assert content(tmp_path / "cut") == content(marked)


def test_a_set_is_gone_on_with_under_its_key_alone(
    model: Path, marked: Path, plain: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mark("new", tmp_path / "other") == 0
    for folder, options in (
        (marked, ["--watermark", tmp_path / "other"]),
        (marked, []),
        (marked, ["--watermark", key, "--watermark-strength", 2]),
        (plain, ["--watermark", key]),
    ):
        before = content(folder)
        capsys.readouterr()
        assert generate(model, folder, "--count", 6, *options) == 2
        assert "was begun with watermark = " in refused(capsys)
        assert content(folder) == before


def test_a_marked_sample_is_made_again_with_its_key(
    model: Path, marked: Path, plain: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["reproduce", str(marked), "--model", str(model), "--case", "syn_00001"]
    assert main([*line, "--watermark", str(key)]) == 0
    assert "syn_00001: identical" in capsys.readouterr().out
    assert main(line) == 2 and "give --watermark KEYFILE" in refused(capsys)
    assert mark("new", tmp_path / "other") == 0
    assert main([*line, "--watermark", str(tmp_path / "other")]) == 2
    assert "carries key" in refused(capsys)
    line[1] = str(plain)
    assert main([*line, "--watermark", str(key)]) == 2 and "carries no watermark" in refused(capsys)


@pytest.mark.parametrize(
    ("kind", "gap", "peak", "small"),
    [
        ("f4", 0.004, 0.0025, True),
        ("f4", 0.3, 0.0025, False),  # images of a range of 1: no whole step is allowed them
        ("i2", 3, 0.25, True),  # a step of its own, and one up here and down there
        ("i2", 4, 0.25, False),
        ("i2", 2, 0.0, False),
    ],
)
def test_in_another_environment_a_marked_image_moves_by_twice_the_mark(
    kind: str, gap: float, peak: float, small: bool
) -> None:
    from pipelines.reproduce import _gap

    ramp = np.linspace(0, 1, 64).reshape(1, 4, 4, 4)
    old = (ramp if kind == "f4" else np.rint(100 * ramp)).astype(kind)
    new = old.copy()
    new[0, 1, 1, 1] += gap
    there, here = (SimpleNamespace(part=lambda *_, data=data: Volume(data)) for data in (old, new))
    assert _gap(cast(Any, there), cast(Any, here), cast(Any, None), "image", peak=peak)[1] is small


def test_detect_says_how_many_marked_ones_it_can_name(capsys: pytest.CaptureFixture[str]) -> None:
    from pipelines.watermark import Detect, fewest_decoys, fewest_named
    from synth.watermark import Verdict

    images, decoys = 20, 99
    fewest = fewest_named(images, decoys, 0.05)
    assert fewest == 4 and fewest_named(images, fewest_decoys(images, 0.05), 0.05) == 1
    for count, named in ((fewest, fewest), (fewest - 1, 0)):
        rows = np.tile(np.arange(decoys + 1.0), (images, 1))  # each key but the first scores more than it
        rows[:count, 0] = 1000.0
        verdict = Verdict.of(rows, 0.05)
        assert sum(verdict.marked) == named
        detect = Detect(images=Path("images"), key=Path("key"), decoys=decoys, rate=0.05)
        detect._say("0" * 16, [f"{n}" for n in range(images)], verdict)
        assert "fewer than 4 marked ones among 20 are not named; give --decoys 399" in capsys.readouterr().out


def test_what_a_row_says_of_a_mark_is_held_to_its_form(
    model: Path, marked: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in ({"key": "../etc"}, {"key": "0" * 16, "strength": -1, "peaks": [1.0]}, "yes"):
        folder = tmp_path / str(len(str(wrong)))
        shutil.copytree(marked, folder)
        rows = manifest(folder)
        rows[0]["watermark"] = wrong
        (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(["reproduce", str(folder), "--model", str(model), "--all", "--watermark", str(key)]) == 2
        assert "manifest.jsonl line 1" in refused(capsys)


def _open(path: Path) -> Path:
    path.write_text("ab" * 32)
    path.chmod(0o644)
    return path


def _short(path: Path) -> Path:
    path.touch(0o600)
    path.write_text("ab" * 16)
    return path


def test_faults_end_in_one_line_and_nothing_is_written(
    model: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "out" / "key"
    cases: list[tuple[list[Any], str]] = [
        (["--watermark", tmp_path / "none"], "does not exist"),
        (["--watermark", _short(tmp_path / "short")], "is no key"),
        (["--watermark", _open(tmp_path / "open")], "chmod 600"),
        (["--watermark", inside], "lies in --out"),
        (["--watermark-strength", 1], "is for --watermark"),
        (["--watermark", key, "--watermark-strength", 0], "strength is 0"),
        (["--watermark", key, "--watermark-strength", "nan"], "strength is nan"),
    ]
    for options, words in cases:
        capsys.readouterr()
        assert generate(model, tmp_path / "out", "--count", 1, *options) == 2, options
        assert words in refused(capsys)
        assert not (tmp_path / "out").exists()
    assert mark("new", key) == 2 and "never overwritten" in refused(capsys)
    for words, told in (
        (["detect", model, "--key", tmp_path / "none"], "does not exist"),
        (["detect", tmp_path / "nothing", "--key", key], "nothing does not exist"),
        (["detect", tmp_path, "--key", key], "holds no images"),
        (["detect", model, "--key", key, "--decoys", 3], "3 decoys"),
        (["detect", model, "--key", key, "--decoys", 50], "give --decoys 99 or more"),
        (["detect", model, "--key", key, "--rate", 0], "--rate is 0"),
        (["find", model], "Unrecognized options: find"),
    ):
        capsys.readouterr()
        assert mark(*words) == 2, words
        assert told in refused(capsys)


def test_the_manifest_that_is_released_and_judged_tells_of_the_mark(marked: Path) -> None:
    from evaluation.report import Report
    from pipelines.marks import note_marks
    from pipelines.release import _known

    row = manifest(marked)[0]
    assert _known("watermark", row["watermark"]) == row["watermark"]
    report = Report("phantoms")
    note_marks(report, [row, {"case": "other"}])
    assert report.notes[0].startswith(f"1 of 2 images carry the watermark of key {row['watermark']['key']}")
    note_marks(report, [{"case": "other"}])
    assert len(report.notes) == 1


@pytest.mark.skipif(not (ROOT / "synth" / "assets" / "brain-tiny").is_dir(), reason="the bundled model is not here")
def test_a_journey_from_the_key_to_the_verdict(key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Marked brains are found by the key and not by another, whatever the layout; unmarked ones by neither."""
    line = ["generate", "brain-tiny", "--count", "2", "--steps", "2", "--workers", "1", "--format", "folder"]
    assert main([*line, "--out", str(tmp_path / "set"), "--watermark", str(key)]) == 0
    assert main([*line, "--out", str(tmp_path / "plain")]) == 0
    Key(bytes(range(32, 64))).write(tmp_path / "other")

    def found(place: Path, by: Path) -> dict[str, Any]:
        capsys.readouterr()
        assert mark("detect", place, "--key", by, "--decoys", 199, "--json") == 0
        return json.loads(capsys.readouterr().out)

    told = found(tmp_path / "set", key)
    assert [one["marked"] for one in told["images"]] == [True, True] and told["all"] == {"p": 0.005, "marked": True}
    assert not found(tmp_path / "set", tmp_path / "other")["all"]["marked"]
    nothing = found(tmp_path / "plain", key)
    assert not nothing["all"]["marked"] and nothing["all"]["p"] > 0.01
    loose = tmp_path / "loose"
    loose.mkdir()
    for path in (tmp_path / "set").rglob("syn_0000?*.nii.gz"):
        if "mask" not in str(path) and "label" not in str(path):
            shutil.copy(path, loose / path.name)
    assert mark("detect", loose, "--key", key, "--decoys", 199) == 0
    said = capsys.readouterr().out
    assert said.count("marked\n") == 2 and "found in 2 images together" in said
    one = next(iter(loose.iterdir()))
    assert found(one, key)["all"]["marked"]
    # in an export, whose voxels are the same
    assert main(["export", str(tmp_path / "set"), "--out", str(tmp_path / "bids"), "--format", "bids"]) == 0
    assert found(tmp_path / "bids", key)["all"]["marked"]
    assert main(["reproduce", str(tmp_path / "bids"), "--case", "syn_00000", "--watermark", str(key)]) == 0
