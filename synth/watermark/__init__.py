"""An invisible mark in the voxels of images, found again with its key and an exact p-value.

Knows volumes and keys; no model, no layout and no set. How it works, what it withstands and what it does not promise:
docs/watermark.md.
"""

from synth.watermark.detecting import Detector, Verdict, decoy_keys, detect, p_value, pooled_p
from synth.watermark.keys import Key
from synth.watermark.marking import embed, peaks

__all__ = ["Detector", "Key", "Verdict", "decoy_keys", "detect", "embed", "p_value", "peaks", "pooled_p"]
