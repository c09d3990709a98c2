"""What the JSON beside a set or a plan must hold: manifest rows, requests, notes of shards, asks. Reads nothing."""

from pathlib import PurePosixPath
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, FiniteFloat
from typing_extensions import TypedDict


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("is no file of the set")
    return name


def _plain(name: str) -> str:
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise ValueError("should be a plain name")
    return name


Count = Annotated[int, Field(ge=0)]
Files = dict[Annotated[str, AfterValidator(_inside)], str]


class Model(TypedDict):
    """Which model made a sample."""

    sha256: str
    name: NotRequired[str]


class Source(TypedDict):
    """What an edit was made of: digests of images and masks, sha256 of models."""

    images: list[str]
    masks: list[str]
    models: list[str]


class Edited(TypedDict):
    """What a row says of an edit as far as judging takes it."""

    of: NotRequired[Source]
    of_synthetic: NotRequired[str]


class Asked(TypedDict):
    """What a sample was asked with."""

    attributes: dict[str, str | int | FiniteFloat]
    text: NotRequired[str | None]
    size: NotRequired[list[Count] | None]
    spacing_mm: NotRequired[list[FiniteFloat] | None]
    edit: NotRequired[Edited | None]


class Marked(TypedDict):
    """The watermark of an image: the key's id, the strength asked for, the largest change of each channel."""

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    strength: Annotated[FiniteFloat, Field(gt=0)]
    peaks: list[Annotated[FiniteFloat, Field(gt=0)]]


class Row(TypedDict):
    """A row of a manifest as far as judging takes it."""

    case: Annotated[str, AfterValidator(_plain)]
    model: Model
    condition: Asked
    mask_origin: NotRequired[str | None]
    files: NotRequired[Files]
    synthetic: NotRequired[bool]
    seed: NotRequired[Count]
    index: NotRequired[Count]
    attempt: NotRequired[Count]
    sampler: NotRequired[str]
    steps: NotRequired[Count]
    guidance: NotRequired[dict[str, FiniteFloat]]
    environment: NotRequired[dict[str, str] | None]
    software: NotRequired[str]
    seam: NotRequired[FiniteFloat | None]
    mask_affine: NotRequired[Annotated[list[FiniteFloat], Field(min_length=16, max_length=16)] | None]
    prompts: NotRequired[str | None]
    watermark: NotRequired[Marked | None]


class MadeRow(Row):
    """A row as `synth generate` writes it: enough to make the sample again."""

    seed: Count  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    index: Count  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    attempt: Count  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    files: Files  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]


class Request(TypedDict):
    """A request.json: of `synth generate`, or of `synth export` with that one inside."""

    model: NotRequired[str]
    seed: NotRequired[Count]
    steps: NotRequired[Count | None]
    sampler: NotRequired[str | None]
    guidance: NotRequired[FiniteFloat | None]
    window: NotRequired[list[Count] | None]
    device: NotRequired[str]
    format: NotRequired[str]
    prompts: NotRequired[bool]
    export: NotRequired[str]
    of: NotRequired[str]
    request: NotRequired["Request | None"]


class Begun(TypedDict):
    """What a shard that is not done says of itself; `command` leaves --out out."""

    shard: Count
    shards: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    command: list[str]


class Facts(TypedDict):
    """What the samples of a set share; `about` is a Description."""

    about: dict[str, Any]
    format: str
    prompts: bool


class Note(TypedDict):
    """The note of a shard that is done."""

    shard: Count
    shards: Annotated[int, Field(ge=1)]
    count: Annotated[int, Field(ge=1)]
    validation: list[str]
    facts: Facts


class PlanAsked(TypedDict):
    """A plan.json: what was asked of the plan beside it, of prepared data or of a run."""

    budget: str | None
    set: NotRequired[list[str]]
