"""Inpaint: a region of an image made anew to follow a changed mask, all else kept. Knows no network and no file."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from synth.codec.base import Codec
from synth.data.intensity import IntensityMap, Window, to_dtype
from synth.data.placement import Placement
from synth.denoiser import Denoise
from synth.errors import ConditionError, ConfigError, GeometryError
from synth.process.base import Estimate, GaussianProcess
from synth.volume import Volume

_TOUCHED = 0.01
"""Share of a working voxel from which on the region reaches it, where the region lies on another grid."""


class Edit(Protocol):
    """A task on the image of a condition: what of it is kept, and how the sample becomes a volume again."""

    def told(self) -> Mapping[str, object]: ...

    def prepare(self, image: Volume, placement: Placement, intensities: Sequence[IntensityMap]) -> "Canvas": ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Inpaint:
    """Make `region` of the condition's image anew, following the condition's mask; keep all else.

    Latents that only show kept voxels are known: at every evaluation they are the image's, noised to its time with
    the noise of the start, x_t = where(free, x_t, alpha(t) E(image) + sigma(t) noise) (Lugmayr et al. 2022, "RePaint",
    in latents as Avrahami et al. 2023). What is decoded then fades into the image over the outer half of the margin:

        image + w (new - image), w = 1 up to margin / 2 from the region, falling as a cosine to 0 at the margin

    where grain, which fading two of it would flatten, keeps its variance. The image keeps its own values, geometry and
    type: voxels further than the margin from the region are equal to the last bit.

    region      voxels that are not 0, on the image's grid; `changed` gives it of two masks
    margin_mm   how far beyond the region voxels may change
    Errors: ConfigError for a margin that is none; ConditionError for an empty region; GeometryError for another grid.

    >>> Inpaint(region=Volume(np.ones((1, 2, 2), np.uint8)), margin_mm=0.0)
    Traceback (most recent call last):
        ...
    synth.errors.ConfigError: margin_mm is 0.0; give more than 0
    """

    region: Volume
    margin_mm: float = 8.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.margin_mm) and self.margin_mm > 0):
            raise ConfigError(f"margin_mm is {self.margin_mm}; give more than 0")
        if not self.region.data.any():
            raise ConditionError("the region of the edit is empty; mark the voxels that are to change")

    def told(self) -> dict[str, object]:
        """Return what provenance says of the edit."""
        marked = np.ascontiguousarray((self.region.data != 0).any(axis=0))
        return {
            "task": "inpaint",
            "margin_mm": self.margin_mm,
            "region_voxels": int(marked.sum()),
            "region_sha256": hashlib.sha256(f"{marked.shape}".encode() + marked.tobytes()).hexdigest(),
        }

    def prepare(self, image: Volume, placement: Placement, intensities: Sequence[IntensityMap]) -> "Canvas":
        """Return the image as the model sees it, and where it may change. Errors: ConditionError, GeometryError."""
        image.require_same_geometry(self.region, case="edit", what="region")
        if image.channels != len(intensities):
            raise GeometryError(
                f"the image to edit has {image.channels} channels, the model makes {len(intensities)}; give another"
            )
        if not np.isfinite(image.data).all():
            raise ConditionError("the image to edit has voxels that are no numbers; mend them")
        marked = (self.region.data != 0).any(axis=0)
        placement.require_inside(Volume(marked[None].astype(np.uint8), image.affine), "region")
        maps, mapped = [], []
        for rule, native in zip(intensities, image.data, strict=True):
            own = rule
            if not isinstance(rule, Window):
                low, high = rule.levels(native)
                own = replace(rule, low=low, high=high)
            moved = placement.to_working(image.replace(data=native[None], labels=None), fill=float(native.min()))
            maps.append(own)
            mapped.append(_mapped(own, moved.data[0]))
        here = placement.to_working(Volume(marked[None].astype(np.float32), image.affine)).data[0] > _TOUCHED
        if not here.any():
            raise ConditionError("the region of the edit is smaller than a voxel of the model; mark a larger one")
        share = _share(distance_mm(here, placement.spacing_mm, reach_mm=self.margin_mm), self.margin_mm)
        near = distance_mm(marked, image.spacing_mm, reach_mm=self.margin_mm) <= self.margin_mm
        return Canvas(image, placement, tuple(maps), torch.from_numpy(np.stack(mapped)), torch.from_numpy(share), near)


@dataclass(frozen=True, eq=False)
class Canvas:
    """An image to be edited: as it is, and as the model sees it.

    maps     intensity map of each channel, with the image's own levels
    pixels   (channel, *grid) mapped, on the working grid
    share    (*grid) how much of the new image counts, in [0, 1]
    near     native voxels that may change
    """

    image: Volume
    placement: Placement
    maps: tuple[IntensityMap, ...]
    pixels: Tensor
    share: Tensor
    near: np.ndarray

    def hold(self, denoise: Denoise, codec: Codec, start: Tensor) -> "Held":
        """Return `denoise` with the latents held that show nothing but kept voxels; `start` is the sampler's."""
        known = codec.encode(self.pixels[None].to(start))
        padded = np.pad(self.share.numpy(), [(0, -n % codec.stride) for n in self.share.shape])
        blocks = padded.reshape([part for n in padded.shape for part in (n // codec.stride, codec.stride)])
        free = torch.from_numpy((blocks > 0).any(axis=tuple(range(1, blocks.ndim, 2))))
        process = denoise.process
        at = torch.full((1,), float(process.t_start), dtype=torch.float64)
        noise = start / process.sigma(at).to(start).reshape(-1, *[1] * (start.ndim - 1))
        return Held(denoise, known, noise, free[None, None].to(start.device))

    def finish(self, decoded: Tensor, finished: Tensor, rendered: Tensor) -> Volume:
        """Return the edited image in its own units, geometry and type.

        decoded    (channel, *grid) of the new latents; `finished` with floor and grain
        rendered   (channel, *grid) what the codec makes of the image itself
        """
        change = self._change(decoded, finished, rendered).numpy()
        out = np.array(self.image.data)
        for channel, rule in enumerate(self.maps):
            moved = self.placement.to_native(Volume(change[channel][None], self.placement.affine)).data[0]
            here = self.near & (moved != 0)
            native = out[channel][here].astype(np.float32)
            mapped = _mapped(rule, native)
            out[channel][here] = to_dtype(
                native + rule.invert(mapped + moved[here]) - rule.invert(mapped), out.dtype.name
            )
        return self.image.replace(data=out)

    def _change(self, decoded: Tensor, finished: Tensor, rendered: Tensor) -> Tensor:
        """Return what is added to `pixels`: faded means, and grain scaled so that its variance is kept."""
        share, old = self.share, self.pixels
        grain = share * (finished - decoded) + (1 - share) * (old - rendered)
        kept = (share.square() + (1 - share).square()).sqrt()
        change = share * (finished - old) + (1 / kept - 1) * grain
        return torch.where((share > 0) & (finished != old), change, 0.0)  # air that stays air is exactly that


@dataclass(frozen=True, eq=False)
class Held:
    """A Denoise with known latents: outside `free`, x is the noised `clean` whatever it is told."""

    denoise: Denoise
    clean: Tensor
    noise: Tensor
    free: Tensor

    @property
    def process(self) -> GaussianProcess:
        """The noise law of the denoise within."""
        return self.denoise.process

    def __call__(self, x: Tensor, t: Tensor, *, to: Tensor) -> Estimate:
        """Estimate at t; known latents are estimated as what they are."""
        held = self.process.mix(self.clean, self.noise, t.reshape(1))
        estimate = self.denoise(torch.where(self.free, x, held), t, to=to)
        clean, noise = (
            torch.where(self.free, estimate.clean, self.clean),
            torch.where(self.free, estimate.noise, self.noise),
        )
        return Estimate(clean=clean, noise=noise, raw=estimate.raw)

    def settle(self, latents: Tensor) -> Tensor:
        """Return a sampler's latents with the known ones exact, whatever its rounding."""
        return torch.where(self.free, latents, self.clean)


def changed(before: Volume, after: Volume) -> Volume:
    """Return where two masks of one geometry differ: the region of an edit that turns one into the other.

    >>> changed(Volume(np.array([[[0, 1]]])), Volume(np.array([[[0, 2]]]))).data.tolist()
    [[[0, 1]]]
    """
    before.require_same_geometry(after, case="edit")
    return Volume((before.data != after.data).astype(np.uint8), before.affine)


def distance_mm(marked: np.ndarray, spacing_mm: Sequence[float], *, reach_mm: float) -> np.ndarray:
    """Return each voxel's distance to the nearest marked one, infinite where that is further than `reach_mm`.

    >>> distance_mm(np.array([[1, 0, 0, 0]], bool), (1.0, 2.0), reach_mm=4.0).tolist()
    [[0.0, 2.0, 4.0, inf]]
    """
    from scipy import ndimage

    out = np.full(marked.shape, np.inf)
    places = [
        np.flatnonzero(marked.any(axis=tuple(a for a in range(marked.ndim) if a != d))) for d in range(marked.ndim)
    ]
    extra = [math.ceil(reach_mm / step) + 1 for step in spacing_mm]
    box = tuple(slice(max(at[0] - more, 0), at[-1] + more + 1) for at, more in zip(places, extra, strict=True))
    found = np.asarray(ndimage.distance_transform_edt(~marked[box], sampling=tuple(spacing_mm)))
    out[box] = np.where(found <= reach_mm, found, np.inf)
    return out


def _share(distances: np.ndarray, margin_mm: float) -> np.ndarray:
    """Return 1 up to half of the margin, falling as a cosine to 0 at the margin (float32)."""
    way = np.clip(2.0 * distances / margin_mm - 1.0, 0.0, 1.0)
    return (0.5 + 0.5 * np.cos(np.pi * way)).astype(np.float32)


def _mapped(rule: IntensityMap, data: np.ndarray) -> np.ndarray:
    """Return mapped voxels, of percentiles with the levels that the rule itself has."""
    return rule.apply(data) if isinstance(rule, Window) else rule.apply(data, (rule.low, rule.high))
