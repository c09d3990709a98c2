"""Changes of images: image in, image out, seeded. Knows no model, no dataset layout and no metric."""

from synth.augment.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupt
from synth.augment.sets import SET_CORRUPTIONS, corrupt_set

__all__ = ["CORRUPTIONS", "SET_CORRUPTIONS", "SEVERITIES", "Corruption", "corrupt", "corrupt_set"]
