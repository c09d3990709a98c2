"""Model folders: recipe.yaml + weights.safetensors + README.md, and patients.json where it is known whom the model
saw (salted hashes). No pickle, no silent mismatch.

The sha256 of a model is over its tensors (name, dtype, shape, bytes, in name order) and its recipe.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from synth import config
from synth.conditioning.pretrained import require
from synth.data.seen import SEEN_FILE, read_seen
from synth.errors import CheckpointError, nearest
from synth.model import Model, build
from synth.recipe import Recipe

RECIPE, WEIGHTS, CARD = "recipe.yaml", "weights.safetensors", "README.md"


def fingerprint(tensors: dict[str, Tensor], recipe: str) -> str:
    """Return the sha256 over tensors and recipe text."""
    digest = hashlib.sha256(recipe.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensors_of(model: Model, *, half: bool = False) -> dict[str, Tensor]:
    """Return every tensor by dotted name; `half` stores matrices as float16 (vectors and statistics stay float32)."""
    named = {f"{name}.{key}": t for name, part in model.parts().items() for key, t in part.tensors().items()}
    if not half:
        return {key: t.detach().contiguous() for key, t in named.items()}
    return {key: (t.half() if t.ndim > 1 and t.is_floating_point() else t).contiguous() for key, t in named.items()}


def write_model(model: Model, folder: str | Path, *, card: str, half: bool = False) -> str:
    """Write the folder atomically (an older one is replaced) and return the model's sha256."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    text = config.dump(model.recipe)
    tensors = tensors_of(model, half=half)
    sha256 = fingerprint(tensors, text)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    (partial / RECIPE).write_text(text)
    (partial / WEIGHTS).write_bytes(save(tensors, metadata={"synth": json.dumps({"sha256": sha256}, sort_keys=True)}))
    (partial / CARD).write_text(card)
    if model.seen is not None:
        (partial / SEEN_FILE).write_bytes(model.seen.of_model(sha256).dump())
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old)
    else:
        os.replace(partial, folder)
    return sha256


def read_recipe(folder: str | Path) -> Recipe:
    """Return the recipe of a model folder."""
    path = Path(folder) / RECIPE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is not a model folder: {RECIPE} is missing; give a folder that `synth train` made"
        )
    return config.load(Recipe, path)


def read_model(folder: str | Path) -> Model:
    """Return the model of a folder, float32, ready to sample; every missing, extra or misshapen tensor is an error."""
    folder = Path(folder)
    recipe = read_recipe(folder)
    for part in (recipe.image, recipe.mask):
        if part is not None and part.conditioning.text_encoder is not None:
            require(part.conditioning.text_encoder, part.conditioning.text_sha256)
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}; copy the whole model folder")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}); copy the model folder again") from error
    model = build(recipe)
    expected = {
        (name, part_name, key)
        for name, part in model.parts().items()
        for part_name, module in part.modules().items()
        for key in module.state_dict()
    }
    names = {".".join(parts) for parts in expected}
    for name in sorted(names - set(tensors)):
        raise CheckpointError(f"{path}: tensor {name} is missing; weights and {RECIPE} are not of one model")
    for name in sorted(set(tensors) - names):
        raise CheckpointError(f"{path}: tensor {name} is not in this recipe; {nearest(name, names)}")
    for name, part in model.parts().items():
        for part_name, module in part.modules().items():
            prefix = f"{name}.{part_name}."
            own = module.state_dict()
            given = {key: tensors[prefix + key] for key in own}
            for key, tensor in given.items():
                if tensor.shape != own[key].shape:
                    raise CheckpointError(
                        f"{path}: tensor {prefix}{key} has shape {tuple(tensor.shape)}, "
                        f"the recipe asks for {tuple(own[key].shape)}; weights and {RECIPE} are not of one model"
                    )
            module.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in given.items()})
    sha256 = fingerprint(tensors, (folder / RECIPE).read_text())
    seen = read_seen(folder)
    return Model(recipe, model.image, model.mask, sha256, None if seen is None else seen.of_model(sha256)).eval()
