"""Volumes to turn in a report: the page stays offline and within bounds, shares no more than its pictures do."""

import base64
import gzip
import re
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from evaluation import interactive
from evaluation.evidence import Evidence, Judged
from evaluation.interactive import NOTICE, Turned
from evaluation.page import page
from evaluation.report import Report, Verdict
from evaluation.sections.pictures import pictures
from pipelines.cli import run
from pipelines.evaluate import viewer_source
from tests.conftest import phantom


def turned(caption: str = "syn <1>", *, inside: bool = False, grid: tuple[int, ...] = (6, 7, 8)) -> Turned:
    image, labels = phantom(0, grid)
    spacing = (1.0, 2.0, 3.0)[: len(grid)]
    return Turned.of(caption, image / 800, labels, labels=["a", "b<c"], spacing_mm=spacing, inside=inside)


def judged(count: int) -> list[Judged]:
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 3, (count, 5, 6, 7)).astype(np.uint8)
    return [Judged(f"syn_{i}", rng.random((1, 5, 6, 7)).astype(np.float32), masks[i]) for i in range(count)]


def shown(
    scores: Sequence[float], count: int, *, audited: bool = True, ok: bool | None = True, flagged: Sequence[int] = ()
) -> Report:
    made = judged(len(scores))
    evidence = Evidence(made, [], [], "phantoms", labels=("a", "b"), spacing_mm=(1.0, 1.0, 2.0), interactive=count)
    report = Report("phantoms")
    report.samples = [
        {"case": item.case, "flagged": index in flagged, "agreement": score}
        for index, (item, score) in enumerate(zip(made, scores, strict=True))
    ]
    if audited:
        report.verdicts["privacy.images"] = Verdict(ok, "as the audit says")
    pictures(evidence, report, lambda _: None)
    return report


def test_volumes_hold_their_voxels_and_say_what_they_are() -> None:
    image, labels = phantom(0, (6, 7, 8))
    one = turned()
    for text, wanted in ((one.image, np.rint(np.clip(image / 800 / 1.05, 0, 1) * 255)), (one.mask, labels)):
        raw = gzip.decompress(base64.b64decode(text))
        read = nib.Nifti1Image.from_bytes(raw)
        np.testing.assert_array_equal(np.asarray(read.dataobj), wanted)
        assert read.header.get_zooms() == (1.0, 2.0, 3.0) and NOTICE.encode() in raw[:352]
    assert turned().image == one.image  # equal volumes, equal text
    assert turned(grid=(6, 7)).flat and not one.flat


def test_a_page_with_volumes_names_no_other_place() -> None:
    made = Report("phantoms", viewer=viewer_source())
    made.volumes = [turned(), turned("second")]
    text = page(made, with_real=False)
    assert re.search(r"(https?|wss?)://", text) is None
    assert re.search(r"src=|href=.[^#]", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)) is None
    assert "niivue" in text and "BSD" in text
    assert text.count('<figure class="turn">') == 2 and text.count(NOTICE) == 2
    assert "syn &lt;1&gt;" in text and "b&lt;c" in text and "b<c" not in text


def test_without_volumes_the_page_has_no_script() -> None:
    made = Report("phantoms", viewer=viewer_source())
    assert "<script" not in page(made, with_real=True)


def test_a_page_holds_so_much_and_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Report("phantoms", viewer="/* a viewer */")
    made.volumes = [turned(str(number)) for number in range(3)]
    assert "left out" not in page(made, with_real=False)
    monkeypatch.setattr(interactive, "LARGEST_BYTES", 2 * turned().size)
    text = page(made, with_real=False)
    assert text.count("<canvas") == 2 and "1 more are left out" in text


def test_best_median_and_worst_are_shown() -> None:
    report = shown([0.5, 0.9, 0.7, 0.6, 0.8], 3)
    assert [one.caption for one in report.volumes] == [
        "syn_1: best, agreement 0.900",
        "syn_2: median, agreement 0.700",
        "syn_0: worst, agreement 0.500",
    ]
    assert not any(one.inside for one in report.volumes)
    assert shown([0.5, 0.9], 0).volumes == []
    assert shown([0.5, 0.9], 0).plain() == shown([0.5, 0.9], 2).plain()  # report.json is the same


def test_what_may_show_a_patient_is_not_shared() -> None:
    assert [one.caption.split(":")[0] for one in shown([0.5, 0.9, 0.7], 3, flagged=[1]).volumes] == ["syn_2", "syn_0"]
    report = shown([0.5, 0.9], 2, audited=False)
    report.viewer = "/* a viewer */"
    assert all(one.inside for one in report.volumes)
    assert "<canvas" not in page(report, with_real=False) and "<canvas" in page(report, with_real=True)


@pytest.mark.parametrize("ok", [False, None])
def test_whole_volumes_are_shared_only_where_the_audit_passed(ok: bool | None) -> None:
    report = shown([0.5, 0.9], 2, ok=ok)
    report.viewer = "/* a viewer */"
    assert len(report.volumes) == 2 and all(one.inside for one in report.volumes)
    assert "<canvas" not in page(report, with_real=False) and "<canvas" in page(report, with_real=True)
    (caption, _, inside), *_ = report.pictures
    assert inside is (ok is False) and ("the images fail" in caption) is inside


def test_options_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--synthetic", str(tmp_path), "--data", str(tmp_path), "--out", str(tmp_path.parent / "report")]
    assert run("evaluate", [*common, "--interactive", "13"]) == 2
    assert "--interactive is 13; give 0 to 12" in capsys.readouterr().err
    assert run("evaluate", [*common, "--interactive", "3", "--only", "fidelity"]) == 2
    assert "add pictures to --only" in capsys.readouterr().err
