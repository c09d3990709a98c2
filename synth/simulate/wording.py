"""A sentence that says what a simulated subject shows, worded in several ways."""

from collections.abc import Mapping

import numpy as np

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_WITHOUT = ("{contrast} brain MR without lesions", "normal {contrast} brain scan, no lesion", "{contrast}, no lesions")
_WITH = (
    "{contrast} brain MR with {count} {strength} {noun}, {burden} lesion burden",
    "{contrast}: {count} {strength} white matter {noun}, {burden} burden",
    "brain {contrast} scan showing {count} {noun} of {strength} contrast and {burden} total volume",
    "{contrast}, {count} {strength} {noun}, lesion burden {burden}",
)


def burden(volume_ml: float) -> str:
    """Return the word for a total lesion volume: small below 1.5 ml, large above 5 ml."""
    return "small" if volume_ml < 1.5 else "medium" if volume_ml <= 5.0 else "large"


def sentence(attributes: Mapping[str, str | float | int], rng: np.random.Generator) -> str:
    """Return one sentence stating contrast, count, strength and burden."""
    count = int(attributes["lesion_count"])
    forms = _WITH if count else _WITHOUT
    return forms[int(rng.integers(len(forms)))].format(
        contrast=attributes["contrast"],
        count=_NUMBERS[count] if count < len(_NUMBERS) else str(count),
        strength=attributes["lesion_contrast"],
        noun="lesion" if count == 1 else "lesions",
        burden=burden(float(attributes["lesion_volume_ml"])),
    )
