"""Errors a user can mend. Each message is one line: what is wrong, where, and what to do.

Anything raised from here ends a command with exit code 2 and no traceback; any other
exception is a fault of ours (exit code 1).
"""

import difflib
import math
from collections.abc import Iterable


class SynthError(ValueError):
    """Input the user can correct; the message says what, where and the mend.

    unnamed   the same without names of patients or cases, for what may leave the house; by default the message
    """

    def __init__(self, message: str = "", *, unnamed: str = "") -> None:
        super().__init__(message)
        self.unnamed = unnamed or message


class ConfigError(SynthError):
    """A recipe, plan or option that does not fit its schema."""


class GeometryError(SynthError):
    """Grids, affines or spacings that do not belong together."""


class DataError(SynthError):
    """A file or dataset that cannot be read or breaks its format."""


class ConditionError(SynthError):
    """A label, attribute or text that the model was not trained on."""


class CheckpointError(SynthError):
    """A model folder or training state that is missing, damaged or of another shape."""


class OutputError(SynthError):
    """A result that cannot be written, or would overwrite another."""


class Interrupted(Exception):  # noqa: N818 - an event, not an error
    """SIGINT, SIGTERM or SIGUSR1 arrived; work is checkpointed and can be resumed (exit code 130)."""


def require_least(section: object, names: Iterable[str], least: float = 1, *, place: str) -> None:
    """Raise ConfigError for the first field of `section` that is below `least` or not finite; `place` is put before it.

    A field of several numbers is held to it in each.
    """
    for name in names:
        value = getattr(section, name)
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(number) and number >= least for number in numbers):
            said = list(value) if isinstance(value, tuple) else value
            raise ConfigError(f"{place}{name} is {said}; give {'0 or more' if not least else f'at least {least:g}'}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest known spelling, or lists what there is.

    >>> nearest("shfit", ["shift", "steps"])
    "did you mean 'shift'?"
    >>> nearest("zzz", ["shift", "steps"])
    'known: shift, steps'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"
