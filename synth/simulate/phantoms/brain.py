"""The brain cohort's subjects in several channels."""

import numpy as np

from synth.simulate.brain import simulate_brain
from synth.simulate.phantoms.parts import Pair


def brain_two_channels(seed: int) -> Pair:
    """Return the simulated subject of `seed` as T1 and FLAIR in one image of two channels."""
    subjects = [simulate_brain(seed, contrast=contrast) for contrast in ("T1", "FLAIR")]
    image = np.concatenate([subject.image.data for subject in subjects])
    return Pair(subjects[0].image.replace(data=image), subjects[0].mask)
