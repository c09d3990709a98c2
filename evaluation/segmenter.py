"""The judge's segmenter: a small network trained on real volumes only, saved as a folder without pickle.

It sees one volume's mapped intensities (channel, *grid) and names a label for each voxel; a second head
recognises one categorical attribute (the contrast) from the same features.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from evaluation.functional import dice
from synth.errors import CheckpointError
from synth.precision import brain_float
from synth.rng import numpy_rng

_RIDGE = 0.05
_SHRINK = 8  # voxels to one of the deepest level


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """What the segmenter knows: channels in, labels by name (background left out), classes of one attribute."""

    channels: int
    labels: tuple[str, ...]
    attribute: str = ""
    classes: tuple[str, ...] = ()
    spatial_dims: int = 3
    width: int = 32


class _Block(nn.Module):
    def __init__(self, conv: type[nn.Module], inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, 3, padding=1)
        self.second = conv(outputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(self.second(functional.silu(self.norm(self.first(x)))))


class Segmenter(nn.Module):
    """U-Net of three levels on blocks of 2^dims voxels: (batch, channel, *grid) -> scores for each label."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        three = config.spatial_dims == 3
        conv: type[nn.Module] = nn.Conv3d if three else nn.Conv2d
        block, width, out = 2**config.spatial_dims, config.width, len(config.labels) + 1
        self.one = _Block(conv, config.channels * block, width)
        self.two = _Block(conv, width, width)
        self.three = _Block(conv, width, 2 * width)
        self.up_two = _Block(conv, 3 * width, width)
        self.up_one = _Block(conv, 2 * width, width)
        self.out = conv(width, out * block, 3, padding=1)
        self.classify = nn.Linear(3 * width, max(len(config.classes), 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return label scores on the grid and class scores."""
        grid = x.shape[2:]
        pad = [amount for n in reversed(grid) for amount in (0, -n % 8)]
        x = functional.pad(x, pad)
        pool = functional.avg_pool3d if x.ndim == 5 else functional.avg_pool2d
        one = self.one(_to_depth(x))
        two = self.two(pool(one, 2))
        three = self.three(pool(two, 2))
        up = self.up_two(torch.cat([functional.interpolate(three, scale_factor=2.0), two], dim=1))
        up = self.up_one(torch.cat([functional.interpolate(up, scale_factor=2.0), one], dim=1))
        scores = _to_space(self.out(up), x.ndim - 2)
        pooled = torch.cat([three.flatten(2).mean(dim=2), one.flatten(2).mean(dim=2)], dim=1)
        return scores[(..., *(slice(0, n) for n in grid))], self.classify(pooled)

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> tuple[np.ndarray, str]:
        """Return label probabilities (labels + 1, *grid) of one mapped image (channel, *grid), and the class seen."""
        scores, classes = self(torch.from_numpy(np.array(image, dtype=np.float32))[None])
        name = self.config.classes[int(classes[0].argmax())] if self.config.classes else ""
        return scores[0].softmax(dim=0).numpy(), name

    def label(self, image: np.ndarray) -> tuple[np.ndarray, str]:
        """Return the label map (*grid) of one mapped image (channel, *grid), and the class recognised."""
        shares, name = self.probabilities(image)
        return shares.argmax(axis=0).astype(np.uint8), name


def _to_depth(x: Tensor) -> Tensor:
    dims = x.ndim - 2
    split = x.reshape(*x.shape[:2], *[part for n in x.shape[2:] for part in (n // 2, 2)])
    return split.permute(0, 1, *[3 + 2 * d for d in range(dims)], *[2 + 2 * d for d in range(dims)]).flatten(
        1, 1 + dims
    )


def _to_space(x: Tensor, dims: int) -> Tensor:
    grid = x.shape[2:]
    split = x.reshape(x.shape[0], -1, *([2] * dims), *grid)
    order = [axis for d in range(dims) for axis in (2 + dims + d, 2 + d)]
    return split.permute(0, 1, *order).reshape(x.shape[0], -1, *(2 * n for n in grid))


@dataclass(frozen=True, eq=False)
class Example:
    """One labelled volume for the segmenter: mapped image (channel, *grid), labels (*grid) 0..K, class name."""

    image: np.ndarray
    mask: np.ndarray
    name: str = ""


def train_segmenter(
    config: SegmenterConfig,
    examples: Sequence[Example],
    *,
    steps: int,
    seed: int,
    report: Callable[[int, int, float], None] | None = None,
) -> Segmenter:
    """Return a segmenter trained on `examples`: cross-entropy and soft Dice, flips, gain and noise as augmentation."""
    torch.manual_seed(seed)
    model = Segmenter(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-4)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        rng = numpy_rng(seed, "segmenter", step)
        batch = [_augmented(examples[int(rng.integers(len(examples)))], rng) for _ in range(2)]
        images = torch.from_numpy(np.stack([example.image for example in batch]))
        masks = torch.from_numpy(np.stack([example.mask for example in batch])).long()
        # weight gradients of bfloat16 convolutions over grids shorter than their kernel are unwritten memory (torch
        # 2.13, CPU): small volumes, whose deepest level is that short, are learned in float32
        with brain_float(images.device, wanted=min(images.shape[2:]) > 2 * _SHRINK):
            scores, classes = model(images)
        loss = segmentation_loss(scores.float(), masks)
        if config.classes:
            named = [number for number, example in enumerate(batch) if example.name]
            wanted = torch.tensor([config.classes.index(batch[number].name) for number in named])
            if named:
                loss = loss + 0.3 * functional.cross_entropy(classes.float()[named], wanted)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        plan.step()
        if report is not None:
            report(step + 1, steps, float(loss.detach()))
    model.eval()
    if config.classes:
        fit_classes(model, examples)
    return model


@torch.inference_mode()
def fit_classes(model: Segmenter, examples: Sequence[Example]) -> None:
    """Set the class head in closed form: ridge regression of one-hot classes on the pooled features of `examples`.

    Descent shared with segmentation leaves this head near chance for hundreds of steps; the optimum is one solve.
    Each example is seen as it is and augmented, so that a class does not hang on exact air or on one gain; those
    without a class are left out.
    """
    rng = numpy_rng(0, "classes")
    examples = [example for example in examples if example.name]
    examples = [seen for example in examples for seen in (example, _augmented(example, rng), _augmented(example, rng))]
    rows: list[Tensor] = []
    hook = model.classify.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0][0].double()))
    for example in examples:
        model(torch.from_numpy(np.array(example.image, dtype=np.float32))[None])
    hook.remove()
    wanted = torch.tensor([model.config.classes.index(example.name) for example in examples])
    x, y = torch.stack(rows), functional.one_hot(wanted, len(model.config.classes)).double()
    centre, base, spread = x.mean(dim=0), y.mean(dim=0), x.std(dim=0, correction=0) + 1e-6
    scaled = (x - centre) / spread
    gram = scaled.T @ scaled + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, scaled.T @ (y - base)).T / spread
    model.classify.weight.copy_(weight)
    model.classify.bias.copy_(base - weight @ centre)


def _augmented(example: Example, rng: np.random.Generator) -> Example:
    image, mask = np.array(example.image, dtype=np.float32), np.array(example.mask)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[::-1]
    image = image * rng.uniform(0.93, 1.07) + rng.normal(0.0, 0.01, image.shape)
    return Example(np.ascontiguousarray(image, dtype=np.float32), np.ascontiguousarray(mask), example.name)


def segmentation_loss(scores: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy, and soft Dice pooled over the batch of the labels it holds: a rare label weighs as much as any."""
    share = scores.softmax(dim=1).movedim(1, 0).flatten(1)
    hot = functional.one_hot(masks, scores.shape[1]).movedim(-1, 0).flatten(1).to(share.dtype)
    size = hot.sum(dim=1)
    overlap = 2 * (share * hot).sum(dim=1) / (share.sum(dim=1) + size).clamp_min(1.0)
    held = (size > 0)[1:]
    rare = (1.0 - overlap[1:])[held].mean() if bool(held.any()) else scores.new_zeros(())
    return functional.cross_entropy(scores, masks) + rare


def score_by_label(model: Segmenter, examples: Sequence[Example]) -> tuple[dict[str, float], float]:
    """Return the mean Dice of each label over `examples` that have it, and the share of classes recognised."""
    labels = list(range(1, len(model.config.labels) + 1))
    rows, right = [], []
    for example in examples:
        found, name = model.label(example.image)
        row = dice(found, example.mask, labels=labels)
        rows.append(np.where([(example.mask == label).any() for label in labels], row, np.nan))
        if example.name or not model.config.classes:
            right.append(name == example.name)
    means = np.nanmean(np.array(rows), axis=0)
    return dict(zip(model.config.labels, [float(v) for v in means], strict=True)), float(np.mean(right))


def as_saved(model: Segmenter) -> Segmenter:
    """Return the segmenter with the weights that a folder keeps, so that what it scores is what a copy of it scores."""
    model.load_state_dict({name: tensor.half().float() for name, tensor in model.state_dict().items()})
    return model


def save_judge(model: Segmenter, folder: Path, *, facts: dict[str, object]) -> str:
    """Write a judge folder: judge.json (config, held-out scores), weights.safetensors (float16); return its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    info = {"config": asdict(model.config), "weights_sha256": digest, **facts}
    (folder / "judge.json").write_text(json.dumps(info, indent=1, sort_keys=True) + "\n")
    return digest


def load_judge(folder: Path) -> tuple[Segmenter, dict[str, object]]:
    """Return the segmenter of a judge folder and its facts. Errors: CheckpointError when it is missing or damaged."""
    for name in ("judge.json", "weights.safetensors"):
        if not (folder / name).is_file():
            what = (
                f"it has no {name}" if folder.is_dir() else "it is a file" if folder.exists() else "it does not exist"
            )
            raise CheckpointError(f"{folder} is no judge folder: {what}; give one that was saved whole")
    try:
        info = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
        content, named = (folder / "weights.safetensors").read_bytes(), info["weights_sha256"]
        raw = info["config"]
        config = SegmenterConfig(**{**raw, "labels": tuple(raw["labels"]), "classes": tuple(raw["classes"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder}/judge.json is damaged ({error!r}); copy the folder again") from error
    if hashlib.sha256(content).hexdigest() != named:
        raise CheckpointError(f"{folder}/weights.safetensors is not the file judge.json names; copy the folder again")
    model = Segmenter(config)
    model.load_state_dict({name: t.float() for name, t in load_file(folder / "weights.safetensors").items()})
    return model.eval(), info
