"""synth watermark: keys of invisible marks, and whether images carry one."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from synth.volume import Volume
    from synth.watermark import Verdict


@dataclass(frozen=True, kw_only=True)
class New:
    """Draw a key and write it to KEYFILE, a new file that its owner alone can read.

    Whoever has the key can find the mark, put it into other images and take it out: keep it apart from the images.
    """

    keyfile: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="KEYFILE")]
    """File to write; one that is there is never overwritten."""

    def run(self) -> int:
        """Write the key and say its id."""
        from synth.watermark import Key

        key = Key.new()
        key.write(self.keyfile)
        print(f"key {key.id} in {self.keyfile}; `synth generate ... --watermark {self.keyfile}` marks a set")
        return 0


@dataclass(frozen=True, kw_only=True)
class Detect:
    """Say of IMAGES with what p-value each carries the mark of a key, and all of them together.

    The p-value is the rank of the key among decoys drawn as it was. Ends with 0 whatever is found.
    """

    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    """A volume, a DICOM series, a folder of volumes, or a dataset in a layout that is read as files."""
    key: Path
    """Key file of `synth watermark new`."""
    decoys: int = 999
    """Keys that the true one is ranked among; the smallest p-value is 1 in one more than that."""
    rate: float = 0.01
    """Share of false alarms: of sets without the mark that are said to have it, and of the images named as marked."""
    json: bool = False
    """Print JSON instead of lines."""

    def run(self) -> int:
        """Score every image by the key and its decoys, and print what follows."""
        import json

        import numpy as np

        from pipelines.progress import progress
        from synth.errors import SynthError
        from synth.watermark import Detector, Key, Verdict, decoy_keys

        key = Key.read(self.key)
        self._check()
        detector = Detector([key, *decoy_keys(key, self.decoys)])
        images = list(images_of(self.images))
        rows = []
        with progress("images", len(images)) as bar:
            for name, load in images:
                try:
                    rows.append(detector.scores(load()))
                except SynthError as error:
                    said = str(error)
                    raise type(error)(said if name in said else f"{name}: {said}") from error
                bar.advance()
        verdict = Verdict.of(np.stack(rows), self.rate)
        names = [name for name, _ in images]
        if self.json:
            print(json.dumps(self._content(key.id, names, verdict), indent=1))
        else:
            self._say(key.id, names, verdict)
        return 0

    def _check(self) -> None:
        from synth.errors import ConfigError

        if not 0.0 < self.rate < 1.0:
            raise ConfigError(f"--rate is {self.rate}; give a share between 0 and 1")
        if (self.decoys + 1) * self.rate < 1.0 - 1e-9:
            least = fewest_decoys(1, self.rate)
            raise ConfigError(f"{self.decoys} decoys show no p-value of {self.rate:g}; give --decoys {least} or more")

    def _content(self, key: str, names: list[str], verdict: "Verdict") -> dict[str, object]:
        each = zip(names, verdict.p_values, verdict.marked, strict=True)
        return {
            "schema": 1,
            "key": key,
            "decoys": self.decoys,
            "rate": self.rate,
            "images": [{"image": name, "p": p, "marked": marked} for name, p, marked in each],
            "all": {"p": verdict.p, "marked": verdict.found},
        }

    def _say(self, key: str, names: list[str], verdict: "Verdict") -> None:
        from synth.watermark.detecting import MOST

        width = max(map(len, names))
        for name, p, marked in zip(names, verdict.p_values, verdict.marked, strict=True):
            print(f"{name:<{width}}  p = {p:.4g}{'  marked' if marked else ''}")
        found = "found" if verdict.found else "not found"
        print(
            f"mark of key {key} {found} in {len(names)} images together: p = {verdict.p:.4g} by {self.decoys} decoys, "
            f"false alarms at most {self.rate:.3g}; {sum(verdict.marked)} named as marked, at most that share of them "
            "wrongly on average"
        )
        least = fewest_named(len(names), self.decoys, self.rate)
        if least > 1:
            more = fewest_decoys(len(names), self.rate)
            mend = f"give --decoys {more}, or fewer images" if more <= MOST else "give fewer images"
            print(f"with {self.decoys} decoys fewer than {least} marked ones among {len(names)} are not named; {mend}")


Watermark = (
    Annotated[New, tyro.conf.subcommand("new", prefix_name=False)]
    | Annotated[Detect, tyro.conf.subcommand("detect", prefix_name=False)]
)
"""What `synth watermark` takes."""


def fewest_named(images: int, decoys: int, rate: float) -> int:
    """Return how many of so many images have to be marked at least for any of them to be named.

    Benjamini-Hochberg names k images where the k-th smallest p is at most rate k / images, and no p is below
    1 / (decoys + 1).

    >>> fewest_named(10, 999, 0.01), fewest_named(100, 999, 0.01)
    (1, 10)
    """
    return math.ceil(images / ((decoys + 1) * rate) - 1e-9)


def fewest_decoys(images: int, rate: float) -> int:
    """Return how many decoys it takes to name one marked image among so many.

    >>> fewest_decoys(1, 0.01), fewest_decoys(100, 0.01)
    (99, 9999)
    """
    return math.ceil(images / rate - 1e-9) - 1


def images_of(place: Path) -> "Iterator[tuple[str, Callable[[], Volume]]]":
    """Yield the images of a place by name, read as they are asked for. Errors: DataError where there are none."""
    from functools import partial

    from synth.data.reading import read_image
    from synth.dicom import holds_dicom
    from synth.errors import DataError
    from synth.formats import find
    from synth.formats import read as read_dataset
    from synth.io import PICTURES, SUFFIXES, read

    if not place.is_dir():
        if not place.exists():
            raise DataError(f"{place} does not exist; give images")
        yield place.name, partial(read, place)
        return
    if find(place) is not None:
        dataset = read_dataset(place)
        for case in dataset.cases:
            yield case.id, partial(read_image, case, dataset, varied=False)
        return
    known = (*SUFFIXES, *PICTURES)
    files = sorted(path for path in place.iterdir() if path.name.lower().endswith(known) and path.name[0] != ".")
    if files:
        for path in files:
            yield path.name, partial(read, path)
    elif holds_dicom(place):
        yield place.name, partial(read, place)
    else:
        raise DataError(f"{place} holds no images known here; give {', '.join(known)}, a DICOM series or a dataset")
