"""Noise laws. One time convention for all: t = 0 is data, larger t is noisier; grids are float64 and end at 0.

A process is a frozen value: it knows noise, and neither networks, steps' count, guidance nor files.
The union of the types here is the registry; `kind` tells them apart in a recipe.
"""

from synth.process.base import Estimate, GaussianProcess, Process
from synth.process.edm import EDM
from synth.process.rectified_flow import RectifiedFlow
from synth.process.variance_preserving import VariancePreserving

ProcessConfig = RectifiedFlow | VariancePreserving | EDM

__all__ = ["EDM", "Estimate", "GaussianProcess", "Process", "ProcessConfig", "RectifiedFlow", "VariancePreserving"]
