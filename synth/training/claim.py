"""What a run in a folder is on: data, fold, source and recipe. A run that goes on must go on with the same.

Stages that are done, and latents that are kept, could not tell by themselves that they are of something else.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from synth import config
from synth.data.prepared import Prepared
from synth.data.seen import Seen
from synth.errors import ConfigError
from synth.recipe import Part, Recipe
from synth.training.finetune import Origin
from synth.training.state import write_json
from synth.training.team import Team

_FREE = {"fit", "sampler", "steps", "guidance", "window", "texture", "checkpoint", "text_encoder"}
"""Fields that decide no weights (how a model is sampled, how gradients are stored, where a text encoder lies beside its
sha256) or that the loop checks."""
_BEFORE: dict[str, Any] = {"training.flip": []}
"""Fields that came later, and what runs that do not say them did."""


def facts(prepared: Prepared, seen: Seen, origin: Origin | None, recipe: Recipe) -> dict[str, Any]:
    """Return what a run is on, as JSON knows it; `recipe` is a completed one."""
    own = replace(seen, source=None, unrecorded="")
    sides = ("train", "holdout")
    rows = [config.plain(case) for side in sides for case in prepared.split(side)]
    parts = {"image": recipe.image, "mask": recipe.mask}
    schema = config.plain(prepared.schema)
    if not schema["directed"]:  # as runs of before that field say it
        del schema["directed"]
    told = json.dumps(rows, sort_keys=True, default=str)
    out: dict[str, Any] = {
        "fold": prepared.fold,
        "data": hashlib.sha256(own.dump() + config.dump(schema).encode()).hexdigest(),
        "cases": hashlib.sha256(told.encode()).hexdigest(),
        "parts": {name: dict(_deciding(part)) for name, part in parts.items() if part is not None},
    }
    return out if origin is None else {**out, "source": origin.sha256, "tuned": origin.tuned(recipe)}


def claim(path: Path, now: Mapping[str, Any], team: Team) -> None:
    """Write on what a new run is; refuse another fold, data, recipe or source for a run that was begun.

    A run of before folds is of none, one of before flips flipped nothing; what else an older run does not say of its
    recipe counts as equal.
    """
    out = path.parent
    if not path.is_file():
        _require_no_older_run(out, now)
        team.wait()  # all have looked before the leader writes
        if team.leads:
            write_json(path, now)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        _ = before["fold"], before["data"]
        known = before.get("parts")
        parts = None if known is None else {**now["parts"], **known}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is broken ({error!r}); give another --out") from error
    _require_same(out, before, now)
    team.wait()
    if team.leads and parts != known:  # a part that joins the run
        write_json(path, {**before, "parts": parts})


def _require_no_older_run(out: Path, now: Mapping[str, Any]) -> None:
    if any((out / part).exists() for part in ("image", "mask")):
        if now["fold"] is not None:
            raise ConfigError(f"{out} was begun without folds; give another --out for fold {now['fold']}")
        if now.get("source") is not None:
            raise ConfigError(f"{out} was begun without --from; give another --out")
        _require_same_parts(out, {}, now["parts"])


def _require_same(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if before["fold"] != now["fold"]:
        words = ["no fold" if one is None else f"fold {one}" for one in (before["fold"], now["fold"])]
        raise ConfigError(f"{out} was begun on {words[0]}, now it is {words[1]}; give another --out")
    if before["data"] != now["data"]:
        raise ConfigError(f"{out} was begun on other data or another seed; give another --out")
    if before.get("cases", now["cases"]) != now["cases"]:
        raise ConfigError(f"{out} was begun on other masks, texts or attributes of the same images; give another --out")
    sources = [one.get("source") for one in (before, now)]
    if sources[0] != sources[1]:
        words = ["no model" if one is None else f"model {str(one)[:12]}" for one in sources]
        raise ConfigError(
            f"{out} was begun from {words[0]}, now it is from {words[1]}; give that --from or another --out"
        )
    if before.get("tuned") != now.get("tuned"):
        words = [", ".join(one) or "none" for one in (before["tuned"], now["tuned"])]
        raise ConfigError(f"{out} was begun training on the codecs {words[0]}, now {words[1]}; give another --out")
    gone = [part for part in before.get("parts", {}) if part not in now["parts"]]
    if gone:
        raise ConfigError(
            f"{out} was begun with a part {gone[0]!r}, the config has none; go on with the config it was begun with, "
            "or give another --out"
        )
    # a part that is not among those that were told joins the run
    told = before.get("parts")
    own = {name: fields for name, fields in now["parts"].items() if told is None or name in told}
    _require_same_parts(out, told or {}, own)


def _require_same_parts(out: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for part, fields in now.items():
        known = {**_BEFORE, **before.get(part, {})}
        for name, value in fields.items():
            if known.get(name, value) != value:
                raise ConfigError(
                    f"{out} was begun with {part}.{name} = {known[name]}, now it is {value}; go on with the config it "
                    "was begun with, or give another --out"
                )


def _deciding(part: Part) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) of every field of a part that decides its weights."""
    return _leaves(json.loads(json.dumps(config.plain(part))), "")


def _leaves(section: Mapping[str, Any], place: str) -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if name in _FREE:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{place}{name}.")
        else:
            yield f"{place}{name}", value
