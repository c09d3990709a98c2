"""Policies: balance in counts, changes at the ends of epochs alone, a log that replays a run."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from synth.errors import ConfigError, DataError
from synth.stream import Balanced, Hard, Plain, Replay, Stream
from synth.stream.policy import even, group_of, read_log, write_log
from tests.stream.conftest import fill, told

Make = Callable[..., Stream]


def test_balanced_groups_come_equally_often() -> None:
    for count in (2, 3, 5):
        groups = [group_of(sample, even(count), seed=4) for sample in range(20 * count)]
        for first in range(0, len(groups), count):
            assert sorted(groups[first : first + count]) == list(range(count))
    assert [group_of(n, even(3), seed=0) for n in range(30)] != [group_of(n, even(3), seed=1) for n in range(30)]


def test_counts_follow_the_weights() -> None:
    weights = (0.6, 0.3, 0.1)
    counts = Counter(group_of(sample, weights, seed=3) for sample in range(1000))
    assert all(abs(counts[group] / 1000 - weight) < 0.01 for group, weight in enumerate(weights))
    assert {group_of(sample, (0.0, 1.0, 0.0), seed=3) for sample in range(50)} == {1}


def test_hard_groups_weigh_more_and_none_dies_out() -> None:
    assert Hard(floor=0.2).weights([0.0, 8.0], [4, 4]) == (0.1, 0.9)
    assert Hard(floor=0.0, power=2.0).weights([2.0, 4.0], [2, 2]) == (0.2, 0.8)
    assert Hard(floor=0.0).weights([2.0, 0.0], [2, 0]) == (0.5, 0.5)  # unheard: the mean
    assert Hard().weights([0.0, 0.0], [2, 2]) == (0.5, 0.5)
    assert Hard(floor=0.0).weights([-3.0, 1.0], [1, 1]) == (0.0, 1.0)


def test_samples_are_asked_with_the_levels_of_their_group(make: Make, tiny: Path) -> None:
    stream = make(policy=Balanced(by=("kind",)))
    asked = fill(stream, tiny).asked
    kinds = [said["kind"] for _, said in asked]
    assert kinds.count("a") == kinds.count("b") and [seed.index for seed, _ in asked] == list(range(len(asked)))
    plain = make(policy=Plain(attributes={"kind": "b"}), buffer=stream.store.folder.parent / "plain")
    assert {said["kind"] for _, said in fill(plain, tiny).asked} == {"b"}


def _trained(stream: Stream, model: Path, epochs: int, workers: int = 0, *, heard: bool = True) -> list[list[tuple]]:
    """A loop in which kind b is hard: items by epoch."""
    out = []
    for epoch in range(epochs):
        stream.set_epoch(epoch)
        fill(stream, model)
        seen = []
        for batch in stream.loader(workers):
            seen.append(batch)
            if heard:
                stream.report(batch["group"], [5.0 if group == 1 else 0.1 for group in batch["group"]])
        out.append(told(seen))
    return out


def test_losses_act_after_the_next_epoch_and_only_at_ends(make: Make, tiny: Path) -> None:
    stream = make(policy=Hard(floor=0.2), reuse=1, depth=4, batch=8)
    items = _trained(stream, tiny, 5)
    rows = read_log(stream.store.folder / "policy.jsonl")[1]
    assert rows[0] == rows[1] == (0.5, 0.5) and all(row[1] > 0.8 for row in rows[2:])
    share = [[group for _, _, group, synthetic, _ in epoch if synthetic].count(1) / 24 for epoch in items]
    # the window of the first pass of an epoch may stem from the one before
    assert share[0] == share[1] == 0.5 and all(value > 0.7 for value in share[2:])
    for group, name in {(int(name[10:13]), name) for name in stream.store.have()}:
        assert stream.weights.group(int(name[:8]), stream.plan) == group


def test_a_logged_run_is_replayed_without_losses(make: Make, tiny: Path, tmp_path: Path) -> None:
    first = make(policy=Hard(), reuse=1, depth=2)
    items = _trained(first, tiny, 4)
    log = tmp_path / "log.jsonl"
    log.write_bytes((first.store.folder / "policy.jsonl").read_bytes())
    again = make(policy=Replay(log=str(log)), reuse=1, depth=2, buffer=tmp_path / "again")
    assert _trained(again, tiny, 4, heard=False) == items
    assert (again.store.folder / "policy.jsonl").read_bytes() == log.read_bytes()
    with pytest.raises(ConfigError, match="the log to replay ends at epoch 4"):
        again.set_epoch(4)


def test_workers_follow_a_policy_that_changes(make: Make, tiny: Path, tmp_path: Path) -> None:
    alone = _trained(make(policy=Hard(), reuse=1, depth=2), tiny, 4)
    stream = make(policy=Hard(), reuse=1, depth=2, buffer=tmp_path / "two")
    loader, out = stream.loader(2), []
    for epoch in range(4):
        stream.set_epoch(epoch)
        fill(stream, tiny)
        seen = []
        for batch in loader:  # the same workers live through all epochs
            seen.append(batch)
            stream.report(batch["group"], [5.0 if group == 1 else 0.1 for group in batch["group"]])
        out.append(told(seen))
    assert out == alone


def test_a_stopped_run_keeps_its_losses(make: Make, tiny: Path, tmp_path: Path) -> None:
    whole = _trained(make(policy=Hard(), reuse=1, depth=2), tiny, 4)
    stream = make(policy=Hard(), reuse=1, depth=2, buffer=tmp_path / "cut")
    _trained(stream, tiny, 1)
    stream.set_epoch(1)
    fill(stream, tiny)
    for step, batch in enumerate(stream.loader(), start=1):
        stream.report(batch["group"], [5.0 if group == 1 else 0.1 for group in batch["group"]])
        if step == 3:
            break
    state = stream.state_dict()
    again = make(policy=Hard(), reuse=1, depth=2, buffer=tmp_path / "cut")
    again.load_state_dict(state)
    seen = []
    for epoch in range(1, 4):
        again.set_epoch(epoch)
        fill(again, tiny)
        batches = []
        for batch in again.loader():
            batches.append(batch)
            again.report(batch["group"], [5.0 if group == 1 else 0.1 for group in batch["group"]])
        seen.append(told(batches))
    assert seen == [whole[1][3 * 4 :], whole[2], whole[3]]


def test_wrong_reports_and_logs_are_one_line(make: Make, tmp_path: Path) -> None:
    stream = make(policy=Hard())
    with pytest.raises(ConfigError, match="1 losses were reported for 2 items"):
        stream.report([0, 1], [0.5])
    with pytest.raises(ConfigError, match="loss nan was reported"):
        stream.report([0, 1], [0.5, float("nan")])
    log = tmp_path / "log.jsonl"
    log.write_bytes(write_log(({"kind": "a"},), [(1.0,)]) + b'{"epoch": 3, "weights": [1.0]}\n')
    with pytest.raises(DataError, match=r"log.jsonl line 3 is broken \(epoch 1 with 1 weights was due\)"):
        make(policy=Replay(log=str(log)), buffer=tmp_path / "b")
    with pytest.raises(ConfigError, match="policy.floor is 2"):
        Hard(floor=2.0)
