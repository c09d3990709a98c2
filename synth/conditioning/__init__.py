"""Conditioning: what people ask for, turned into ports. The only place that knows "null" and drop-out.

A new kind of condition is one encoder here into an existing port. Knows no network beyond its own
encoders, no schedule and no file.
"""

from synth.conditioning.config import GROUPS, ConditioningConfig, words

__all__ = ["GROUPS", "ConditioningConfig", "words"]
