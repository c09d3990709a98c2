"""Where results may go: apart from what is read, where the disk has room; quickstart into its own folder alone."""

import shutil
from pathlib import Path

import pytest

from pipelines.cli import run
from pipelines.places import free_bytes, lie_together, require_apart, require_room
from pipelines.quickstart import Quickstart
from synth.errors import OutputError


def test_places_lie_together_whatever_leads_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    a = tmp_path / "a"
    for other in (a, a / "b", tmp_path, tmp_path / "link", tmp_path / "link" / "new", a / "b" / ".."):
        assert lie_together(a, other) and lie_together(other, a)
        with pytest.raises(OutputError, match="lie in one another; give another --out"):
            require_apart(a, None, other)
    require_apart(a, None, tmp_path / "ab", tmp_path / "c")


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def usage(place: Path) -> object:
        asked.append(place)
        return shutil._ntuple_diskusage(10_000, 9_000, 1_000)  # pyright: ignore[reportAttributeAccessIssue]

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert free_bytes(tmp_path / "not" / "there") == 1_000 and asked == [tmp_path], "of the place that is there"
    require_room(tmp_path, 1_000, "the set takes")
    with pytest.raises(OutputError, match=r"has 1\.0 kB free, the set takes 2\.5 MB; free room"):
        require_room(tmp_path, 2_500_000, "the set takes")


def test_quickstart_replaces_nothing_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.generate.Generate.run", lambda self: pytest.fail("nothing may be made"))
    for number, name in enumerate(
        ("dataset.json", "imagesTr/a.nii.gz", "report/thesis.txt", "report/report.json", "report/internal/mine.html")
    ):
        out = tmp_path / str(number)
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
        assert run("quickstart", ["--out", str(out)]) == 2
        told = capsys.readouterr().err
        assert "give another --out" in told and len(told.splitlines()) == 1
        assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
        assert (out / name).read_text() == "mine"


def test_quickstart_goes_on_with_its_own(tmp_path: Path) -> None:
    for name in ("dataset/request.json", "report/report.json", "report/share/index.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    Quickstart(out=tmp_path)._require_own()
