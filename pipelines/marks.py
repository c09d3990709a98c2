"""The watermark of a set: asked for by a key file, put into images as they are written, told by the key's id alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from evaluation.report import Report
    from synth.data.intensity import IntensityMap
    from synth.volume import Volume
    from synth.watermark import Key

STRENGTH = 1.0


class MarkAsk(NamedTuple):
    """What a worker needs to mark samples: the file of the key, the id that it has to have, and the strength."""

    path: str
    key: str
    strength: float


def asked_mark(path: Path | None, strength: float | None, out: Path) -> MarkAsk | None:
    """Return what --watermark and --watermark-strength ask for. Errors: ConfigError, DataError for the key."""
    from pipelines.places import lie_together
    from synth.errors import ConfigError
    from synth.watermark import Key, peaks

    if path is None:
        if strength is not None:
            raise ConfigError("--watermark-strength is for --watermark; add that or leave it out")
        return None
    if lie_together(path, out):
        raise ConfigError(f"--watermark {path} lies in --out {out}, which is given away; keep the key elsewhere")
    strength = STRENGTH if strength is None else strength
    peaks([], strength)
    return MarkAsk(str(path.resolve()), Key.read(path).id, strength)


@dataclass(frozen=True)
class Mark:
    """A key, and how far it changes each channel at most, in native units; `strength` is what was asked for."""

    key: "Key"
    strength: float
    peaks: tuple[float, ...]

    @classmethod
    def of(cls, ask: MarkAsk, intensities: "Sequence[IntensityMap]") -> "Mark":
        """Return the mark for images of a model. Errors: DataError where the file holds another key than before."""
        from synth.errors import DataError
        from synth.watermark import Key, peaks

        key = Key.read(Path(ask.path))
        if key.id != ask.key:
            raise DataError(f"key {ask.path} was changed while samples were made; give the one of id {ask.key}")
        return cls(key, ask.strength, peaks(intensities, ask.strength))

    @classmethod
    def again(cls, path: Path | None, row: Mapping[str, Any]) -> "Mark | None":
        """Return the mark that a row tells of, None where it tells of none.

        Errors: ConfigError for a key that is missing, another, or not asked for.
        """
        from synth.errors import ConfigError
        from synth.watermark import Key

        told = row.get("watermark")
        if told is None:
            if path is not None:
                raise ConfigError(f"case {row['case']} carries no watermark; leave --watermark out")
            return None
        if path is None:
            raise ConfigError(
                f"case {row['case']} carries the watermark of key {told['key']}, which making it again takes: give "
                "--watermark KEYFILE"
            )
        key = Key.read(path)
        if key.id != told["key"]:
            raise ConfigError(f"{path} is key {key.id}, case {row['case']} carries key {told['key']}; give that one")
        return cls(key, float(told["strength"]), tuple(float(peak) for peak in told["peaks"]))

    def put(self, image: "Volume") -> "Volume":
        """Return the image with the mark in it."""
        from synth.watermark import embed

        return embed(image, self.key, self.peaks)

    def told(self) -> dict[str, Any]:
        """Return what a record says of the mark; where it lies in an image is nobody's to know."""
        return {"key": self.key.id, "strength": self.strength, "peaks": list(self.peaks)}


def request_of(ask: MarkAsk | None) -> dict[str, object] | None:
    """Return what a request says of the mark: a set begun with one is not gone on with under another."""
    return None if ask is None else {"key": ask.key, "strength": ask.strength}


def note_marks(report: "Report", rows: Sequence[Mapping[str, Any]]) -> None:
    """Say in a report which watermarks the judged images carry, as their manifest tells."""
    told = [row["watermark"] for row in rows if row.get("watermark")]
    if told:
        keys = ", ".join(sorted({str(one["key"]) for one in told}))
        most = max(float(one["strength"]) for one in told)
        report.notes.append(
            f"{len(told)} of {len(rows)} images carry the watermark of key {keys}, by their manifest: it changed them "
            f"by {most:g} HU at most (whole numbers by 1 at least), or as many 400ths of the range"
        )
