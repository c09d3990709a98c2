"""Pairs as the page keeps them: files in a folder, labels with colours and volumes, what the viewer is told. No widget.

Every file says that it is synthetic: by its name, NIfTI by its header too.
"""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.page.pictures import NOTICE, draw

if TYPE_CHECKING:
    from pipelines.page.studio import Ask
    from synth.data.schema import Schema
    from synth.sample import Sample
    from synth.volume import Label, Volume

_DESCRIPTION = slice(148, 228)
"""Bytes of a NIfTI-1 header that are free text."""
_CT_WINDOWS = {"soft tissue": (40, 400), "brain": (40, 80), "lung": (-600, 1500), "bone": (400, 1800)}
"""Centre and width in HU."""


@dataclass(frozen=True, kw_only=True)
class Legend:
    """One label as the page shows it: name, value, colour, and its volume in this mask."""

    name: str
    value: int
    colour: tuple[int, int, int]
    ml: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Image and mask in files. `provenance` as in a manifest; `windows`: low and high by name, of each channel."""

    case: str
    place: Path
    images: tuple[Path, ...]
    mask: Path | None
    picture: Path
    channels: tuple[str, ...]
    legend: tuple[Legend, ...]
    windows: tuple[Mapping[str, tuple[float, float]], ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    ask: "Ask | None" = None
    population: str = ""

    @classmethod
    def of_sample(cls, sample: "Sample", schema: "Schema", place: Path, *, ask: "Ask") -> "Pair":
        """Return the pair of a sample, its files written into `place`."""
        from synth.config import plain

        told = {**plain(sample.provenance), "synthetic": True, "notice": NOTICE}
        return cls.written(
            f"{sample.provenance.case}_seed{ask.seed}" + (f"_placed{len(ask.placed)}" if ask.placed else ""),
            (sample.image, sample.mask),
            (schema.channels, schema.labels),
            place,
            provenance=told,
            ask=ask,
            population=schema.population,
        )

    @classmethod
    def written(
        cls,
        case: str,
        pair: "tuple[Volume, Volume | None]",
        names: "tuple[Sequence[str], Sequence[Label]]",
        place: Path,
        **more: Any,
    ) -> "Pair":
        """Write image and mask into `place` and return the pair; `names` of channels and labels."""
        from synth.io import write, write_bytes

        (image, mask), (channels, labels) = pair, names
        stem = f"SYNTHETIC_{case}"
        images = tuple(place / f"{stem}_{_plain(name)}_{number:04d}.nii.gz" for number, name in enumerate(channels))
        for number, path in enumerate(images):
            write(image.replace(data=image.data[number : number + 1]), path)
            _say_synthetic(path)
        kept = None
        if mask is not None:
            kept = place / f"{stem}_mask.nii.gz"
            write(mask, kept)
            _say_synthetic(kept)
        windows = tuple(windows_of(image.data[number], name) for number, name in enumerate(channels))
        legend = legend_of(mask, labels)
        picture = place / f"{stem}.png"
        write_bytes(picture, draw(image, mask, {one.value: one.colour for one in legend}, windows[0]["auto"]))
        (place / f"{stem}.json").write_text(json.dumps(more.get("provenance", {}), indent=1, sort_keys=True) + "\n")
        return cls(
            case=case,
            place=place,
            images=images,
            mask=kept,
            picture=picture,
            channels=tuple(channels),
            legend=legend,
            windows=windows,
            **more,
        )

    @property
    def record(self) -> Path:
        """The provenance's file."""
        return self.picture.with_suffix(".json")

    def volumes(self) -> "tuple[Volume, Volume | None]":
        """Return image and mask as they were written."""
        import numpy as np

        from synth.io import read

        parts = [read(path) for path in self.images]
        image = parts[0].replace(data=np.concatenate([part.data for part in parts]))
        values = {one.name: one.value for one in self.legend}
        return image, None if self.mask is None else read(self.mask, labels=values)

    def view(self, prefix: str = "", *, hidden: bool = False) -> dict[str, Any]:
        """Return what the viewer is told; `prefix` comes before the path of each file. `hidden` leaves the mask out."""
        mask = None if hidden or self.mask is None else f"{prefix}{self.mask}"
        return {
            "case": self.case,
            "images": [f"{prefix}{path}" for path in self.images],
            "mask": mask,
            "channels": list(self.channels),
            "windows": [{name: list(ends) for name, ends in one.items()} for one in self.windows],
            "labels": [] if mask is None else [_spoken(one) for one in self.legend],
        }


def legend_of(mask: "Volume | None", labels: "Sequence[Label]") -> tuple[Legend, ...]:
    """Return every label with its colour, and its volume in the mask (mm2 x 1 mm in 2D)."""
    import numpy as np

    from synth.volume import palette

    voxel_ml = 0.0 if mask is None else float(np.prod(mask.spacing_mm)) / 1000
    return tuple(
        Legend(
            name=label.name,
            value=label.value,
            colour=label.colour or palette(number),
            ml=0.0 if mask is None else float((mask.data == label.value).sum()) * voxel_ml,
        )
        for number, label in enumerate(one for one in labels if one.value != 0)
    )


def windows_of(values: Any, channel: str) -> dict[str, tuple[float, float]]:
    """Return low and high of each preset: of HU for CT, of quantiles of what is not air for others.

    >>> import numpy as np
    >>> windows_of(np.linspace(0, 100, 101), "T1")["full"]
    (0.0, 100.0)
    """
    import numpy as np

    low, high = float(values.min()), float(values.max())
    if channel.lower().startswith("ct"):
        return {name: (centre - width / 2, centre + width / 2) for name, (centre, width) in _CT_WINDOWS.items()} | {
            "auto": (40 - 200.0, 40 + 200.0),
            "full": (low, max(high, low + 1e-6)),
        }
    inside = values[values > low] if high > low else values.ravel()
    at = {share: float(np.quantile(inside, share)) for share in (0.02, 0.5, 0.995)}
    ends = {
        "auto": (min(low, at[0.02]), at[0.995]),
        "high contrast": (at[0.02], at[0.5] + 0.5 * (at[0.995] - at[0.5])),
        "full": (low, high),
    }
    return {name: (a, max(b, a + 1e-6)) for name, (a, b) in ends.items()}


def _spoken(one: Legend) -> dict[str, Any]:
    return {"name": one.name, "value": one.value, "colour": list(one.colour), "ml": round(one.ml, 2)}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-") or "image"


def _say_synthetic(path: Path) -> None:
    """Put the notice into the description of a NIfTI file; equal files stay equal."""
    from synth.io import write_bytes

    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[_DESCRIPTION] = NOTICE.encode().ljust(80, b"\0")
    write_bytes(path, gzip.compress(bytes(raw), compresslevel=3, mtime=0))
