"""Samples made again until a judge finds no reason to reject them, what that took, and what it means for later figures.

Knows records and manifests; the generator and the judge are handed in.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.acceptance import Acceptance
    from evaluation.report import Report
    from synth.generator import Generator, Seed
    from synth.model import Model
    from synth.sample import Condition, Sample

TRIES, MOST_TRIES = 5, 1000
HOPELESS = 8
"""Where none of so many first samples of a shard was accepted within its tries, the run ends: something is to mend."""
REJECTED = 3
_SHOWN = 8
_TESTS = {
    "agreement": "agreement",
    "artefact": "artefact gate",
    "near_copy": "nearest training volume by correlation",
}
Reasons = Sequence[Sequence[str]]
"""Why each attempt of a sample was rejected, in order."""


def judge_for(folder: str, tests: Sequence[str], model: "Model") -> "Acceptance":
    """Return the judge of a folder with `tests` alone, all of its own where none is named.

    Errors: CheckpointError; ConfigError where it is none for what `model` makes, or has not such a test.
    """
    from evaluation.acceptance import Acceptance

    judge = Acceptance.load(folder)
    if tests:
        judge = judge.counting(tests, name=folder)
    assert model.recipe.schema is not None
    judge.require(model.recipe.schema, model.seen, name=folder)
    return judge


def say_judge(judge: "Acceptance", folder: str, model: "Model") -> None:
    """Tell standard error what the judge does not test, and what it has to take as claimed."""
    import sys

    from pipelines.origins import not_searched

    for test, why in judge.without.items():
        print(f"judge {folder} has no test of {test}: {why}", file=sys.stderr)
    if "near_copy" not in judge.references:
        return
    known = judge.cases["training"]
    if model.seen is None:
        told = "the model does not record whom it was trained on: near copies are looked for among the judge's"
        print(f"{told} {len(known)} training cases", file=sys.stderr)
    elif told := not_searched(model.seen, known, ()):
        print(f"judge {folder}: {told}", file=sys.stderr)


def first_accepted(
    generator: "Generator", ask: "Condition", seed: "Seed", *, judge: "Acceptance", tries: int, record: Path
) -> "tuple[Sample | None, dict[str, Any]]":
    """Return the first accepted sample of `tries` attempts and what its row says of that; None where none was.

    Attempts that were all rejected are kept beside where the sample's `record` would lie, and are not made again.
    """
    from evaluation.acceptance import Found

    before = rejected_before(record)
    if len(before) >= tries:
        return None, {}
    found: list[Found] = []

    def look(sample: "Sample") -> tuple[str, ...]:
        assert sample.mask is not None, "checked before: only pairs are generated"
        found.append(judge.measure(sample.image, sample.mask))
        return found[-1].reasons

    first = seed._replace(attempt=len(before))
    tried = generator.accepted(ask, seed=first, judge=look, tries=tries - len(before))
    rejected = [*before, *tried.rejected]
    if tried.sample is None:
        _keep(record, rejected)
        return None, {}
    told: dict[str, Any] = {
        "judge": judge.sha256,
        "segmenter": judge.segmenter_sha256,
        "tests": list(judge.tests),
        "rejected": counted(rejected),
        "agreement": found[-1].agreement,
        "p_values": dict(found[-1].p_values),
    }
    return tried.sample, {"acceptance": told}


def rejected_path(record: Path) -> Path:
    """Return where the attempts of a sample that were all rejected are kept."""
    return record.with_suffix(".rejected")


def rejected_before(record: Path) -> list[list[str]]:
    """Return why each attempt so far was rejected; none where nothing, or nothing whole, was kept."""
    try:
        kept = json.loads(rejected_path(record).read_text(encoding="utf-8"))
        return [[str(reason) for reason in reasons] for reasons in kept]
    except (OSError, ValueError, TypeError):
        return []


def _keep(record: Path, rejected: Reasons) -> None:
    from synth.io import write_bytes

    write_bytes(rejected_path(record), json.dumps([list(reasons) for reasons in rejected]).encode())


def counted(rejected: Reasons) -> dict[str, int]:
    """Return how many attempts were rejected for each reason; one may have several.

    >>> counted([["artefact"], ["agreement", "artefact"]])
    {'agreement': 1, 'artefact': 2}
    """
    return dict(sorted(Counter(reason for reasons in rejected for reason in reasons).items()))


def in_words(counts: Mapping[str, int]) -> str:
    """Return counts by reason in words.

    >>> in_words({"agreement": 2, "near_copy": 1})
    'agreement 2, near copy 1'
    """
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(counts.items()))


def exhausted(out: Path, indices: Iterable[int]) -> dict[int, list[list[str]]]:
    """Return, of the samples that have no record, why each of their attempts was rejected."""
    from pipelines.records import record_path

    paths = ((index, record_path(out, index)) for index in indices)
    kept = {index: rejected_before(path) for index, path in paths if not path.is_file()}
    return {index: rejected for index, rejected in kept.items() if rejected}


def say_exhausted(found: Mapping[int, Reasons], *, judge: str, early: bool) -> int:
    """Tell standard error which samples used up their tries, and return the exit code: judged and failed."""
    import sys

    from pipelines.records import case_name

    counts = counted([reasons for rejected in found.values() for reasons in rejected])
    tries = sum(map(len, found.values()))
    names = ", ".join(case_name(index) for index in sorted(found)[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    ended = f"; the run ends, since no sample was accepted of the first {len(found)}" if early else ""
    print(
        f"{names}{more}: judge {judge} rejected every try, {tries} in all (by reason: {in_words(counts)}){ended}; "
        "what was accepted stays: give more --accept-tries to go on, or mend the model or the ask",
        file=sys.stderr,
    )
    return REJECTED


class Tally:
    """What accepting a set took, summed over the rows of its samples that were accepted by a judge.

    judges, segmenters   their sha256; rows, samples, tries   how many; rejected   tries by reason
    tests                those that chose any of the samples; all of them where a row of before does not say
    Errors: DataError for a row that says it in another form.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        from synth.errors import DataError

        self.judges: set[str] = set()
        self.segmenters: set[str] = set()
        self.tests: set[str] = set()
        self.rows = self.samples = self.tries = 0
        self.rejected: Counter[str] = Counter()
        for row in rows:
            self.rows += 1
            if row.get("acceptance") is None:
                continue
            try:
                told = row["acceptance"]
                self.judges.add(str(told["judge"]))
                self.segmenters.add(str(told["segmenter"]))
                self.rejected.update({str(name): int(count) for name, count in told["rejected"].items()})
                self.samples += 1
                self.tries += int(row["attempt"]) + 1
                self.tests.update(map(str, told.get("tests", told.get("p_values", _TESTS))))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise DataError(
                    f"manifest.jsonl: case {row.get('case')} says in another form how it was accepted ({error!r}); "
                    "generate the set again"
                ) from error

    @property
    def chosen(self) -> str:
        """Why copies in the set are not like planted ones, see `Evidence.chosen`; empty where none was looked for."""
        if "near_copy" not in self.tests:
            return ""
        return "the set was chosen by a near-copy test; audit a set made without --accept of the same model"

    def words(self) -> str:
        """Return how many tries it took, and why the others were rejected."""
        if not self.tries - self.samples:
            return f"{self.tries} tries, none rejected"
        return f"{self.tries} tries, {self.tries - self.samples} rejected ({in_words(self.rejected)})"


def note_selection(report: "Report", tally: Tally) -> None:
    """Say in a report that a set was chosen by a judge, and of the verdicts that rest on its tests that they are not
    independent of it.
    """
    from dataclasses import replace

    if not tally.samples:
        return
    same = report.fingerprint.get("judge") in tally.segmenters - {""}
    whose = ", which holds the segmenter of this report" if same else ", with another segmenter than this report's"
    whose = whose if "agreement" in tally.tests else ""
    judges = ", ".join(sorted(judge[:16] for judge in tally.judges))
    tests = ", ".join(words for test, words in _TESTS.items() if test in tally.tests)
    report.notes.append(
        f"{tally.samples} of {tally.rows} samples were accepted by judge {judges}{whose}: {tally.words()}; what its "
        f"tests ({tests}) say of the set is optimistic, since they chose it"
    )
    chosen = "the set was chosen by this test, so that this is optimistic"
    for name, test in (("alignment", "agreement"), ("artefact", "artefact")):
        if tally.rejected[test] and name in report.verdicts and (same or name != "alignment"):
            told = report.verdicts[name]
            report.verdicts[name] = replace(told, why=f"{told.why}; {chosen}")
