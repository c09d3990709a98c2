"""Schema: attributes are inferred, and what a model never saw is refused with the nearest name."""

import pytest

from synth.data.schema import Attribute, Schema, infer_attributes
from synth.errors import ConditionError

ROWS = [{"contrast": "T1", "age": 30}, {"contrast": "FLAIR", "age": 70.5}, {"age": 40}]


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
    assert infer_attributes([]) == () and infer_attributes([{}]) == ()


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
