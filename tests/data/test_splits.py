"""Splits: by patient, deterministic, never without training, never guessing a patient."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synth.data.dataset import Case
from synth.data.splits import patients_of, split_patients
from synth.errors import ConfigError, DataError


def cases(*ids: str, patients: tuple[str | None, ...] = ()) -> list[Case]:
    """Cases with these ids and, where given, patients."""
    whose = patients or (None,) * len(ids)
    return [Case(id=name, images=(), patient=patient) for name, patient in zip(ids, whose, strict=True)]


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 40),
    crops=st.integers(1, 3),
    holdout=st.floats(0, 0.98),
    test=st.floats(0, 0.98),
    seed=st.integers(0, 99),
)
def test_patients_stay_whole_and_training_is_never_empty(
    count: int, crops: int, holdout: float, test: float, seed: int
) -> None:
    patients = {f"c{n}_{crop}": f"p{n}" for n in range(count) for crop in range(crops)}
    if holdout + test >= 1:
        with pytest.raises(ConfigError):
            split_patients(patients, holdout=holdout, test=test, seed=seed)
        return
    splits = split_patients(patients, holdout=holdout, test=test, seed=seed)
    assert splits == split_patients(dict(reversed(patients.items())), holdout=holdout, test=test, seed=seed)
    sides = {patient: {splits[case] for case in splits if patients[case] == patient} for patient in patients.values()}
    assert all(len(side) == 1 for side in sides.values())
    assert "train" in splits.values()
    if count < 3:
        assert set(splits.values()) == {"train"}


def test_seeds_give_other_splits() -> None:
    patients = {f"c{n}": f"p{n}" for n in range(30)}
    assert split_patients(patients, holdout=0.2, test=0.2, seed=0) != split_patients(
        patients, holdout=0.2, test=0.2, seed=1
    )


def test_where_patients_come_from(tmp_path: Path) -> None:
    assert patients_of(cases("a", "b"), None) == ({"a": "a", "b": "b"}, True)
    assert patients_of(cases("a", "b", patients=("p", "p")), None) == ({"a": "p", "b": "p"}, False)
    assert patients_of(cases("a", "b", patients=("p", "p")), "each") == ({"a": "a", "b": "b"}, False)
    assert patients_of(cases("s01_left", "s01_right"), r"^(s\d+)_")[0] == {"s01_left": "s01", "s01_right": "s01"}
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\na,p\nb,q\n", encoding="utf-8-sig")
    assert patients_of(cases("a", "b"), str(table)) == ({"a": "p", "b": "q"}, False)


def test_a_missing_patient_is_not_guessed() -> None:
    with pytest.raises(DataError, match="no patient for case 'b'"):
        patients_of(cases("a", "b", patients=("p", None)), None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"case,patient\na,p\n", "no patient for case 'b'"),
        (b"case,patient\na,p\nb,q\na,r\n", "two patients for case 'a'"),
        (b"\xff\xfe\x00\x81", "cannot be read as CSV"),
        (None, "does not exist"),
    ],
)
def test_bad_tables(content: bytes | None, words: str, tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    if content is not None:
        table.write_bytes(content)
    with pytest.raises(DataError, match=words):
        patients_of(cases("a", "b"), str(table))


@pytest.mark.parametrize("rule", ["(", "s01", r"^(z)", "(z?)"])
def test_bad_patterns(rule: str) -> None:
    with pytest.raises(ConfigError, match="--patients"):
        patients_of(cases("s01"), rule)
