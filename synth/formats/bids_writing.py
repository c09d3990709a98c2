"""A BIDS derivative written: sub-<label>/anat/*_desc-synthetic_<suffix>.nii.gz with sidecars, _dseg and its table.

Synthetic images are no raw data, so the set is always a derivative. Suffixes are BIDS's own where a channel, or the
attribute `contrast` of a set of one channel, names one of them; others (CT among them) stand in .bidsignore.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import final

from synth.formats.writing import NOTICE, Told, Writer, safe, table_of
from synth.io import write, write_bytes
from synth.volume import Volume

VERSION = "1.10.0"
_SUFFIXES = (
    "T1w",
    "T2w",
    "PDw",
    "T2starw",
    "FLAIR",
    "PDT2",
    "inplaneT1",
    "inplaneT2",
    "angio",
    "UNIT1",
    "T1map",
    "T2map",
)
_ALSO = {"t1": "T1w", "t1n": "T1w", "t2": "T2w", "pd": "PDw", "t2star": "T2starw", "t2f": "FLAIR", "t2flair": "FLAIR"}
_CONTRASTS = ("contrast", "sequence", "modality")
"""Attributes that may say which kind of image the only channel is."""
_NOT_BIDS = (
    "manifest.jsonl",
    "request.json",
    "patients.json",
    "splits_final.json",
    "records",  # with a slash behind it, bids-validator 3.0.2 takes it for no pattern of the folder
    "prompts.jsonl",
    "boxes.json",
)


def label_of(case: str) -> str:
    """Return a subject's label: letters and digits of the case alone.

    >>> label_of("syn_00012")
    'syn00012'
    """
    return re.sub(r"[^A-Za-z0-9]", "", safe(case)) or "x"


def suffixes(channels: Sequence[str], attributes: Mapping[str, object]) -> tuple[str, ...]:
    """Return the suffix of each channel; one that BIDS lacks, or comes twice, is the channel's own letters and digits.

    >>> suffixes(("MR",), {"contrast": "FLAIR"}), suffixes(("T1", "T1ce", "CT"), {})
    (('FLAIR',), ('T1w', 'T1ce', 'CT'))
    """
    said = [attributes[name] for name in _CONTRASTS if name in attributes] if len(channels) == 1 else []
    out: list[str] = []
    for number, channel in enumerate(channels):
        known = next((suffix for name in (channel, *map(str, said)) if (suffix := _known(name))), None)
        plain = re.sub(r"[^A-Za-z0-9]", "", channel) or f"channel{number}"
        name = known if known is not None and known not in out else plain
        out.append(name if name not in (*out, "dseg", "mask") else f"{plain}{number}")
    return tuple(out)


def _known(name: str) -> str | None:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _ALSO.get(plain) or next((suffix for suffix in _SUFFIXES if suffix.lower() == plain), None)


@final
class BIDSWriter(Writer):
    """Writes a BIDS derivative, one subject a case; participants.tsv holds the attributes and the text."""

    index = ("dataset_description.json", "participants.tsv")

    def paths(self, case: str, grid: tuple[int, ...] = ()) -> list[Path]:
        """Return the mask alone, which is written last: the images' names depend on what is said of the case."""
        return [self._path(case, "dseg", ".nii.gz")]

    def add(self, case: str, image: Volume, mask: Volume, told: Told | None = None) -> dict[str, str]:
        """Write one case; the images' files, whose names `told` decides, stand in the answer too."""
        from synth.formats.writing import sha256_of

        last = super().add(case, image, mask, told)
        names = suffixes(self.about.channels, (told or Told(case)).attributes)
        files = [self._path(case, name, ending) for name in names for ending in (".nii.gz", ".json")]
        files.append(self._path(case, "dseg", ".json"))
        return {**{path.as_posix(): sha256_of(self.folder / path) for path in files}, **last}

    def parts(self, told: Told) -> tuple[str, ...]:
        """Return a file a channel, then the mask."""
        names = (*suffixes(self.about.channels, told.attributes), "dseg")
        return tuple(self._path(told.case, name, ".nii.gz").as_posix() for name in names)

    def write(self, case: str, image: Volume, mask: Volume, told: Told) -> None:
        """Write each channel with its sidecar, then the mask."""
        names = suffixes(self.about.channels, told.attributes)
        for channel, name in enumerate(names):
            write(
                image.replace(data=image.data[channel : channel + 1]), self.folder / self._path(case, name, ".nii.gz")
            )
            about = {
                "Description": f"{NOTICE}; channel {self.about.channels[channel]} made by {self.about.software}",
                "SkullStripped": False,
                "SynthCase": case,
                **({} if told.text is None else {"SynthText": told.text}),
            }
            self.put_json(self._path(case, name, ".json").as_posix(), about)
        reference = f"bids::{self._path(case, names[0], '.nii.gz').as_posix()}"
        about = {"Description": f"{NOTICE}; labels of dseg.tsv", "SpatialReference": reference}
        self.put_json(self._path(case, "dseg", ".json").as_posix(), about)
        write(mask, self.folder / self._path(case, "dseg", ".nii.gz"))

    def finish(self, count: int | None = None, told: Iterable[Told] = ()) -> None:
        """Write participants.tsv, dseg.tsv, README, .bidsignore and dataset_description.json."""
        told = list(told)
        self.require(count, [one.case for one in told])
        channels: dict[str, str] = {}
        for one in told or [Told("x")]:
            channels.update(zip(suffixes(self.about.channels, one.attributes), self.about.channels, strict=True))
        self._tables(told)
        strange = sorted(suffix for suffix in channels if suffix not in _SUFFIXES)
        ignored = "".join(f"{name}\n" for name in (*_NOT_BIDS, *(f"**/*_{suffix}.*" for suffix in strange)))
        write_bytes(self.folder / ".bidsignore", ignored.encode())
        write_bytes(self.folder / "README.md", self._readme(len(told)).encode())
        description = {
            "Name": self.about.name,
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "synthvol", "Version": _version(self.about.software), "Description": NOTICE}],
            "Population": self.about.population,
            "SynthChannels": dict(sorted(channels.items(), key=lambda item: self.about.channels.index(item[1]))),
        }
        self.put_json("dataset_description.json", description)

    def _tables(self, told: Sequence[Told]) -> None:
        """Write participants and labels as tables, each with a sidecar that says what its columns are."""
        rows = [
            {
                "participant_id": f"sub-{label_of(one.case)}",
                **one.attributes,
                **({} if one.text is None else {"text": one.text}),
            }
            for one in told
        ]
        write_bytes(self.folder / "participants.tsv", table_of(rows, delimiter="\t", absent="n/a"))
        own = dict.fromkeys(name for row in rows for name in row if name != "participant_id")
        says = {name: {"Description": f"{name} that the sample was asked with"} for name in own}
        self.put_json("participants.json", {"Description": NOTICE, **says})
        labels = [{"index": 0, "name": "background", "color": "#000000"}] + [
            {"index": one.value, "name": one.name, "color": "#{:02x}{:02x}{:02x}".format(*(one.colour or (255,) * 3))}
            for one in self.about.labels
        ]
        write_bytes(self.folder / "dseg.tsv", table_of(labels, delimiter="\t", absent="n/a"))

    def _readme(self, count: int) -> str:
        labels = ", ".join(f"{value} {name}" for name, value in self.about.label_values.items())
        return (
            f"# {self.about.name}\n\n{NOTICE}.\n\n{count} images with segmentations made by a generative model "
            f"({self.about.software}); no image shows a patient. Population that the model was trained on: "
            f"{self.about.population or 'not stated'}. Channels: {', '.join(self.about.channels)}. Labels (dseg.tsv): "
            f"{labels}. manifest.jsonl says of every image how it was made: model, seed, condition and sha256.\n"
        )

    @staticmethod
    def _path(case: str, suffix: str, ending: str) -> Path:
        subject = f"sub-{label_of(case)}"
        return Path(subject) / "anat" / f"{subject}_desc-synthetic_{suffix}{ending}"


def _version(software: str) -> str:
    return software.partition(" ")[2] or software
