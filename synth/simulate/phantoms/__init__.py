"""Labelled phantoms of other shapes than the brain cohort, in right units: CT, MR of two channels, cardiac MR in thick
slices, chest X-ray, retina in colour.

They stand in for real data where only shape, unit and plumbing matter; no anatomist would take them for patients.
"""

from synth.simulate.phantoms.abdomen import CT_LABELS, ORGAN_LABELS, abdomen_ct, abdomen_organs_ct
from synth.simulate.phantoms.brain import brain_two_channels
from synth.simulate.phantoms.chest import CHEST_LABELS, chest_xray
from synth.simulate.phantoms.heart import CARDIAC_LABELS, cardiac_mr
from synth.simulate.phantoms.parts import Pair
from synth.simulate.phantoms.retina import RETINA_LABELS, retina

__all__ = [
    "CARDIAC_LABELS",
    "CHEST_LABELS",
    "CT_LABELS",
    "ORGAN_LABELS",
    "RETINA_LABELS",
    "Pair",
    "abdomen_ct",
    "abdomen_organs_ct",
    "brain_two_channels",
    "cardiac_mr",
    "chest_xray",
    "retina",
]
