"""Training state on disk, exact and without pickle: safetensors for tensors, JSON for the rest.

A checkpoint is a folder written beside its place and swapped in, so that a kill leaves the old or the new one.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synth.errors import CheckpointError, OutputError
from synth.io import write_bytes
from synth.training.ema import MovingAverage


def save_state(
    folder: Path,
    *,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage,
    state: dict[str, object],
) -> None:
    """Write a checkpoint folder atomically: weights, ema, optimizer (.safetensors) and state.json.

    Errors: OutputError when it cannot be written, as on a full disk; the checkpoint before it stays.
    """
    partial, old = _partial(folder), _old(folder)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file({k: v.detach().contiguous() for k, v in module.state_dict().items()}, partial / "weights.safetensors")
        save_file({k: v.contiguous() for k, v in average.tensors.items()}, partial / "ema.safetensors")
        save_file(_optimizer_tensors(module, optimizer), partial / "optimizer.safetensors")
        (partial / "state.json").write_text(json.dumps(state, sort_keys=True, indent=1))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = " ".join(str(error).split())[:200]
        raise OutputError(
            f"checkpoint {folder} cannot be written ({reason}); free room and run the same command again"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def load_state(
    folder: Path, *, module: nn.Module, optimizer: torch.optim.Optimizer, average: MovingAverage
) -> dict[str, object]:
    """Restore a checkpoint into module, optimizer and average, and return its JSON state.

    Errors: CheckpointError where a file is missing, damaged, or of a module of other names or shapes.
    """
    mend_folder(folder)
    try:
        module.load_state_dict(load_file(folder / "weights.safetensors"))
        kept = load_file(folder / "ema.safetensors")
        slots = load_file(folder / "optimizer.safetensors")
        state = json.loads((folder / "state.json").read_text())
        for name, tensor in average.tensors.items():
            tensor.copy_(kept[name])
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"checkpoint {folder} is damaged or of another model ({reason}); delete it to start this stage anew"
        ) from error
    for name, parameter in module.named_parameters():
        # the step count stays where the optimiser keeps it, on the CPU
        found = {
            key.rsplit("|", 1)[1]: value if value.ndim == 0 else value.to(parameter.device)
            for key, value in slots.items()
            if key.rsplit("|", 1)[0] == name
        }
        if found:
            optimizer.state[parameter] = found
    return state


def has_state(folder: Path) -> bool:
    """True where a checkpoint can be resumed."""
    return (folder / "state.json").is_file() or (_old(folder) / "state.json").is_file()


def mend_folder(folder: Path) -> None:
    """Finish or undo a swap that a kill cut short, so that only whole checkpoints are left."""
    if not folder.exists() and _old(folder).exists():
        os.replace(_old(folder), folder)
    shutil.rmtree(_partial(folder), ignore_errors=True)
    shutil.rmtree(_old(folder), ignore_errors=True)


def write_json(path: Path, value: object) -> None:
    """Write JSON with sorted keys, atomically."""
    write_bytes(path, json.dumps(value, sort_keys=True).encode())


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            out[f"{name}|{key}"] = torch.as_tensor(value).detach().contiguous()
    return out
