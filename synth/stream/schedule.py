"""Which items of a stream are synthetic, and which sample each shows: whole-number functions of the step. No files.

A step is what the training loop calls one, over all its processes. Nothing here depends on workers, ranks or time, so
a stream that goes on from step s is the one that was never stopped.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from synth.errors import ConfigError
from synth.rng import numpy_rng

_HAIR = 1e-9
"""Shares such as 0.3 are not exact in binary: 10 x 0.3 must count as 3."""


def _require_share(name: str, value: float) -> None:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not plain or not 0 <= value <= 1:  # refuses nan too
        raise ConfigError(f"{name} is {value!r}; give a share of synthetic items from 0 to 1")


@dataclass(frozen=True)
class Constant:
    """The same share of synthetic items at every step."""

    ratio: float
    kind: Literal["constant"] = "constant"

    def __post_init__(self) -> None:
        _require_share("ratio", self.ratio)

    def total(self, steps: int) -> float:
        """Return the sum of the shares of the first `steps` steps."""
        return self.ratio * steps


@dataclass(frozen=True)
class Linear:
    """A share that goes from `start` to `end` in equal parts over `steps` steps, and stays there.

    >>> [round(Linear(0.0, 1.0, 4).total(n), 3) for n in (0, 1, 2, 4, 6)]
    [0.0, 0.0, 0.25, 1.5, 3.5]
    """

    start: float
    end: float
    steps: int
    kind: Literal["linear"] = "linear"

    def __post_init__(self) -> None:
        _require_span(self)

    def total(self, steps: int) -> float:
        """Return the sum of the shares of the first `steps` steps: n a + (b - a) n (n - 1) / 2N while n <= N."""
        moving = min(steps, self.steps)
        risen = (self.end - self.start) * moving * (moving - 1) / (2 * self.steps)
        return self.start * moving + risen + self.end * (steps - moving)


@dataclass(frozen=True)
class Cosine:
    """A share that goes from `start` to `end` over `steps` steps along half a cosine, and stays there.

    >>> [round(Cosine(0.0, 1.0, 4).total(n), 3) for n in (0, 1, 2, 4, 6)]
    [0.0, 0.0, 0.146, 1.5, 3.5]
    """

    start: float
    end: float
    steps: int
    kind: Literal["cosine"] = "cosine"

    def __post_init__(self) -> None:
        _require_span(self)

    def total(self, steps: int) -> float:
        """Return the sum of the shares of the first `steps` steps.

        sum_(j < n) cos(j w) = sin(n w / 2) cos((n - 1) w / 2) / sin(w / 2), w = pi / N (Lagrange's identity).
        """
        moving = min(steps, self.steps)
        half = math.pi / self.steps / 2
        cosines = math.sin(moving * half) * math.cos((moving - 1) * half) / math.sin(half)
        risen = (self.end - self.start) * (moving - cosines) / 2
        return self.start * moving + risen + self.end * (steps - moving)


def _require_span(schedule: Linear | Cosine) -> None:
    _require_share("ratio.start", schedule.start)
    _require_share("ratio.end", schedule.end)
    if isinstance(schedule.steps, bool) or not isinstance(schedule.steps, int) or schedule.steps < 1:
        raise ConfigError(f"ratio.steps is {schedule.steps!r}; give a whole number, at least 1")


Ratio = Constant | Linear | Cosine


def as_ratio(given: "float | Ratio") -> Ratio:
    """Return the schedule of a number. Errors: ConfigError for what is neither."""
    if isinstance(given, (Constant, Linear, Cosine)):
        return given
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise ConfigError(f"ratio is {given!r}; give a number from 0 to 1, Constant, Linear or Cosine")
    return Constant(float(given))


class Draw(NamedTuple):
    """What one item shows: the `number`-th draw among the synthetic or among the real ones."""

    synthetic: bool
    number: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Items by step, samples by draw.

    batch         items of one step, of all processes together
    epoch_steps   steps of one epoch
    reuse         how often a sample is shown; infinity keeps the first `depth` for ever
    depth         samples shown side by side, a multiple of `reuse`

    Draws come in passes of `depth`: each shows every sample of the window once, in a shuffled order. After a pass the
    window moves by depth / reuse samples. Each sample is shown exactly `reuse` times, of the first `depth` some less.
    """

    ratio: Ratio
    reuse: float
    depth: int
    batch: int
    epoch_steps: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "epoch_steps", "depth"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} is {value!r}; give a whole number, at least 1")
        if self.reuse == math.inf:
            return
        if not (self.reuse >= 1 and self.reuse == int(self.reuse)):
            raise ConfigError(f"reuse is {self.reuse}; give a whole number from 1, or math.inf for a frozen buffer")
        if self.depth % int(self.reuse):
            raise ConfigError(f"depth is {self.depth}, reuse {self.reuse:g}; give a depth that is a multiple of it")

    @property
    def fresh(self) -> int:
        """Samples that a pass brings in."""
        return 0 if self.reuse == math.inf else self.depth // int(self.reuse)

    def drawn(self, step: int) -> int:
        """Return how many synthetic items all steps before `step` hold together."""
        return math.floor(self.batch * self.ratio.total(step) + _HAIR * (1 + step))

    def items(self, step: int) -> tuple[Draw, ...]:
        """Return what each item of a step shows, in order; which are synthetic is shuffled by (seed, step)."""
        before = self.drawn(step)
        count = self.drawn(step + 1) - before
        places = set(numpy_rng(self.seed, "places", step).permutation(self.batch)[:count].tolist())
        out: list[Draw] = []
        made, real = before, step * self.batch - before
        for place in range(self.batch):
            if place in places:
                out.append(Draw(True, made))
                made += 1
            else:
                out.append(Draw(False, real))
                real += 1
        return tuple(out)

    def window(self, draw: int) -> range:
        """Return the samples that are shown side by side when synthetic draw number `draw` is made."""
        first = draw // self.depth * self.fresh
        return range(first, first + self.depth)

    def sample(self, draw: int) -> int:
        """Return which sample synthetic draw number `draw` shows."""
        order = shuffled(self.seed, "pass", draw // self.depth, self.depth)
        return self.window(draw).start + order[draw % self.depth]

    def needed(self, first_step: int, last_step: int) -> range:
        """Return the samples that the steps from `first_step` to before `last_step` may show; none without draws."""
        first, last = self.drawn(first_step), self.drawn(last_step)
        return range(self.window(first).start, self.window(last - 1).stop) if last > first else range(0)

    def epoch_of(self, sample: int) -> int:
        """Return the epoch in which `sample` first stands in the window; -1 where it never does."""
        if sample < self.depth:
            draw = 0
        elif not self.fresh:
            return -1
        else:
            draw = -(-(sample - self.depth + 1) // self.fresh) * self.depth
        low, high = 0, 1
        while self.drawn(high * self.epoch_steps) <= draw:
            low, high = high, high * 2
            if high * self.epoch_steps > 1 << 40:
                return -1
        while low < high:  # the first epoch whose end lies beyond the draw
            middle = (low + high) // 2
            if self.drawn((middle + 1) * self.epoch_steps) > draw:
                high = middle
            else:
                low = middle + 1
        return low


@lru_cache(maxsize=256)
def shuffled(seed: int, name: str, number: int, count: int) -> tuple[int, ...]:
    """Return the `number`-th shuffled order of `count` things."""
    return tuple(numpy_rng(seed, name, number).permutation(count).tolist())


def taken_in_turn(seed: int, name: str, draw: int, count: int) -> int:
    """Return which of `count` things draw number `draw` takes: each once in a pass, every pass in another order."""
    return shuffled(seed, name, draw // count, count)[draw % count]


def break_even(sample_s: float, step_s: float, per_step: float, *, producers: int = 1) -> float:
    """Return the least reuse at which `producers` keep up with the training.

    R = per_step x sample_s / (producers x step_s)

    per_step   synthetic items a step, ratio x batch. A step then asks for per_step / R new samples, which take
               per_step x sample_s / (R x producers) seconds: no more than a step. At least 1, since no sample is
               shown less than once.
    Errors: ConfigError for seconds that are not above 0.

    >>> round(break_even(3.0, 0.25, 0.6), 3)
    7.2
    """
    for name, value in (("sample_s", sample_s), ("step_s", step_s), ("producers", producers)):
        if not 0 < value < math.inf:
            raise ConfigError(f"{name} is {value}; give a number above 0")
    if not 0 <= per_step < math.inf:
        raise ConfigError(f"per_step is {per_step}; give 0 or more synthetic items a step")
    return max(1.0, per_step * sample_s / (producers * step_s))
