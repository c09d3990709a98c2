"""What a stream asks of its producers: which model, whose masks, which space. Starts nothing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from synth import config
from synth.data.schema import Schema
from synth.errors import CheckpointError, ConfigError, nearest
from synth.stream.buffer import Buffer
from synth.stream.policy import Policy
from synth.stream.producer import MODEL, tell_sampling
from synth.stream.real import Real
from synth.stream.space import Space

if TYPE_CHECKING:
    from synth.generator import Generator, Sampling


@dataclass(frozen=True)
class ModelFolder:
    """A model as the producers load it, and what is known of it without its weights.

    sha256   which model it is; `written` is that of the folder, which differs where it was saved again in float32
    """

    place: str
    name: str
    sha256: str
    written: str
    schema: Schema
    makes_masks: bool
    follows_masks: bool
    sampling: "Sampling"
    device: str


def folder_of(model: "Generator | str | Path", buffer: Buffer, *, sampling: "Sampling | None") -> ModelFolder:
    """Return the folder of a model by name or path; of a Generator where in the buffer `kept` writes it.

    Errors: CheckpointError for folders that are none.
    """
    from synth.checkpoint import RECIPE, WEIGHTS, read_recipe
    from synth.generator import Generator, Sampling, bundled

    if isinstance(model, Generator):
        sha256 = model.model.sha256
        if not sha256:
            raise CheckpointError("the generator was never saved; write it with synth.save and give the folder")
        place = buffer.folder / f"{MODEL}-{sha256[:12]}"
        written = _sha256_in(place / WEIGHTS)
        recipe, device = model.model.recipe, str(model.model.image.device)
        chosen = model.sampling if sampling is None else sampling
    else:
        place = next((p for p in (Path(model), Path(model) / "model") if (p / RECIPE).is_file()), None)
        place = place or bundled().get(str(model))
        if place is None:
            raise CheckpointError(f"no model folder or bundled model {str(model)!r}; known: {', '.join(bundled())}")
        recipe, device, chosen = read_recipe(place), "cpu", sampling or Sampling()
        sha256 = written = _sha256_in(place / WEIGHTS) or _sha256_of(place)
    if recipe.schema is None:
        raise CheckpointError(f"{place} has no schema; give a folder that `synth train` made")
    follows = bool(recipe.image.conditioning.labels)
    return ModelFolder(
        str(place.resolve()),
        recipe.name,
        sha256,
        written,
        recipe.schema,
        recipe.mask is not None,
        follows,
        chosen,
        device,
    )


def kept(model: ModelFolder, given: "Generator | str | Path") -> ModelFolder:
    """Write a Generator into the claimed buffer, once, and return its folder as it is there; others are there."""
    from synth.checkpoint import RECIPE, WEIGHTS
    from synth.generator import Generator, save

    if not isinstance(given, Generator):
        return model
    if not (Path(model.place) / RECIPE).is_file():
        save(given, model.place)
    return replace(model, written=_sha256_in(Path(model.place) / WEIGHTS))


def _sha256_in(weights: Path) -> str:
    """Return the sha256 of the model that stands in its weights file; empty where there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(weights, framework="np") as file:
            return str(json.loads((file.metadata() or {}).get("synth", "{}")).get("sha256", ""))
    except (OSError, SafetensorError, ValueError):
        return ""


def _sha256_of(folder: Path) -> str:
    from synth.checkpoint import read_model

    return read_model(folder).sha256


def request_of(
    model: ModelFolder, *, policy: Policy, space: Space, masks: dict[str, Any] | None, seed: int
) -> dict[str, Any]:
    """Return what every sample of a buffer answers, as plain values."""
    return {
        "schema": 1,
        "model": {"name": model.name, "sha256": model.sha256},
        "sampling": tell_sampling(model.sampling),
        "seed": seed,
        "groups": [dict(group) for group in policy.groups(model.schema)],
        "masks": masks,
        "space": config.plain(space),
    }


def require_devices(devices: Sequence[str]) -> None:
    """Errors: ConfigError for words that are no device, and for a GPU that is not there."""
    for device in devices:
        try:
            asked = torch.device(device)
        except RuntimeError:
            raise ConfigError(f"device {device!r} is none; give cpu, cuda or cuda:i") from None
        if asked.type == "cuda":
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            if (asked.index or 0) >= count:
                there = f"it has {count} GPUs" if count else "torch sees no GPU here"
                raise ConfigError(f"device {device!r}: {there}; give devices=('cpu',)")
        elif asked.type != "cpu":
            raise ConfigError(f"device {device!r} is not one a producer runs on; give cpu, cuda or cuda:i")


def told_masks(model: ModelFolder, real: Real | None, chosen: str | None) -> dict[str, Any] | None:
    """Return how the producers open the masks to follow; None where the model makes its own. Errors: ConfigError."""
    makes, follows = model.makes_masks, model.follows_masks
    chosen = chosen or ("generated" if makes or not follows else "real")
    if chosen not in ("generated", "real"):
        raise ConfigError(f"masks is {chosen!r}; give 'generated' or 'real'")
    if chosen == "generated":
        if follows and not makes:
            raise ConfigError("this model makes no masks of its own; give masks='real' and a folder as real")
        return None
    if not follows:
        raise ConfigError("the model was trained without labels and follows no masks; give masks='generated'")
    if real is None or real.told is None:
        raise ConfigError("masks='real' needs a folder as real, which the producer can open; give one")
    return real.told


def numbers_of(model: ModelFolder, real: Real | None, given: Mapping[str, int] | None) -> Mapping[str, int]:
    """Return name -> number of the labels in the masks. Errors: ConfigError where channels or labels do not fit."""
    schema, labels = model.schema, given
    if real is not None:
        if real.channels is not None and len(real.channels) != len(schema.channels):
            raise ConfigError(
                f"real has channels {list(real.channels)}, the model makes {list(schema.channels)}; give another model"
            )
        labels = labels or real.labels
    known = labels or schema.label_values
    for name in schema.label_values:
        if name not in known:
            raise ConfigError(f"label {name!r} of the model has no number in real; {nearest(name, known)}")
    return known
