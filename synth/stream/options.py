"""What a Stream may be asked with: every option held to its kind and range before anything is opened or written.

Reads no file. What only the model or the data can tell (axes, labels, attributes) is asked where those are known.
"""

import math
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.errors import ConfigError, nearest
from synth.stream.policy import Balanced, Hard, Plain, Replay

if TYPE_CHECKING:
    from synth.stream.dataset import Stream

POLICIES = {one.__name__: one for one in (Plain, Balanced, Hard, Replay)}


def settle(stream: "Stream") -> None:
    """Put the options into the form that the stream keeps: lists as tuples, whole numbers as int, spacings as float.

    Errors: ConfigError for the first that is of another kind or out of range.
    """
    from synth.generator import Generator

    if not isinstance(stream.generator, (Generator, str, Path)) or not str(stream.generator):
        raise ConfigError(f"generator is {_said(stream.generator)}; give a Generator, a model folder or a model's name")
    if not isinstance(stream.buffer, (str, Path)) or not str(stream.buffer):
        raise ConfigError(f"buffer is {_said(stream.buffer)}; give a folder")
    stream.seed = whole("seed", stream.seed, least=0)
    stream.batch = whole("batch", stream.batch)
    for name in ("epoch_steps", "depth"):
        value = getattr(stream, name)
        setattr(stream, name, None if value is None else whole(name, value))
    reuse = number("reuse", stream.reuse, mend="give a whole number from 1, or math.inf for a frozen buffer")
    if not (reuse == math.inf or (reuse >= 1 and reuse == int(reuse))):
        raise ConfigError(f"reuse is {stream.reuse}; give a whole number from 1, or math.inf for a frozen buffer")
    if not 0 <= number("foreground", stream.foreground, mend="give a share from 0 to 1") <= 1:
        raise ConfigError(f"foreground is {stream.foreground}; give a share from 0 to 1")
    if stream.size is not None:
        stream.size = each("size", stream.size, whole, mend="give voxels along each axis, such as (48, 48, 48)")
    if stream.spacing is not None:
        stream.spacing = each("spacing", stream.spacing, _positive, mend="give mm along each axis, such as (1, 1, 2)")
    _settle_processes(stream)
    _require_policy(stream.policy)
    _require_labels(stream.labels)
    if stream.transform is not None and not callable(stream.transform):
        raise ConfigError(f"transform is {_said(stream.transform)}; give what is called on each item")
    _require_sampling(stream.sampling)


def require_axes(stream: "Stream", axes: int) -> None:
    """Errors: ConfigError where size or spacing have another number of axes than the model's volumes."""
    for name, value in (("size", stream.size), ("spacing", stream.spacing)):
        if value is not None and len(value) != axes:
            raise ConfigError(f"{name} is {value}, the model's volumes have {axes} axes; give one number each")


def whole(name: str, value: Any, *, least: int = 1) -> int:
    """Return a whole number of at least `least`; numpy's count too. Errors: ConfigError.

    >>> whole("batch", 4)
    4
    """
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least:
        raise ConfigError(f"{name} is {_said(value)}; give a whole number, at least {least}")
    return found


def number(name: str, value: Any, *, mend: str) -> float:
    """Return a number that is one. Errors: ConfigError for text, truth values and NaN."""
    try:
        found = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if math.isnan(found):
        raise ConfigError(f"{name} is {_said(value)}; {mend}")
    return found


def each(name: str, value: Any, kind: Callable[[str, Any], Any], *, mend: str) -> tuple[Any, ...]:
    """Return a tuple of what `kind` makes of each part of a list, tuple or array. Errors: ConfigError."""
    if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__len__") or not len(value):
        raise ConfigError(f"{name} is {_said(value)}; {mend}")
    return tuple(kind(f"{name}[{place}]", part) for place, part in enumerate(value))


def _positive(name: str, value: Any) -> float:
    found = number(name, value, mend="give mm above 0")
    if not 0 < found < math.inf:
        raise ConfigError(f"{name} is {_said(value)}; give mm above 0")
    return found


def _settle_processes(stream: "Stream") -> None:
    """Check devices, and which share of ranks and producers this process is."""
    if stream.devices is not None:
        if isinstance(stream.devices, str) or not isinstance(stream.devices, (tuple, list)) or not stream.devices:
            raise ConfigError(f"devices is {_said(stream.devices)}; give some, such as ('cpu',) or ('cuda:1',)")
        if strange := next((one for one in stream.devices if not isinstance(one, str)), None):
            raise ConfigError(f"device {_said(strange)} is none; give cpu, cuda or cuda:i")
        stream.devices = tuple(stream.devices)
    if stream.rank is not None:
        stream.rank = _share("rank", stream.rank, "give (rank, number of ranks)")
    if stream.produce is not None and not isinstance(stream.produce, bool):
        stream.produce = _share("produce", stream.produce, "give True, False, or (k, K): the k-th of K shares")


def _share(name: str, value: Any, mend: str) -> tuple[int, int]:
    try:
        place, count = each(name, value, lambda part, one: whole(part, one, least=0), mend=mend)
    except ValueError:
        raise ConfigError(f"{name} is {_said(value)}; {mend}") from None
    if not place < count:
        raise ConfigError(f"{name} is {_said(value)}; {mend}")
    return place, count


def _require_policy(policy: Any) -> None:
    if isinstance(policy, tuple(POLICIES.values())):
        return
    given = policy if isinstance(policy, str) else getattr(policy, "__name__", "")
    hint = nearest(given[:1].upper() + given[1:], POLICIES)
    raise ConfigError(f"policy is {_said(policy)}; give one of synth.stream, such as Balanced() ({hint})")


def _require_labels(labels: Any) -> None:
    if labels is None:
        return
    if not isinstance(labels, Mapping) or not labels:
        raise ConfigError(f"labels is {_said(labels)}; give name -> number, such as {{'lesion': 1}}")
    for name, value in labels.items():
        if not isinstance(name, str):
            raise ConfigError(f"labels names {_said(name)}; give names as text")
        if whole(f"labels[{name!r}]", value, least=0) >= 1 << 31:
            raise ConfigError(f"labels[{name!r}] is {value}; give numbers below 2^31")


def _require_sampling(sampling: Any) -> None:
    from synth.generator import Sampling

    if sampling is None:
        return
    if not isinstance(sampling, Sampling):
        raise ConfigError(f"sampling is {_said(sampling)}; give a synth.Sampling")
    if sampling.steps is not None:
        whole("sampling.steps", sampling.steps)
    scales = sampling.guidance if isinstance(sampling.guidance, Mapping) else {"": sampling.guidance}
    for name, scale in scales.items():
        what = f"sampling.guidance[{name!r}]" if name else "sampling.guidance"
        if scale is not None and not 0 <= number(what, scale, mend="give 0 or more") < math.inf:
            raise ConfigError(f"{what} is {scale}; give 0 or more")


def _said(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
