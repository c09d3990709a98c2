"""Evaluation: judges samples, never models. Metrics stand alone; everything is offline and on the CPU.

Of synth it knows value types, io, rng, data and formats only.
"""
