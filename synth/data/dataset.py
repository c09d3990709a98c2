"""A dataset as its layout describes it: cases with their files, labels, channels. Reads nothing itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synth.sample import AttributeValue
from synth.volume import Label


@dataclass(frozen=True)
class Case:
    """One labelled case: its images, whose channels together are the dataset's, its mask, and what is said about it.

    An image is a file or, for DICOM, the folder of a series.
    """

    id: str
    images: tuple[Path, ...]
    mask: Path | None = None
    truth: Path | None = None
    patient: str | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True)
class Dataset:
    """Cases of one layout; `labels` leave the background (value 0) out, `notes` are lines a user should see.

    modalities   by channel what its files say they are (CT, MR, ...), whatever it is called; empty where they do not
    """

    root: Path
    cases: tuple[Case, ...]
    labels: tuple[Label, ...]
    channels: tuple[str, ...]
    file_ending: str = ".nii.gz"
    population: str = ""
    extra: Mapping[str, object] = field(default_factory=dict)
    layout: str = ""
    notes: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()

    @property
    def label_values(self) -> dict[str, int]:
        """Name -> value of every label."""
        return {label.name: label.value for label in self.labels}
