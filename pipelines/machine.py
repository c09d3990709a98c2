"""What people say of time, and what this machine has: durations parsed and printed, memory."""

import os
import re

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def seconds(text: str, option: str) -> float:
    """Return the seconds of a duration such as 90s, 20m, 2h or 1h30m. Errors: ConfigError naming `option`.

    >>> seconds("1h30m", "--budget")
    5400.0
    """
    from synth.errors import ConfigError

    parts = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    found = parts.groups() if parts else (None, None, None)
    total = sum(float(value) * _UNITS[unit] for value, unit in zip(found, "hms", strict=True) if value is not None)
    if not 0 < total < 3600 * 24 * 365:
        raise ConfigError(f"{option} is {text!r}; write a duration such as 20m, 2h or 1h30m")
    return total


def in_words(duration_s: float) -> str:
    """Return a duration as people say it.

    >>> in_words(40), in_words(1500), in_words(9000)
    ('40 s', '25 min', '2.5 h')
    """
    if duration_s < 90:
        return f"{duration_s:.0f} s"
    return f"{duration_s / 60:.0f} min" if duration_s < 5400 else f"{duration_s / 3600:.1f} h"


def memory_gb() -> float:
    """Return the machine's memory in GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
