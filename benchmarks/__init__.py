"""Measurements, side by side with peers where there are any; JSON out, with the command that made it."""
