"""The real side of `synth evaluate`: a prepared folder, or folders in any layout that are prepared for this run alone.

Wires `synth.data`; knows no section.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evaluation.evidence import Judged
    from synth.data.dataset import Case, Dataset
    from synth.data.prepared import Prepared, Split
    from synth.data.seen import Seen
    from synth.data.splits import Division

UNKNOWN = (
    "which real volumes the generator was trained on is not said; give --training and --holdout, or --data with the "
    "prepared folder it was trained on"
)
_REFERENCE = 0.5


@dataclass(frozen=True, kw_only=True)
class RealOptions:
    """Options of `synth evaluate` for real volumes: --data, or --real, or --training with --holdout."""

    data: Path | None = None
    """A prepared folder: real volumes, with its train, hold-out and test patients."""
    real: Path | None = None
    """Instead of --data, a dataset in any layout, prepared for this run: half of its patients train the judge, the
    others are compared with; privacy is not judged. With --training and --holdout, further held-out volumes."""
    training: Path | None = None
    """Instead of --data, the dataset that the generator was trained on, in any layout; with --holdout."""
    holdout: Path | None = None
    """The dataset that it was not trained on, of other patients."""
    patients: str | None = None
    """Without --data: which real cases share a patient: each, a regular expression with one group, or a CSV."""

    def check_real(self) -> None:
        """Errors: ConfigError for options that do not go together."""
        from synth.errors import ConfigError

        spelled = (self.real, self.training, self.holdout)
        if self.data is not None and any(one is not None for one in (*spelled, self.patients)):
            raise ConfigError("--data stands for --real, --training, --holdout and --patients; give it alone")
        if (self.training is None) != (self.holdout is None):
            raise ConfigError("--training and --holdout go together: give both, or --real alone")
        if self.data is None and all(one is None for one in spelled):
            raise ConfigError("evaluate needs real volumes: --data PREPARED, --real DIR, or --training and --holdout")

    @contextmanager
    def real_side(self, seen: "Seen | None", seed: int) -> "Iterator[tuple[Prepared, str]]":
        """Yield the real volumes, and why privacy cannot be judged by them, empty where it can.

        Errors: DataError where the model of the set was trained on others, and those of `synth prepare`.
        """
        import tempfile

        from synth.data.prepared import Prepared
        from synth.data.seen import require_trained_on
        from synth.errors import DataError

        if self.data is not None:
            prepared = Prepared.load(self.data)
            if seen is not None:
                prepared = prepared if seen.fold is None else prepared.at_fold(seen.fold)
                require_trained_on(prepared, seen)
            yield prepared, ""
            return
        with tempfile.TemporaryDirectory(prefix="synth-evaluate-") as folder:
            dataset, division = self._divided(seed)
            prepared = _prepared(dataset, division, Path(folder) / "real")
            if self.training is None:
                yield prepared, UNKNOWN
                return
            if seen is not None:
                try:
                    require_trained_on(prepared, seen)
                except DataError as error:
                    raise DataError(str(error).replace(str(prepared.folder), str(self.training))) from error
            yield prepared, ""

    def require_others(self, prepared: "Prepared", made: "Sequence[Judged]") -> None:
        """Errors: ConfigError where samples are volumes of --real, voxel for voxel: they were judged by themselves."""
        from evaluation.privacy.checks import digest
        from pipelines.evidence import real_set
        from synth.errors import ConfigError

        if self.real is None:
            return
        cases = prepared.cases if self.training is None else prepared.split("test")
        known = {digest(item) for item in real_set(prepared, cases)}
        if same := [item.case for item in made if digest(item) in known]:
            raise ConfigError(
                f"{len(same)} of {len(made)} samples, {same[0]} first, are volumes of --real {self.real} "
                "voxel for voxel, and would be judged by themselves; give other real volumes"
            )

    def _divided(self, seed: int) -> "tuple[Dataset, Division]":
        """Return the folders as one dataset, and on which side each of its cases lies."""
        from synth.data.splits import Division, DivisionOptions, divide, patients_of
        from synth.formats import read

        if self.training is None or self.holdout is None:
            assert self.real is not None, "checked before"
            dataset = read(self.real)
            how = DivisionOptions(patients=self.patients, holdout=_REFERENCE, test=0.0, seed=seed)
            return dataset, divide(dataset.cases, how)
        first, second = read(self.training), read(self.holdout)
        parts: list[tuple[Split, Dataset, Sequence[Case]]] = [
            ("train", first, first.cases),
            ("holdout", second, second.cases),
        ]
        if self.real is not None:
            third = read(self.real)
            parts.append(("test", third, _others(third, (first, second))))
        cases: list[Case] = []
        splits: dict[str, Split] = {}
        for side, part, own in parts:
            _require_like(first, part)
            for case in own:
                case = replace(case, id=f"{side}_{case.id}") if case.id in splits else case
                cases.append(case)
                splits[case.id] = side
        patients, assumed = patients_of(cases, self.patients)
        return replace(first, cases=tuple(cases)), Division(patients=patients, splits=splits, assumed=assumed)


def _require_like(first: "Dataset", other: "Dataset") -> None:
    """Errors: DataError for other channels, labels or label values than the training data has."""
    from synth.errors import DataError

    for what, a, b in (
        ("channels", first.channels, other.channels),
        ("labels", first.label_values, other.label_values),
    ):
        if a != b:
            raise DataError(f"{other.root} has {what} {b}, {first.root} has {a}; give real volumes of one kind")


def _others(dataset: "Dataset", known: "Sequence[Dataset]") -> "list[Case]":
    """Return the cases whose voxels none of the known datasets has."""
    from synth.data.prepared import voxel_digest
    from synth.data.reading import read_image

    seen = {voxel_digest(read_image(case, one).data) for one in known for case in one.cases}
    return [case for case in dataset.cases if voxel_digest(read_image(case, dataset).data) not in seen]


def _prepared(dataset: "Dataset", division: "Division", out: Path) -> "Prepared":
    from pipelines.progress import staged
    from synth.data.preparation import PreparationOptions, prepare

    with staged() as report:
        return prepare(dataset, out, division=division, options=PreparationOptions(), report=report)
