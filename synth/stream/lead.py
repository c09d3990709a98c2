"""What a stream's main process does beside reading: claims the buffer, starts producers, says what is wanted, and keeps
the weights of the policy. DataLoader workers do none of it.
"""

import hashlib
import json
import math
import os
import subprocess
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from synth.errors import ConfigError
from synth.stream.ask import ModelFolder
from synth.stream.buffer import POLICY, Buffer, Wanted, publish
from synth.stream.policy import LAG, Group, Hard, Policy, Replay, Row, even, group_of, write_log
from synth.stream.producer import Work, launch
from synth.stream.schedule import Plan

_FIXED = 1 << 20
"""Losses are summed as whole multiples of 2^-20, so that no order of ranks changes a sum."""
_END_S = 5.0


@dataclass(eq=False)
class Producers:
    """The producer processes that this process began; they end with `close`, with their stream, or with the process."""

    buffer: Buffer
    model: ModelFolder
    devices: tuple[str, ...]
    share: tuple[int, int] = (0, 1)
    children: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        """Start one process a device; those that run are left alone, those that ended are started again."""
        if self.children and all(child.poll() is None for child in self.children):
            return
        self.close()
        first, every = self.share[0] * len(self.devices), self.share[1] * len(self.devices)
        for number, device in enumerate(self.devices):
            part = first + number
            work = Work(self.model.place, self.model.written, device, part, every)
            self.children.append(launch(self.buffer, work))
        weakref.finalize(self, _end, os.getpid(), self.children)

    def close(self) -> None:
        """End the processes; what they made stays."""
        _end(os.getpid(), self.children)
        self.children = []


def _end(owner: int, children: "list[subprocess.Popen[bytes]]") -> None:
    """End children, unless this is a forked copy of the process that owns them."""
    if os.getpid() != owner:
        return
    for child in children:
        if child.poll() is None:
            child.terminate()
    until = time.monotonic() + _END_S
    for child in children:
        try:
            child.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@dataclass(eq=False)
class Weights:
    """The policy's rows by epoch, and the losses of the epoch that runs."""

    policy: Policy
    groups: tuple[Group, ...]
    rows: list[Row] = field(default_factory=list)
    losses: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clear()
        self.logged = self.policy.read()[1] if isinstance(self.policy, Replay) else ()
        if not self.rows:
            self.extend(LAG - 1)

    def clear(self) -> None:
        """Forget the losses of an epoch."""
        self.losses, self.counts = [0] * len(self.groups), [0] * len(self.groups)

    @property
    def changing(self) -> bool:
        """Whether rows may differ."""
        return isinstance(self.policy, (Hard, Replay))

    def hear(self, groups: Sequence[int], losses: Sequence[float]) -> None:
        """Add losses of items; real ones, whose group is -1, are left out. Errors: ConfigError."""
        if len(groups) != len(losses):
            raise ConfigError(f"{len(losses)} losses were reported for {len(groups)} items; give one for each item")
        for group, loss in zip(groups, losses):
            if group < 0:
                continue
            if not math.isfinite(loss):
                raise ConfigError(f"loss {loss} was reported; leave out what is not finite")
            self.losses[group] += round(loss * _FIXED)
            self.counts[group] += 1

    def turn(self, epoch: int) -> None:
        """Go over to `epoch`: what was heard in the epoch before decides the samples that enter in the next.

        With torch.distributed, losses are summed over all processes, so each must come here.
        """
        if isinstance(self.policy, Hard):
            losses, counts = self.totals()
            if sum(counts) and len(self.rows) == epoch + 1:
                self.rows.append(self.policy.weights([loss / _FIXED for loss in losses], counts))
        self.clear()
        del self.rows[epoch + LAG :]
        self.extend(epoch + 1)

    def extend(self, last: int) -> None:
        """Add rows up to epoch `last`: the log's, else the last one again."""
        while len(self.rows) <= last:
            if self.logged:
                if len(self.rows) >= len(self.logged):
                    raise ConfigError(
                        f"the log to replay ends at epoch {len(self.logged) - 1}; give one of a longer run"
                    )
                self.rows.append(self.logged[len(self.rows)])
            else:
                self.rows.append(self.rows[-1] if self.rows else even(len(self.groups)))

    def totals(self) -> tuple[list[int], list[int]]:
        """Return losses and counts summed over all processes of the training."""
        from torch import distributed

        if not isinstance(self.policy, Hard) or not (
            distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        ):
            return list(self.losses), list(self.counts)
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        both = torch.tensor([self.losses, self.counts], dtype=torch.int64, device=device)
        distributed.all_reduce(both)
        losses, counts = both.cpu().tolist()
        return losses, counts

    @property
    def version(self) -> int:
        """A number that tells these rows from others."""
        return int.from_bytes(hashlib.sha256(json.dumps(self.rows).encode()).digest()[:7], "little")

    def group(self, sample: int, plan: Plan) -> int:
        """Return the group of a sample, by the weights of the epoch in which it enters."""
        epoch = plan.epoch_of(sample) if self.changing else 0
        return group_of(sample, self.rows[min(max(epoch, 0), len(self.rows) - 1)], seed=plan.seed)


def say_wanted(buffer: Buffer, plan: Plan, weights: Weights, *, since: int, until: int) -> Wanted:
    """Write which samples the steps from `since` to before `until` need, and the log of weights; return the former."""
    needed = plan.needed(since, until)
    wanted = Wanted(needed.start, tuple(weights.group(n, plan) for n in needed), weights.version)
    if weights.changing or not (buffer.folder / POLICY).is_file():
        publish(buffer.folder / POLICY, write_log(weights.groups, weights.rows))
    buffer.want(wanted)
    return wanted


def wait_until_there(buffer: Buffer, wanted: Wanted, count: int, told: Callable[[int, int], object] | None) -> None:
    """Return once the first `count` wanted samples are there; `told(done, count)` hears of each. Errors: SynthError."""
    for number, group in enumerate(wanted.groups[:count]):
        buffer.wait_for(wanted.first + number, group)
        if told is not None:
            told(number + 1, min(count, len(wanted.groups)))
