"""What a report says of a set that a judge chose, and of the tests that chose it."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.acceptance import Tally, note_selection
from synth.errors import DataError


class _Report:
    """What `note_selection` writes into."""

    def __init__(self, segmenter: str) -> None:
        from evaluation.report import Verdict

        self.fingerprint = {"judge": segmenter}
        self.notes: list[str] = []
        self.verdicts = {name: Verdict(True, "good") for name in ("alignment", "artefact", "privacy.images", "control")}


def test_a_set_is_chosen_where_any_judge_looked_for_near_copies() -> None:
    """Whether or not that rejected anything; a released row, which says no p-values, may have been."""

    def chosen(*p_values: Any) -> str:
        told = {"judge": "j", "segmenter": "s", "rejected": {}}
        more = [{} if p is None else {"p_values": p} for p in p_values]
        rows = [{"case": f"c{i}", "attempt": 0, "acceptance": {**told, **one}} for i, one in enumerate(more)]
        return Tally([*rows, {"case": "b", "attempt": 0}]).chosen

    assert chosen() == chosen({"artefact": 0.5}) == ""
    for one in (chosen({"near_copy": 0.9}), chosen({"artefact": 0.5}, {"near_copy": 0.9}), chosen(None)):
        assert one == "the set was chosen by a near-copy test; audit a set made without --accept of the same model"


@pytest.mark.parametrize(
    ("segmenter", "rejected", "marked"),
    [
        ("s", {"agreement": 2}, {"alignment"}),
        ("other", {"agreement": 2}, set()),
        ("s", {"artefact": 1, "near_copy": 1}, {"artefact"}),
        ("s", {}, set()),
    ],
)
def test_verdicts_on_tests_that_chose_the_set_say_so(
    segmenter: str, rejected: dict[str, int], marked: set[str]
) -> None:
    report: Any = _Report(segmenter)
    told = {"judge": "j" * 64, "segmenter": "s", "rejected": rejected}
    note_selection(report, Tally([{"case": "a", "attempt": 2, "acceptance": told}, {"case": "b", "attempt": 0}]))
    assert {name for name, one in report.verdicts.items() if "optimistic" in one.why} == marked
    assert len(report.notes) == 1 and report.notes[0].startswith(
        "1 of 2 samples were accepted by judge jjjjjjjjjjjjjjjj"
    )
    plain: Any = _Report(segmenter)
    note_selection(plain, Tally([{"case": "b", "attempt": 0}]))
    assert plain.notes == []
    with pytest.raises(DataError, match="case c says in another form"):
        Tally([{"case": "c", "attempt": 0, "acceptance": {"judge": 3}}])


@pytest.mark.parametrize(
    ("tests", "told", "chosen"),
    [
        (["artefact"], "judge jjjjjjjjjjjjjjjj: 3 tries", ""),
        (["agreement", "near_copy"], "jjjj, which holds the segmenter of this report: 3 tries", "near-copy"),
    ],
)
def test_the_note_names_the_tests_that_counted(tests: list[str], told: str, chosen: str) -> None:
    """Also of a released set, whose rows say no p-values."""
    report: Any = _Report("s")
    row = {"judge": "j" * 64, "segmenter": "s", "tests": tests, "rejected": {tests[0]: 2}}
    tally = Tally([{"case": "a", "attempt": 2, "acceptance": row}])
    note_selection(report, tally)
    (note,) = report.notes
    words = {
        "artefact": "artefact gate",
        "agreement": "agreement",
        "near_copy": "nearest training volume by correlation",
    }
    assert told in note and f"what its tests ({', '.join(words[test] for test in tests)}) say" in note
    assert tally.chosen.startswith("the set was chosen by a near-copy test") == bool(chosen)


def test_a_judge_says_whom_its_near_copy_test_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a fine-tuned model it knows the last training cases, not those of the source."""
    from pipelines.acceptance import say_judge
    from synth.data.seen import Seen

    def told(seen: Seen | None, *tests: str) -> str:
        judge: Any = SimpleNamespace(without={}, references=dict.fromkeys(tests), cases={"training": ("a", "b")})
        say_judge(judge, "folder", SimpleNamespace(seen=seen))  # pyright: ignore[reportArgumentType]
        return capsys.readouterr().err

    own = Seen(salt="s", training=())
    tuned = own.after(Seen(salt="t", training=("x", "y", "z")), "first")
    assert told(own, "near_copy") == told(tuned, "artefact") == ""
    said = told(tuned, "artefact", "near_copy")
    assert "looked for among 2 training cases, and not among 3 cases" in said and said.count("\n") == 1
    assert "does not record whom it was trained on" in told(None, "near_copy")
