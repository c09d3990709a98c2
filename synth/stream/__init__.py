"""A sampler inside training: real and synthetic pairs in one dataset, samples made beside the loop into a disk buffer.

`Stream` is torch's IterableDataset; schedules, policies and `break_even` are plain values. See docs/stream.md.
"""

from synth.stream.dataset import Stream
from synth.stream.loader import Loader
from synth.stream.policy import Balanced, Hard, Plain, Replay
from synth.stream.schedule import Constant, Cosine, Linear, break_even

__all__ = ["Balanced", "Constant", "Cosine", "Hard", "Linear", "Loader", "Plain", "Replay", "Stream", "break_even"]
