"""White-box losses: a model folder -> a callable that the judge asks how well the weights denoise a volume."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from evaluation.evidence import Judged
    from synth.data.prepared import Prepared
    from synth.data.schema import Schema
    from synth.data.seen import Seen
    from synth.model import PartModel

TIMES = 8
_WINDOWS = 4


def denoising_losses(
    model: str, schema: "Schema", *, made_by: str | None, times: int = TIMES, seed: int = 0, device: str = "cpu"
) -> "Callable[[Judged], np.ndarray]":
    """Return what gives a volume's denoising losses under `model`: of the image part at `times` noise levels, then of
    the mask part where there is one, (times,) or (2 times,).

    The noise is the same for every volume, so that losses differ by the volume alone; volumes are whole, or up to four
    windows of them where the part samples in windows, conditioned as in training.
    schema    of the prepared data that volumes are mapped by
    made_by   sha256 of the model that made the set; another one is refused. None: the set does not say
    Errors: ConfigError where the model is another one, or does not fit the data.
    """
    from synth.errors import ConfigError
    from synth.generator import load

    loaded = load(model, device=device).model.eval()
    if made_by is not None and loaded.sha256 != made_by:
        raise ConfigError(f"--model {model} is not the model that made the set, by its sha256; give that one")
    own = loaded.recipe.schema
    assert own is not None, "a model folder always carries its schema"
    if (len(own.grid), len(own.channels)) != (len(schema.grid), len(schema.channels)):
        raise ConfigError(
            f"--model {model} is {len(own.grid)}D with {len(own.channels)} channels, the data {len(schema.grid)}D with "
            f"{len(schema.channels)}; give the model that was trained on it"
        )
    numbering = _numbering(schema, own)

    def losses(item: "Judged") -> "np.ndarray":
        import numpy as np
        import torch

        labels = numbering[item.mask]
        image = np.array(item.image, dtype=np.float32)
        with torch.inference_mode():
            found = [_of_part(loaded.image, image, labels, item, own, times, seed)]
            if loaded.mask is not None:
                found.append(_of_part(loaded.mask, labels[None].astype(np.float32), None, item, own, times, seed))
        return np.concatenate(found)

    return losses


def model_of_set(folder: Path) -> str | None:
    """Return the sha256 of the one model that made a set; None where its manifest does not say."""
    from pipelines.records import rows_beside

    known = {row["model"]["sha256"] for row in rows_beside(folder)}
    return known.pop() if len(known) == 1 else None


def selection(prepared: "Prepared", seen: "Seen | None", *, prepared_before: bool) -> frozenset[str]:
    """Return the held-out patients that chose the checkpoint: they are no non-members of the weights.

    Those that the set's model says it saw, and, where `synth prepare` made the sides before, those of the hold-out.
    """
    told = [case.patient for case in prepared.held_out if seen is not None and seen.has(prepared.digest(case))]
    return frozenset([*told, *(case.patient for case in prepared.split("holdout") if prepared_before)])


def _numbering(schema: "Schema", own: "Schema") -> "np.ndarray":
    """Return the model's number of each label of the data, by name. Errors: ConfigError for one it does not know."""
    import numpy as np

    from synth.errors import ConfigError, nearest

    names = [label.name for label in own.labels]
    for label in schema.labels:
        if label.name not in names:
            raise ConfigError(f"label {label.name!r} of the data is unknown to --model; {nearest(label.name, names)}")
    return np.array([0, *(names.index(label.name) + 1 for label in schema.labels)], dtype=np.uint8)


def _of_part(
    part: "PartModel",
    pixels: "np.ndarray",
    labels: "np.ndarray | None",
    item: "Judged",
    schema: "Schema",
    times: int,
    seed: int,
) -> "np.ndarray":
    """Return the part's loss (times,) on pixels (channel, *grid), at times spread evenly between data and noise."""
    import numpy as np
    import torch

    from synth.ports import Window
    from synth.rng import torch_rng
    from synth.sample import Condition
    from synth.training.flow_stage import pad_labels
    from synth.training.objectives import DenoisingObjective, LatentBatch
    from synth.volume import Volume
    from synth.windows import places

    clean = part.codec.encode(torch.from_numpy(np.ascontiguousarray(pixels))[None].to(part.device))
    full, stride = tuple(clean.shape[2:]), part.codec.stride
    padded = None if labels is None else pad_labels(labels, tuple(n * stride for n in full))
    objective = DenoisingObjective(torch.ones(clean.shape[1], device=part.device))
    found = places(full, part.part.window or full)
    rows = []
    for number, place in enumerate(found[:: -(-len(found) // _WINDOWS)]):
        grid = tuple(side.stop - side.start for side in place)
        spacing = torch.tensor([schema.spacing_mm], dtype=torch.float32)
        origin = torch.tensor([[side.start for side in place]], dtype=torch.float32)
        window = Window(grid, origin, torch.tensor([full], dtype=torch.float32), spacing).to(part.device)
        mask = None
        if padded is not None and part.part.conditioning.labels:
            mask = Volume(padded[tuple(slice(s.start * stride, s.stop * stride) for s in place)][None])
        condition = Condition(mask=mask, text=item.text, attributes=schema.seen_attributes(item.attributes))
        batch = LatentBatch(clean[(slice(None), slice(None), *place)], [condition], window)
        row = []
        for step in range(times):
            share = torch.tensor([(step + 0.5) / times], dtype=torch.float64)
            at = part.flow.denoiser.process.at_share(share)
            rng = torch_rng(seed, "white box", number, step)
            row.append(float(objective.at(part.flow, batch, at, rng).mean()))
        rows.append(row)
    return np.mean(rows, axis=0)
