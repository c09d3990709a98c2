"""What people say of time, and what this machine has: durations parsed and printed, memory."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_LIMITS = ("memory.max", "memory.limit_in_bytes")


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


def device_of(text: str, option: str = "--device") -> "torch.device":
    """Return the device that auto, cpu, cuda or cuda:i means here: auto is the first GPU, the CPU where there is none.

    Errors: ConfigError for other words and for a GPU that is not there.
    """
    import torch

    from synth.errors import ConfigError

    parts = re.fullmatch(r"auto|cpu|cuda(?::(\d{1,3}))?", text)
    if parts is None:
        raise ConfigError(f"{option} is {text!r}; give auto, cpu, cuda or cuda:i")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "cpu" or (text == "auto" and not count):
        return torch.device("cpu")
    index = int(parts[1] or 0)
    if index >= count:
        there = f"it has {count} GPUs" if count else "torch sees no GPU here"
        raise ConfigError(f"{option} is {text!r}, {there}; give auto or cpu")
    return torch.device("cuda", index)


def full_float32(device: str) -> None:
    """Have a GPU convolve in float32, as CPUs do.

    TF32, which torch lets cuDNN take, keeps 10 bits: samples would be 1e-3 from those of other machines, not 1e-4.
    """
    import torch

    if device.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False


def memory_gb(device: "torch.device | None" = None) -> float:
    """Return the memory in GB of a GPU, else what this process may use: the machine's, or its control group's limit."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.get_device_properties(device).total_memory / 1e9
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *group_limits(_GROUPS, _OWN_GROUPS)]) / 1e9


def group_limits(groups: Path, own: Path) -> list[int]:
    """Return the memory limits in bytes of the control groups (v2 and v1) that a process is in; empty without any.

    groups   where they are mounted, /sys/fs/cgroup; a container sees its own group there
    own      the process's groups, one `number:controllers:path` a line; every group above limits it too
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    places = [groups, groups / "memory"]
    for line in lines:
        _, controllers, path = (line + "::").split(":")[:3]
        root = groups / "memory" if "memory" in controllers.split(",") else groups
        parts = Path(path.strip("/")).parts
        places += [root.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1) if ".." not in parts]
    found: list[int] = []
    for path in dict.fromkeys(place / name for place in places for name in _LIMITS):
        try:
            found.append(int(path.read_text()))  # "max" is no limit
        except (OSError, ValueError):
            continue
    return [limit for limit in found if limit > 0]
