"""Where a stream stands, as the plain values of its state_dict: written, and read back only where they can be its own.

Knows no buffer, no loader and no process.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from synth.errors import ConfigError
from synth.stream.options import whole
from synth.stream.policy import LAG, Row

_SUM = 1e-6
_MEND = "give what state_dict of this very stream returned"


class State(NamedTuple):
    """Epoch and step that come next, the policy's rows by epoch, and the losses heard in this one."""

    epoch: int
    step: int
    rows: list[Row]
    losses: list[int]
    counts: list[int]

    def told(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as plain values, with what identifies the stream.

        >>> State(0, 2, [(1.0,), (1.0,)], [0], [0]).told({"seed": 3})["plan"]
        {'seed': 3}
        """
        return {"plan": dict(plan), **self._asdict(), "rows": [list(row) for row in self.rows]}


def read_state(state: Any, plan: Mapping[str, Any], *, steps: int, groups: int) -> State:
    """Return the state that plain values tell of; nothing is changed where they are refused.

    plan     what identifies the stream that goes on
    steps    of an epoch
    groups   of the policy
    Errors: ConfigError for the state of another stream, and for one that is cut short or in another form.

    >>> plain = State(0, 2, [(1.0,), (1.0,)], [0], [0]).told({"seed": 3})
    >>> read_state(plain, {"seed": 3}, steps=5, groups=1).step
    2
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("plan"), Mapping):
        raise ConfigError(f"this is no state of a stream (no plan in it); {_MEND}")
    for name in sorted({*plan, *state["plan"]}, key=str):
        if name not in state["plan"]:
            raise ConfigError(f"the state is cut short: its plan has no {name}; {_MEND}")
        found, own = state["plan"][name], plan.get(name)
        if type(found) is not type(own) or found != own:
            raise ConfigError(
                f"the state is of a stream with {name} = {_said(found)}, this one has {_said(own)}; make them equal"
            )
    for name in State._fields:
        if name not in state:
            raise ConfigError(f"the state is cut short: it has no {name}; {_MEND}")
    epoch = whole("epoch of the state", state["epoch"], least=0)
    step = whole("step of the state", state["step"], least=0)
    if step > steps:
        raise ConfigError(f"step of the state is {step}, an epoch has {steps}; {_MEND}")
    rows = [_row(row, f"rows[{number}]", groups) for number, row in enumerate(_listed(state["rows"], "rows"))]
    if len(rows) != epoch + LAG:
        raise ConfigError(f"the state has {len(rows)} rows of weights, epoch {epoch} needs {epoch + LAG}; {_MEND}")
    return State(epoch, step, rows, _sums(state, "losses", groups), _sums(state, "counts", groups, least=0))


def _row(row: Any, name: str, groups: int) -> Row:
    found = tuple(_listed(row, name))
    numbers = all(type(one) in (int, float) and 0 <= one < math.inf for one in found)  # refuses nan too
    if len(found) != groups or not numbers or abs(sum(found) - 1) > _SUM:
        raise ConfigError(f"{name} of the state is {_said(row)}, not {groups} weights whose sum is 1; {_MEND}")
    return tuple(map(float, found))


def _sums(state: Mapping[str, Any], name: str, groups: int, least: int | None = None) -> list[int]:
    found = list(_listed(state[name], name))
    good = all(type(one) is int and (least is None or one >= least) for one in found)
    if len(found) != groups or not good:
        raise ConfigError(f"{name} of the state is {_said(state[name])}, not {groups} whole numbers; {_MEND}")
    return found


def _listed(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{name} of the state is {_said(value)}, not a list; {_MEND}")
    return value


def _said(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
