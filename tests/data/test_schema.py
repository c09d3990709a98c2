"""Schema: attributes are inferred, and what a model never saw is refused with the nearest name."""

import pytest

from synth.data.schema import Attribute, Schema, infer_attributes, of_one_patient
from synth.errors import ConditionError

ROWS = [
    ("p0", {"contrast": "T1", "age": 30}),
    ("p1", {"contrast": "FLAIR", "age": 70.5}),
    ("p2", {"age": 40}),
    ("p3", {"contrast": "FLAIR"}),
    ("p4", {"contrast": "T1"}),
]


def schema() -> Schema:
    return Schema(
        population="test",
        channels=("MR",),
        labels=(),
        attributes=infer_attributes(ROWS),
        grid=(4, 4),
        spacing_mm=(1.0, 1.0),
        affine=(1.0,) * 16,
    )


def test_kinds_levels_and_ranges() -> None:
    assert infer_attributes(ROWS) == (
        Attribute(name="contrast", kind="categorical", levels=("FLAIR", "T1")),
        Attribute(name="age", kind="number", low=30.0, high=70.5),
    )
    assert infer_attributes([]) == () and infer_attributes([("p", {})]) == ()


def test_codes_of_diagnoses_are_no_numbers() -> None:
    """ICD-10 has E10 to E14, which only look like exponents."""
    codes = infer_attributes((f"p{n}", {"icd": ("E10", "E11", ".E5")[n % 3]}) for n in range(6))
    assert codes == (Attribute(name="icd", kind="categorical", levels=(".E5", "E10", "E11")),)


def test_what_names_a_patient_is_none_of_the_models() -> None:
    """Two of a name, two scans of each: a column of names is known by most of its levels."""
    names = ["Smith", "Smith", "Jones", "Brown", "Gray", "Hall", "Webb", "Cole"]
    said = [
        (f"p{n}", {"name": name, "site": "rare" if n == 7 else "ab"[n % 2], "date": f"2020-01-{10 + n}{scan}"})
        for n, name in enumerate(names)
        for scan in range(2)
    ]
    assert infer_attributes(said) == (Attribute(name="site", kind="categorical", levels=("a", "b")),)
    assert of_one_patient(said)["site"] == {"rare"} and of_one_patient(said)["name"] == set(names)


def test_few_patients_keep_their_levels() -> None:
    """With three, next to every level is one patient's."""
    said = [(f"p{n}", {"contrast": ("T1", "T2", "FLAIR")[n]}) for n in range(3)]
    assert infer_attributes(said)[0].levels == ("FLAIR", "T1", "T2")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"contrst": "T1"}, "did you mean 'contrast'"),
        ({"contrast": "FLAR"}, "did you mean 'FLAIR'"),
        ({"age": 99}, "30.0 to 70.5"),
        ({"age": float("nan")}, "30.0 to 70.5"),
        ({"age": "old"}, "not a number"),
    ],
)
def test_what_was_not_seen_is_refused(asked: dict[str, str | float], words: str) -> None:
    with pytest.raises(ConditionError, match=words):
        schema().check_attributes(asked)


def test_what_was_seen_is_taken() -> None:
    assert schema().check_attributes({"contrast": "T1", "age": "41"}) == {"contrast": "T1", "age": 41.0}
    assert schema().check_attributes({}) == {}


def test_levels_without_training_cases_are_left_out() -> None:
    assert schema().seen_attributes({"contrast": "PD", "age": 95}) == {"age": 95}
