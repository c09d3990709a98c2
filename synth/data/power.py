"""What prepared data can decide, before anything is trained: counts, detectable effects, and what would mend them."""

from collections.abc import Sequence
from math import ceil

from synth.data.prepared import Prepared, PreparedCase, Split

WANTED = 0.05
"""The Dice gain and the share of copies that one would want to see."""
_SPREAD, _POWER = 0.1, 2.8
_LEAST_TEST, _LEAST_HOLDOUT, _LEAST_PATIENTS = 2, 4, 3
_SIDES: tuple[Split, ...] = ("train", "holdout", "test")


def what_it_can_show(prepared: Prepared) -> Sequence[tuple[str, str]]:
    """Return (figure, value) of what this data can decide, in words; counts first, folds in between.

    Dice gain: 2.8 SD / sqrt(n) with SD 0.1 over n test patients (80 % power, paired, two-sided 5 %); copies: the
    share whose absence in n samples a one-sided 95 % bound excludes, 3 / n, over n hold-out patients.
    """
    count = {side: patients(prepared.split(side)) for side in _SIDES}
    rows = [(f"patients (cases), {side}", _count(prepared.split(side))) for side in _SIDES]
    for number in range(len(prepared.folds)):
        view = prepared.at_fold(number)
        value = ", ".join(f"{side} {_count(view.split(side))}" for side in ("train", "holdout", "val"))
        rows.append((f"fold {number}", value))
    return [
        *rows,
        ("smallest detectable Dice gain", _dice_gain(count["test"], sum(count.values()))),
        ("smallest detectable copy share", _copy_share(count["holdout"], sum(count.values()))),
    ]


def patients(cases: Sequence[PreparedCase]) -> int:
    """Return of how many patients the cases are."""
    return len({case.patient for case in cases})


def _count(cases: Sequence[PreparedCase]) -> str:
    return f"{patients(cases)} ({len(cases)})"


def _dice_gain(test: int, everyone: int) -> str:
    if test < _LEAST_TEST:
        return f"undecidable: {_too_few(test, _LEAST_TEST, everyone, 'test')}"
    value = f"{_POWER * _SPREAD / test**0.5:.3f}"
    more = ceil((_POWER * _SPREAD / WANTED) ** 2) - test
    return f"{value}; needs {more} more test patients for {WANTED:g}" if more > 0 else value


def _copy_share(held: int, everyone: int) -> str:
    if held < _LEAST_HOLDOUT:
        return f"undecidable: {_too_few(held, _LEAST_HOLDOUT, everyone, 'hold-out')}"
    value = f"{3.0 / held:.3f}"
    more = ceil(3.0 / WANTED) - held
    return f"{value}; needs {more} more hold-out patients for a share of {100 * WANTED:g} %" if more > 0 else value


def _too_few(there: int, least: int, everyone: int, side: str) -> str:
    if everyone < _LEAST_PATIENTS:
        whose = "one patient only" if everyone == 1 else "two patients only"
        what = "utility" if side == "test" else "privacy"
        return f"{whose}, so that {what} cannot be judged; add patients, {_LEAST_PATIENTS} at least"
    more = least - there
    return f"{there} {side} patient{'' if there == 1 else 's'}; needs {more} more"
