"""A cohort is a seed: subject number i of cohort S is the same whatever the count, order or workers."""

import numpy as np

from synth.rng import sequence
from synth.simulate.brain import CONTRASTS, Subject, simulate_brain

COHORT_VERSION = 2
"""Raised whenever a subject's voxels or words change, so that no cohort mixes two simulators."""


def subject_seed(cohort_seed: int, index: int) -> int:
    """Return the seed of subject `index` of the cohort."""
    return int(sequence(cohort_seed, "subject", index).generate_state(1, np.uint64)[0])


def cohort_subject(cohort_seed: int, index: int) -> Subject:
    """Return subject `index`; contrasts take turns, so that any run of three has one of each."""
    return simulate_brain(subject_seed(cohort_seed, index), contrast=CONTRASTS[index % len(CONTRASTS)])
