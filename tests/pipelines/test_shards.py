"""Shards of separate folders joined, and those that do not fit refused."""

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.pipelines.test_plan import content, generate, refused


def merge(*words: object) -> int:
    return main(["merge", *map(str, words)])


def test_joined_shards_are_the_set_of_one_process(whole: Path, shards: list[Path], tmp_path: Path) -> None:
    assert merge(shards[2], shards[0], shards[1], "--out", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(whole)
    (tmp_path / "out" / "records" / "syn_00003.json").unlink()  # as if it was cut short
    (tmp_path / "out" / "dataset.json").unlink()
    assert merge(*shards, "--out", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(whole)


def _other_request(folder: Path) -> None:
    request = json.loads((folder / "request.json").read_text())
    (folder / "request.json").write_text(json.dumps({**request, "seed": 9}))


def _other_count(folder: Path) -> None:
    (note,) = folder.glob("shard-*.json")
    note.write_text(note.read_text().replace('"count": 5', '"count": 8'))


def _cut(folder: Path, name: str) -> None:
    (path,) = folder.glob(name)
    path.write_bytes(path.read_bytes()[:40])


def _note(name: str, value: object) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        (note,) = folder.glob("shard-*.json")
        note.write_text(json.dumps({**json.loads(note.read_text()), name: value}))

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "another request": (_other_request, "is of another request than"),
    "another count": (_other_count, "of a set of 8 samples"),
    "a note of other kinds": (_note("count", "many"), "line 1 is broken (count should be a valid integer, got 'many')"),
    "a note without facts": (_note("facts", None), "line 1 is broken (facts should be a valid dictionary, got None)"),
    "a note of strange facts": (
        _note("facts", {"format": "nnunet", "prompts": False, "about": {"name": 5}}),
        "line 1 is broken (facts.about",
    ),
    "a note of another layout": (
        _note("facts", {"format": "nnunte", "prompts": False, "about": {}}),
        "did you mean 'nnunet'",
    ),
    "a request of other kinds": (
        lambda f: (f / "request.json").write_text('{"seed":\n "x"}'),
        "request.json line 1 is broken (seed should be a valid integer, got 'x')",
    ),
    "a request in a list": (
        lambda f: (f / "request.json").write_text("[]"),
        "line 1 is broken (it is no object but [])",
    ),
    "a record of other kinds": (
        lambda f: (f / "records/syn_00001.json").write_text('{"case": "syn_00001", "files": []}'),
        "syn_00001.json line 1 is broken (",
    ),
    "cut short": (lambda f: next(f.glob("shard-*.json")).unlink(), "its shard is not done"),
    "no shard": (lambda f: (f / "request.json").unlink(), "is no shard"),
    "a broken request": (lambda f: (f / "request.json").write_text("{"), "request.json line 1 is broken"),
    "a broken note": (lambda f: next(f.glob("shard-*.json")).write_text("[]"), "is broken"),
    "a broken record": (lambda f: _cut(f, "records/syn_00001.json"), "syn_00001.json line 1 is broken"),
    "an empty record": (lambda f: (f / "records/syn_00001.json").write_text(""), "syn_00001.json line 1 is broken"),
    "a cut image": (lambda f: _cut(f, "imagesTr/syn_00001_0000.nii.gz"), "is not as its record says"),
    "no image": (lambda f: (f / "imagesTr/syn_00001_0000.nii.gz").unlink(), "cannot be read"),
    "a hole": (lambda f: (f / "records/syn_00004.json").unlink(), "samples 4 are in no folder"),
    "a path outside": (
        lambda f: (f / "records/syn_00001.json").write_text(
            (f / "records/syn_00001.json").read_text().replace("labelsTr/", "../../labelsTr/")
        ),
        "is no file of the set",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_shards_that_do_not_fit_are_refused(
    name: str, shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = SPOILT[name]
    own = Path(shutil.copytree(shards[1], tmp_path / "shard"))
    spoil(own)
    assert merge(shards[0], own, shards[2], "--out", tmp_path / "out") == 2
    assert words in refused(capsys) and not (tmp_path / "out" / "dataset.json").exists()


def test_holes_doubles_and_other_folders_are_refused(
    whole: Path, shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    for given, words in (
        (shards[:2], "samples 2 are in no folder (shard 2/3)"),
        ([*shards, shards[1]], "sample syn_00001 is in"),
        ([whole, *shards], "is a whole set already"),
        ([*shards, empty], "is no shard"),
        ([*shards, out / "none"], f"{out / 'none'} does not exist; give the folders that `synth generate` wrote"),
        ([shards[0] / "request.json"], "request.json is a file; give the folders"),
    ):
        assert merge(*given, "--out", out) == 2
        assert words in refused(capsys) and not out.exists()
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    assert merge(*shards, "--out", out) == 2
    assert "holds something else" in refused(capsys)
    for place in (shards[0], shards[1] / "out", shards[0].parent):
        assert merge(*shards, "--out", place) == 2
        assert "lie in one another" in refused(capsys) and not (shards[1] / "out").exists()


def test_an_unfinished_shard_says_how_to_end_it(
    model: Path,
    whole: Path,
    shards: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after its first sample of two: merge says which, how far, and the command; typed, that ends it."""
    from pipelines.samples import Worker

    make, own = Worker.make, tmp_path / "my shard"

    def one(self: Worker, index: int) -> None:
        if index > 2:
            raise KeyboardInterrupt
        make(self, index)

    monkeypatch.setattr(Worker, "make", one)
    assert generate(model, own, "--count", 5, "--shard", "1/3") == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert merge(shards[0], own, shards[2], "--out", tmp_path / "out") == 2
    told = refused(capsys)
    assert "shard 1/3 has 1 of 2 samples; end it by `synth generate " in told
    words = shlex.split(told.split("`")[1])
    assert main(words[1:]) == 0
    assert not list(own.glob("begun-*"))
    assert merge(shards[0], own, shards[2], "--out", tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(whole)


def test_a_shard_that_goes_on_is_not_done(model: Path, shards: list[Path], tmp_path: Path) -> None:
    """A note of before must not hide that a larger count was cut short."""
    own = Path(shutil.copytree(shards[0], tmp_path / "shard"))
    assert generate(model, own, "--count", 7, "--shard", "0/3") == 0
    assert json.loads(next(own.glob("shard-*.json")).read_text())["count"] == 7
    assert sorted(path.stem for path in (own / "records").iterdir()) == ["syn_00000", "syn_00003", "syn_00006"]
