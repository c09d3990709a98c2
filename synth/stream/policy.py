"""Which condition each sample is asked with: groups of attribute levels, and how often each comes. No network, no loop.

A policy is a frozen value; what changes is a row of weights an epoch. Row e holds for the samples that first enter in
epoch e. It hears the losses of the epochs up to e - 2, since while epoch e - 1 trains, the samples of e are being made.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from synth.data.schema import Schema
from synth.errors import ConfigError, DataError, nearest
from synth.rng import numpy_rng
from synth.sample import AttributeValue
from synth.stream.schedule import shuffled

Group = Mapping[str, AttributeValue]
Row = tuple[float, ...]
MOST_GROUPS = 256
LAG = 2
"""Epochs between a loss and the first samples that it decides."""
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Every sample is asked with the same attributes, none by default."""

    attributes: Group | None = None
    kind: Literal["plain"] = "plain"

    def groups(self, schema: Schema) -> tuple[Group, ...]:
        """Return the one group. Errors: ConditionError for attributes that the model does not know; ConfigError."""
        if not isinstance(self.attributes, Mapping | None):
            raise ConfigError(f"policy.attributes is {self.attributes!r}; give name -> value")
        return (schema.check_attributes(self.attributes or {}),)


@dataclass(frozen=True, kw_only=True)
class Balanced:
    """Every combination of the levels of `by` comes equally often: each once in as many samples as there are.

    by   names of categorical attributes; None = all the model has
    """

    by: tuple[str, ...] | None = None
    kind: Literal["balanced"] = "balanced"

    def groups(self, schema: Schema) -> tuple[Group, ...]:
        """Return the combinations. Errors: ConfigError for attributes without levels, and for too many combinations."""
        return _combinations(self.by, schema)


@dataclass(frozen=True, kw_only=True)
class Hard:
    """Combinations whose samples the loop finds hard come more often; what it reports counts from the epoch after next.

    weight of group g = floor / G + (1 - floor) x m_g^power / sum_h m_h^power, m_g the mean loss reported for it, or the
    mean of all where none was; hard-example mining (Shrivastava et al. 2016), of what is asked for.

    floor   share that is dealt out evenly, so that no group dies out
    """

    by: tuple[str, ...] | None = None
    power: float = 1.0
    floor: float = 0.3
    kind: Literal["hard"] = "hard"

    def __post_init__(self) -> None:
        for name in ("floor", "power"):
            if isinstance(getattr(self, name), bool) or not isinstance(getattr(self, name), (int, float)):
                raise ConfigError(f"policy.{name} is {getattr(self, name)!r}; give a number")
        if not 0 <= self.floor <= 1:
            raise ConfigError(f"policy.floor is {self.floor}; give a share from 0 to 1")
        if not 0 <= self.power < math.inf:
            raise ConfigError(f"policy.power is {self.power}; give 0 or more")

    def groups(self, schema: Schema) -> tuple[Group, ...]:
        """Return the combinations. Errors: as `Balanced`."""
        return _combinations(self.by, schema)

    def weights(self, losses: Sequence[float], counts: Sequence[int]) -> Row:
        """Return the weights that follow from summed losses and numbers of samples by group.

        >>> Hard(floor=0.5).weights([3.0, 1.0], [1, 1])
        (0.625, 0.375)
        """
        seen = sum(counts)
        mean = sum(losses) / seen if seen else 1.0
        # a loss below 0 (a negative Dice) has no share; rounding keeps rows equal whatever the order of the sums was
        found = [max(loss / count if count else mean, 0.0) ** self.power for loss, count in zip(losses, counts)]
        whole = sum(found)
        even = 1 / len(found)
        shares = [value / whole if whole > 0 else even for value in found]
        return tuple(round(self.floor * even + (1 - self.floor) * share, 9) for share in shares)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """The groups and weights of a run before, from the policy.jsonl in its buffer; losses change nothing."""

    log: str
    kind: Literal["replay"] = "replay"

    def read(self) -> tuple[tuple[Group, ...], tuple[Row, ...]]:
        """Return groups and rows of weights by epoch. Errors: DataError with the line."""
        if not isinstance(self.log, (str, Path)):
            raise ConfigError(f"policy.log is {self.log!r}; give the policy.jsonl of a buffer folder")
        return read_log(Path(self.log))

    def groups(self, schema: Schema) -> tuple[Group, ...]:
        """Return the logged groups. Errors: DataError; ConditionError where the model does not know them."""
        return tuple(schema.check_attributes(group) for group in self.read()[0])


Policy = Plain | Balanced | Hard | Replay


def even(count: int) -> Row:
    """Return equal weights."""
    return (1 / count,) * count


def group_of(sample: int, weights: Row, *, seed: int) -> int:
    """Return the group that `sample` is asked with.

    Equal weights deal the groups out in shuffled rounds, each once; others place samples by a golden-ratio sequence
    (Kronecker's), whose counts stay nearer to the weights than those of independent draws.
    """
    count = len(weights)
    if weights == even(count):
        return shuffled(seed, "groups", sample // count, count)[sample % count]
    place = (float(numpy_rng(seed, "groups").random()) + sample * _GOLDEN) % 1.0 * sum(weights)
    below = 0.0
    for number, weight in enumerate(weights):
        below += weight
        if place < below:
            return number
    return max(number for number, weight in enumerate(weights) if weight > 0)


def write_log(groups: Sequence[Group], rows: Sequence[Row]) -> bytes:
    """Return the policy.jsonl of a run: its groups, then the weights of each epoch."""
    lines: list[object] = [{"groups": [dict(group) for group in groups]}]
    lines += [{"epoch": epoch, "weights": list(row)} for epoch, row in enumerate(rows)]
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()


def read_log(path: Path) -> tuple[tuple[Group, ...], tuple[Row, ...]]:
    """Return groups and rows of weights of a policy.jsonl. Errors: DataError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); give the policy.jsonl of a buffer folder") from error
    groups: tuple[Group, ...] = ()
    rows: list[Row] = []
    for number, line in enumerate(lines, start=1):
        try:
            read = json.loads(line)
            if number == 1:
                groups = tuple(dict(group) for group in read["groups"])
                continue
            row = tuple(float(weight) for weight in read["weights"])
            if read["epoch"] != len(rows) or len(row) != len(groups):
                raise ValueError(f"epoch {len(rows)} with {len(groups)} weights was due")
            rows.append(row)
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} line {number} is broken ({error}); copy the log again") from error
    if not groups or not rows:
        raise DataError(f"{path} names no group or no epoch; copy the log again")
    return groups, tuple(rows)


def _combinations(by: tuple[str, ...] | None, schema: Schema) -> tuple[Group, ...]:
    levels = {one.name: one.levels for one in schema.attributes if one.kind == "categorical"}
    if isinstance(by, str) or not isinstance(by, Sequence | None):
        raise ConfigError(f"policy.by is {by!r}; give names of attributes, such as ('contrast',)")
    names = tuple(levels) if by is None else by
    for name in names:
        if name not in levels:
            raise ConfigError(
                f"policy.by: {name!r} is no attribute of the model that has levels; {nearest(name, levels)}"
            )
    if not names:
        raise ConfigError("policy.by: the model has no attribute with levels; take Plain()")
    count = math.prod(len(levels[name]) for name in names)
    if count > MOST_GROUPS:
        raise ConfigError(f"policy.by makes {count} combinations; name fewer attributes, so that it is {MOST_GROUPS}")
    return tuple(dict(zip(names, chosen)) for chosen in product(*(levels[name] for name in names)))
