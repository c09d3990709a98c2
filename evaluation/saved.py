"""report.json, read back: the one reader of what `Report.write` wrote. Knows no metric and no volume."""

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, FiniteFloat
from typing_extensions import TypedDict

from synth.documents import document_of
from synth.errors import DataError

REPORT_FILE, SCHEMA = "report.json", 1
_MEND = "give a report of `synth evaluate`, or run that again"


class _Figure(TypedDict):
    value: FiniteFloat
    interval: Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)] | None
    n: int
    better: Literal["lower", "higher", ""] | None
    unit: str
    floor: NotRequired[FiniteFloat]
    p_value: NotRequired[FiniteFloat]


class _Verdict(TypedDict):
    ok: bool | None
    why: str


class _Sample(TypedDict):
    case: str
    flagged: bool | None


class ReportForm(TypedDict):
    """What every report says; sections may add to its rows."""

    schema: int
    population: str
    verdicts: dict[str, _Verdict]
    metrics: dict[str, _Figure]
    fingerprint: dict[str, str]
    judged: dict[str, str]
    samples: list[_Sample]
    not_computed: dict[str, str]


def report_file(place: Path) -> Path:
    """Return the report.json that a path names: itself, or the one in a report's folder."""
    return place / REPORT_FILE if place.is_dir() else place


def read_report(place: Path) -> tuple[dict[str, Any], bytes]:
    """Return the content of a report (its folder, or its report.json), every field as written, and the file's bytes.

    Errors: DataError with the line where the file is no report of this version, or something in it is of another kind.
    """
    path = report_file(place)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is no report ({error.strerror}); {_MEND}") from error
    content = document_of(raw, path, ReportForm, mend=_MEND)
    if content["schema"] != SCHEMA:
        raise DataError(f"{path} is a report of schema {content['schema']}, this version reads {SCHEMA}; {_MEND}")
    return content, raw
