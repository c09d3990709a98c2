"""Simulators whose truth is known: the brain cohort of the demo. Know no model and no file but their templates."""

from synth.simulate.brain import BRAIN_LABELS, CONTRASTS, Subject, simulate_brain

__all__ = ["BRAIN_LABELS", "CONTRASTS", "Subject", "simulate_brain"]
