"""How text is cut into words: as ever in Latin letters, and not at all lost in others."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import synth
from synth import config
from synth.conditioning import words
from synth.recipe import Recipe

BEFORE = re.compile(r"[a-z]+\d*|\d+(?:\.\d+)?")
"""What models were trained with before other scripts were read."""
BRAIN = Path(synth.__file__).parent / "assets" / "brain-tiny" / "recipe.yaml"


@given(st.text(st.characters(max_codepoint=0x24F) | st.sampled_from("–…’•→≥℃₂ﬁạ")))
def test_latin_texts_are_read_as_before(text: str) -> None:
    assert words(text) == BEFORE.findall(text.lower())


def test_the_vocabulary_of_the_bundled_model_stays() -> None:
    recipe = config.load(Recipe, BRAIN)
    known = recipe.image.conditioning.vocabulary
    assert known and [words(word) for word in known] == [[word] for word in known]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Μία μεγάλη βλάβη, 3.5 ml", ["μία", "μεγάλη", "βλάβη", "3.5", "ml"]),
        ("Очаг в T2", ["очаг", "в", "t2"]),
        ("左肺结节 5mm", ["左", "肺", "结", "节", "5", "mm"]),
        ("뇌 병변", ["뇌", "병변"]),
    ],
)
def test_other_scripts_have_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected
