"""Generator: the one inference path. Batch, page and stream all call it.

Condition -> ports; seed -> noise -> sampler over the guided denoiser -> latents -> pixels -> native units.
One forward holds one sample with its guidance prefixes, so that a sample never depends on its neighbours.
"""

import platform
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from synth.checkpoint import RECIPE, read_model, write_model
from synth.conditioning import words
from synth.data.intensity import to_dtype
from synth.data.label_maps import named, numbered
from synth.data.placement import Placement
from synth.denoiser import Bound, Denoise, Guided, prefix_weights
from synth.editing.inpaint import Canvas, Edit
from synth.errors import CheckpointError, ConditionError, ConfigError, nearest
from synth.io import PICTURES
from synth.model import Model, PartModel
from synth.ports import Ports, Window
from synth.recipe import check_window
from synth.rng import torch_rng
from synth.sample import Condition, MaskOrigin, Provenance, Sample
from synth.sampler import Sampler
from synth.volume import Volume
from synth.windows import Place, Windowed, places, seam


class Seed(NamedTuple):
    """What a sample's randomness depends on: the run's seed, the sample's index in it, the attempt."""

    seed: int
    index: int = 0  # pyright: ignore[reportIncompatibleMethodOverride]
    attempt: int = 0


class Tried(NamedTuple):
    """What came of asking until a sample was accepted: it, or None where none was, and why each before it was not."""

    sample: Sample | None
    rejected: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How to sample; None keeps what the model's recipe says.

    guidance   one scale for all conditions, or one each of mask, class, text
    texture    add the measured grain that the codec leaves out
    window     largest latent grid that a network sees at once, larger ones in overlapping windows
    """

    sampler: Sampler | None = None
    steps: int | None = None
    guidance: float | Mapping[str, float] | None = None
    texture: bool = True
    window: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigError(f"steps is {self.steps}; give at least 1")
        check_window(self.window)


@dataclass(frozen=True, eq=False)
class Generator:
    """Makes samples from conditions with a trained model. Stateless: equal calls give equal samples."""

    model: Model
    sampling: Sampling = field(default_factory=Sampling)

    def with_sampling(self, sampling: Sampling) -> "Generator":
        """Return this generator with other sampling options."""
        return replace(self, sampling=sampling)

    def generate(
        self, conditions: Iterable[Condition], *, seeds: Iterable[int | Seed], edit: Edit | None = None
    ) -> Iterator[Sample]:
        """Yield one sample for each condition and seed, lazily and in order.

        edit   a task on each condition's image, such as synth.editing.Inpaint; its mask is what the result is to show

        Errors: ConditionError for what the model does not know or cannot be asked; GeometryError from masks;
        ConfigError for a sampler or a window that does not suit the model.
        """
        self.check_sampling()
        for condition, seed in zip(conditions, seeds, strict=False):
            full = seed if isinstance(seed, Seed) else Seed(seed)
            with torch.inference_mode():
                yield self._one(condition, full, edit)

    def accepted(
        self, condition: Condition, *, seed: int | Seed, judge: Callable[[Sample], Collection[str]], tries: int = 5
    ) -> Tried:
        """Return the first sample that `judge` finds no reason to reject, of at most `tries` attempts of its seed.

        Attempt k is the sample of Seed(seed, index, k), from `seed.attempt` on: which one is accepted depends on the
        seed and the judge alone. Errors: ConfigError for less than one try; those of `generate`.
        """
        first = seed if isinstance(seed, Seed) else Seed(seed)
        if tries < 1:
            raise ConfigError(f"tries is {tries}; give at least 1")
        rejected: list[tuple[str, ...]] = []
        for attempt in range(first.attempt, first.attempt + tries):
            sample = next(self.generate([condition], seeds=[first._replace(attempt=attempt)]))
            reasons = tuple(judge(sample))
            if not reasons:
                return Tried(sample, tuple(rejected))
            rejected.append(reasons)
        return Tried(None, tuple(rejected))

    def _one(self, condition: Condition, seed: Seed, edit: Edit | None) -> Sample:
        schema = self._schema
        asked = self._checked(condition, edit)
        image = self.model.image
        origin: MaskOrigin | None = None
        placement: Placement | None = None
        mask: Volume | None = None
        mask_seam: float | None = None
        if image.part.conditioning.labels:
            if condition.mask is not None:
                given = named(condition.mask, schema)
                placement = self._placement(given)
                placement.require_inside(given, "mask")
                mask, origin = numbered(placement.to_working(given), schema), "given"
            else:
                (mask, mask_seam), origin = self._make_mask(asked, seed), "generated"
        canvas = None
        if edit is not None and asked.image is not None:
            placement = placement or self._placement(asked.image)
            canvas = edit.prepare(asked.image, placement, schema.intensities)
        elif placement is None and schema.native_grid:
            placement = Placement.onto(
                schema.native_grid, schema.native_affine, working=schema.grid, spacing_mm=schema.spacing_mm
            )
        ready = replace(asked, mask=None if mask is None else self._padded(mask, image))
        decoded, image_seam = self._sample(image, ready, seed, "image", canvas)
        finished = decoded
        if image.texture is not None and self.sampling.texture:
            finished = image.texture.finish(decoded, torch_rng(*seed, "texture"))
        if canvas is None:
            native = self._native(finished.numpy(), placement)
        else:
            latents = image.codec.encode(canvas.pixels[None].to(image.device))
            native = canvas.finish(decoded, finished, image.codec.decode(latents, grid=schema.grid)[0].cpu())
        seams = [value for value in (mask_seam, image_seam) if value is not None]
        provenance = replace(self._provenance(asked, seed, origin, edit), seam=max(seams, default=None))
        return Sample(native, self._output_mask(mask, condition, placement), asked, provenance)

    def _make_mask(self, asked: Condition, seed: Seed) -> tuple[Volume, float | None]:
        if self.model.mask is None:
            raise ConditionError("this model needs a mask and has no mask part; give masks (--masks DIR)")
        labels, left = self._sample(self.model.mask, replace(asked, mask=None), seed, "mask")
        return Volume(labels.to(torch.uint8).numpy(), self._schema.reference_affine), left

    def _sample(
        self, part: PartModel, condition: Condition, seed: Seed, stream: str, canvas: Canvas | None = None
    ) -> tuple[Tensor, float | None]:
        """Return decoded pixels (channel, *grid) of one sample, and the seam where it was made in windows."""
        grid = self._schema.grid
        latent_grid = part.codec.latent_grid(grid)
        process = part.flow.denoiser.process
        rng = torch_rng(*seed, stream)
        x = process.start((1, part.codec.channels, *latent_grid), rng).to(part.device)
        sampler = self.sampling.sampler or part.part.sampler
        times = process.grid(self.sampling.steps or part.part.steps, latent_grid)  # pyright: ignore[reportAttributeAccessIssue]
        windows = self._windows(part, latent_grid)
        denoise = self._guided(part, condition, latent_grid, windows)
        if canvas is None:
            latents = sampler(denoise, times, x, rng)
        else:
            held = canvas.hold(denoise, part.codec, x)
            latents = held.settle(sampler(held, times, x, rng))
        return part.codec.decode(latents, grid=grid)[0].cpu(), seam(latents, windows)

    def check_sampling(self) -> None:
        """Refuse a window of other dimensions than the model, and a sampler that leaves a flow. Errors: ConfigError."""
        for name, part in self.model.parts().items():
            self._windows(part, part.codec.latent_grid(self._schema.grid))
            sampler = self.sampling.sampler
            if sampler is not None and part.part.training.coupling is not None and sampler.stochastic:
                raise ConfigError(
                    f"sampler {sampler.kind} draws noise, which leaves the flow that the {name} part learned by its "
                    "coupling; take euler, heun or dpm_solver_2m"
                )

    def _checked(self, condition: Condition, edit: Edit | None) -> Condition:
        """Return the condition with attributes as the model takes them. Errors: ConditionError for other asks."""
        conditioning = self.model.image.part.conditioning
        if edit is None and condition.image is not None:
            raise ConditionError("the model follows no image; leave it out of the condition, or give an edit")
        if edit is not None and condition.image is None:
            raise ConditionError("an edit needs the image that it edits; give it in the condition")
        if edit is not None and conditioning.labels and condition.mask is None:
            raise ConditionError("an edit needs the mask that its result is to show; give it in the condition")
        if condition.image is not None and condition.mask is not None:
            condition.image.require_same_geometry(condition.mask, case="edit")
        if condition.mask is not None and not conditioning.labels:
            raise ConditionError("the model was trained without labels; leave the mask out")
        known = conditioning.vocabulary
        if condition.text and not known:
            raise ConditionError("the model was trained without text; leave the text out")
        if condition.text and conditioning.text_encoder is None and not set(words(condition.text)) & set(known):
            raise ConditionError(
                f"text {condition.text!r} has no word that the model knows; use some of: {', '.join(known[:20])}"
            )
        return replace(condition, attributes=self._schema.check_attributes(condition.attributes))

    def _windows(self, part: PartModel, latent_grid: tuple[int, ...]) -> list[Place]:
        window = self.sampling.window or part.part.window or latent_grid
        if len(window) != len(latent_grid):
            raise ConfigError(f"window {window} has {len(window)} axes, the model's latents have {len(latent_grid)}")
        return places(latent_grid, window)

    def _guided(
        self, part: PartModel, condition: Condition, latent_grid: tuple[int, ...], windows: list[Place]
    ) -> Guided:
        conditioner, scales = part.flow.conditioner, self.guidance_of(part)
        prefixes = conditioner.prefixes(condition)
        levels = [scales.get(group, 1.0) for group, _ in prefixes[1:]]

        def bound(place: Place, drop: frozenset[str]) -> Bound:
            window = Window.at(place, latent_grid, spacing_mm=self._schema.spacing_mm).to(part.device)
            asked = replace(condition, mask=_cut(condition.mask, place, part.codec.stride))
            return Bound(part.flow.denoiser, conditioner([asked], window=window, drop=[drop]))

        whole: list[Denoise] = []
        for weight, (_, drop) in zip(prefix_weights(levels), prefixes, strict=True):
            if weight == 0.0:  # never evaluated, so its ports are not worth encoding
                whole.append(Bound(part.flow.denoiser, Ports()))
            elif len(windows) == 1:
                whole.append(bound(windows[0], drop))
            else:
                whole.append(Windowed([(place, bound(place, drop)) for place in windows]))
        return Guided(whole, levels)

    def guidance_of(self, part: PartModel) -> dict[str, float]:
        """Return the guidance scale of each group that is not 1."""
        given = self.sampling.guidance
        groups = part.flow.conditioner.groups
        if given is None:
            return dict(part.part.guidance)
        if isinstance(given, Mapping):
            known = self.model.image.flow.conditioner.groups
            for name in given:
                if name not in known:
                    raise ConfigError(f"guidance {name!r} is no condition of this model; {nearest(name, known)}")
            return {name: float(value) for name, value in given.items() if name in groups}
        return dict.fromkeys(groups, float(given))

    def _padded(self, mask: Volume, part: PartModel) -> Volume:
        full = tuple(n * part.codec.stride for n in part.codec.latent_grid(mask.grid))
        amounts = [(0, 0), *((0, n - size) for n, size in zip(full, mask.grid, strict=True))]
        return mask.replace(data=np.pad(mask.data, amounts, mode="edge"))

    def _output_mask(self, mask: Volume | None, condition: Condition, placement: Placement | None) -> Volume | None:
        if mask is None:
            return None
        schema = self._schema
        if condition.mask is not None:  # the voxels that were given, not what resampling made of them
            return condition.mask if condition.mask.labels else condition.mask.replace(labels=schema.label_values)
        made = mask if placement is None else placement.labels_to_native(mask)
        table = np.array([0, *schema.label_values.values()])
        kind = np.uint8 if table.max() < 256 else np.int16
        return made.replace(data=table[made.data].astype(kind), labels=schema.label_values)

    def _placement(self, given: Volume) -> Placement:
        """Return where a given volume lies on the working grid."""
        schema = self._schema
        direction = None if schema.file_ending in PICTURES else schema.direction
        return Placement.of(given, grid=schema.grid, spacing_mm=schema.spacing_mm, direction=direction)

    def _native(self, finished: np.ndarray, placement: Placement | None) -> Volume:
        """Return pixels (channel, *grid) in native units, type and place; beyond the grid lies each channel's air."""
        schema = self._schema
        data = np.stack([rule.invert(pixels) for rule, pixels in zip(schema.intensities, finished, strict=True)])
        native = Volume(data, schema.reference_affine if placement is None else placement.affine)
        if placement is not None:
            lowest = [float(rule.invert(np.zeros(1))[0]) for rule in schema.intensities]
            moved = [
                placement.to_native(native.replace(data=d[None]), fill=f).data
                for d, f in zip(data, lowest, strict=True)
            ]
            native = Volume(np.concatenate(moved), placement.native_affine)
        return native.replace(data=to_dtype(native.data, schema.dtype))

    def _provenance(self, condition: Condition, seed: Seed, origin: MaskOrigin | None, edit: Edit | None) -> Provenance:
        part = self.model.image.part
        sampler = self.sampling.sampler or part.sampler
        asked: dict[str, object] = {"attributes": dict(condition.attributes)}
        if condition.text is not None:
            asked["text"] = condition.text
        if condition.mask is not None:  # a mask asks for its own grid
            asked |= {"size": list(condition.mask.grid), "spacing_mm": [float(s) for s in condition.mask.spacing_mm]}
        if edit is not None:
            asked["edit"] = edit.told()
        return Provenance(
            case=f"syn_{seed.index:05d}",
            seed=seed.seed,
            index=seed.index,
            attempt=seed.attempt,
            model={"name": self.model.recipe.name, "sha256": self.model.sha256},
            sampler=sampler.kind,
            steps=self.sampling.steps or part.steps,
            guidance=self.guidance_of(self.model.image),
            mask_origin=origin,
            environment=environment(self.model.image.device),
            software=software(),
            condition=asked,
        )

    @property
    def _schema(self):  # noqa: ANN202 - Schema, asserted
        schema = self.model.recipe.schema
        assert schema is not None, "a model folder always carries its schema"
        return schema


def _cut(mask: Volume | None, place: Place, stride: int) -> Volume | None:
    """Return the voxels of a mask under a window of latents; where those lie is the window's to say."""
    if mask is None:
        return None
    return Volume(mask.data[(slice(None), *(slice(s.start * stride, s.stop * stride) for s in place))])


def environment(device: torch.device) -> dict[str, str]:
    """Return what bytes may depend on: torch, CPU instructions, dtype, device."""
    name = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return {
        "torch": torch.__version__,
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "dtype": "float32",
        "device": f"{device.type}{name}",
    }


def software() -> str:
    """Return name and version of this package."""
    try:
        return f"synthvol {version('synthvol')}"
    except PackageNotFoundError:
        return "synthvol (not installed)"


def bundled() -> dict[str, Path]:
    """Return the models that ship with the package, by name."""
    spec = find_spec("synth")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "assets"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/recipe.yaml"))}


def load(model: str | Path, *, device: str | torch.device = "cpu") -> Generator:
    """Return the generator of a model folder, of a run that ended in one, or of a bundled model by its name.

    Its networks are on `device`; samples and their noise are on the CPU whatever it is.

    Errors: CheckpointError when there is no such folder or name, or the folder is damaged.
    """
    path = Path(model)
    if not (path / RECIPE).is_file():
        if (path / "model" / RECIPE).is_file():
            path = path / "model"
        elif str(model) in (names := bundled()):
            path = names[str(model)]
    if not path.is_dir():
        raise CheckpointError(f"no model folder or bundled model {str(model)!r}; {nearest(str(model), bundled())}")
    return Generator(read_model(path).to(torch.device(device)))


def save(generator: Generator, folder: str | Path) -> str:
    """Write the generator's model folder and return its sha256."""
    return write_model(
        generator.model, folder, card=f"# {generator.model.recipe.name}\n\nSynthetic data. Not for diagnosis.\n"
    )
