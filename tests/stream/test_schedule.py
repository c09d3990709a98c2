"""Ratios, passes and break-even against brute force and closed forms."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.errors import ConfigError
from synth.stream.schedule import Constant, Cosine, Linear, Plan, Ratio, break_even

RATIOS = st.one_of(
    st.floats(0, 1).map(Constant),
    st.builds(Linear, st.floats(0, 1), st.floats(0, 1), st.integers(1, 40)),
    st.builds(Cosine, st.floats(0, 1), st.floats(0, 1), st.integers(1, 40)),
)


def share(ratio: Ratio, step: int) -> float:
    """The share at one step, as its name says it."""
    if isinstance(ratio, Constant):
        return ratio.ratio
    done = min(step / ratio.steps, 1.0)
    risen = done if isinstance(ratio, Linear) else (1 - math.cos(math.pi * done)) / 2
    return ratio.start + (ratio.end - ratio.start) * risen


@given(RATIOS, st.integers(0, 80))
def test_totals_are_sums_of_shares(ratio: Ratio, steps: int) -> None:
    assert ratio.total(steps) == pytest.approx(sum(share(ratio, step) for step in range(steps)), abs=1e-9)


@given(RATIOS, st.integers(1, 9), st.integers(0, 30))
def test_steps_hold_what_the_ratio_says(ratio: Ratio, batch: int, step: int) -> None:
    plan = Plan(ratio=ratio, reuse=2, depth=4, batch=batch, epoch_steps=5, seed=1)
    items = plan.items(step)
    made = [item.number for item in items if item.synthetic]
    real = [item.number for item in items if not item.synthetic]
    assert len(items) == batch and len(made) == plan.drawn(step + 1) - plan.drawn(step)
    assert made == list(range(plan.drawn(step), plan.drawn(step + 1)))
    assert real == list(range(step * batch - plan.drawn(step), (step + 1) * batch - plan.drawn(step + 1)))


def test_decimal_shares_count_as_they_are_written() -> None:
    for tenths in range(11):
        plan = Plan(ratio=Constant(tenths / 10), reuse=1, depth=1, batch=10, epoch_steps=1)
        assert [plan.drawn(step) for step in range(1000)] == [tenths * step for step in range(1000)]


@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 5))
def test_each_sample_is_shown_exactly_reuse_times(reuse: int, fresh: int, seed: int) -> None:
    plan = Plan(ratio=Constant(1.0), reuse=reuse, depth=reuse * fresh, batch=1, epoch_steps=1, seed=seed)
    passes = reuse + 4
    shown = Counter(plan.sample(draw) for draw in range(passes * plan.depth))
    assert all(shown[sample] == reuse for sample in range(plan.depth, (passes - reuse + 1) * fresh))
    assert all(shown[sample] == min(sample // fresh + 1, reuse) for sample in range(plan.depth))
    for draw in range(passes * plan.depth):
        assert plan.sample(draw) in plan.window(draw)


@given(RATIOS, st.integers(1, 4), st.integers(1, 3), st.integers(0, 60))
def test_a_sample_belongs_to_the_epoch_that_first_shows_its_window(
    ratio: Ratio, reuse: int, fresh: int, sample: int
) -> None:
    plan = Plan(ratio=ratio, reuse=reuse, depth=reuse * fresh, batch=3, epoch_steps=4)
    found = plan.epoch_of(sample)
    for epoch in range(12):
        draws = range(plan.drawn(epoch * 4), plan.drawn(epoch * 4 + 4))
        if any(sample in plan.window(draw) for draw in draws):
            assert found == epoch
            return
    assert (
        found == -1 or found >= 12 or not any(sample in plan.window(draw) for draw in range(plan.drawn(found * 4 + 4)))
    )


def test_what_steps_need_is_what_they_show() -> None:
    plan = Plan(ratio=Constant(0.4), reuse=3, depth=6, batch=5, epoch_steps=10)
    for first, last in ((0, 1), (3, 9), (20, 40)):
        draws = range(plan.drawn(first), plan.drawn(last))
        needed = plan.needed(first, last)
        assert {plan.sample(draw) for draw in draws} <= set(needed)
        assert needed.start == plan.window(draws[0]).start and needed.stop == plan.window(draws[-1]).stop
    assert not Plan(ratio=Constant(0.0), reuse=3, depth=6, batch=5, epoch_steps=10).needed(0, 1000)


def test_break_even_is_where_sampling_takes_a_step() -> None:
    for sample_s, step_s, per_step, producers in ((3.0, 0.25, 0.6, 1), (10.0, 0.1, 1.0, 4), (0.5, 2.0, 8.0, 1)):
        reuse = break_even(sample_s, step_s, per_step, producers=producers)
        assert per_step / reuse * sample_s / producers == pytest.approx(step_s) or reuse == 1.0
    assert break_even(0.01, 1.0, 1.0) == 1.0
    for wrong in ((0.0, 1.0, 1.0), (1.0, math.inf, 1.0), (1.0, 1.0, -1.0)):
        with pytest.raises(ConfigError):
            break_even(*wrong)
