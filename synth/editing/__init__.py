"""Edits: tasks on an image that is given, beside its condition. Know denoisers and codecs; no model, loop or file."""

from synth.editing.inpaint import Edit, Inpaint, changed
from synth.editing.placing import place_label, placed_ml

__all__ = ["Edit", "Inpaint", "changed", "place_label", "placed_ml"]
