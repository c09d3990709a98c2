"""The gate of a report: verdicts -> exit code and the list of samples to drop; and what a report on disk says of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.report import Report

IMAGES, WEIGHTS, AFTER = "privacy.images", "privacy.weights", "privacy.images_after_drop"
DROP_FILE = "drop.txt"
FAILED, UNDECIDABLE = 3, 4


def sections(only: Sequence[str]) -> tuple[str, ...]:
    """Return the names of sections asked for, each once, commas and repeats allowed; none where nothing is asked.

    Errors: ConfigError for names that no section has, and where something is asked and nothing named.

    >>> sections(["fidelity,privacy", "privacy"])
    ('fidelity', 'privacy')
    """
    from evaluation.sections import SECTIONS
    from synth.errors import ConfigError, nearest

    names = tuple(dict.fromkeys(name.strip() for one in only for name in one.split(",")))
    for name in names:
        if name not in SECTIONS:
            raise ConfigError(f"--only: no section of a report is called {name!r}; {nearest(name, SECTIONS)}")
    return names


def pass_gate(report: "Report", out: Path, *, weights: bool) -> int:
    """Write drop.txt, say what to do, and return the exit code: 0 passed, 3 failed, 4 undecidable.

    weights   the model is given away too, so that its verdict counts
    """
    from synth.io import write_bytes

    flagged = [str(row["case"]) for row in report.samples if row["flagged"]]
    write_bytes(out / DROP_FILE, "".join(f"{case}\n" for case in flagged).encode())
    asked = [IMAGES, WEIGHTS] if weights else [IMAGES]
    oks = [report.verdicts[name].ok for name in asked]
    code = FAILED if False in oks else UNDECIDABLE if None in oks else 0
    if flagged:
        print(f"{len(flagged)} samples to drop are listed in {out / DROP_FILE}")
    after = report.verdicts.get(AFTER)
    if code == FAILED and after is not None and after.ok:
        print("without them the rest passes: `synth release` leaves them out")
    print(f"gate: {'passed' if code == 0 else 'failed' if code == FAILED else 'undecidable'}")
    return code


def release_code(content: Mapping[str, Any]) -> int:
    """Return 0 where a report's content lets samples go (all, or those that are not flagged), else 3 or 4.

    Errors: KeyError where it has no verdict on the images.
    """
    ok = content["verdicts"][IMAGES]["ok"]
    after = content["verdicts"].get(AFTER, {}).get("ok")
    if ok is True or (ok is False and after is True):
        return 0
    return UNDECIDABLE if ok is None else FAILED
