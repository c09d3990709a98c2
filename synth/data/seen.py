"""Which patients a model saw, told without naming them: what lets others check that they judge it on unseen ones.

A case is known by its voxels, not by its name: names are few and can be tried out, voxels only who holds them
can hash. So the list tells nothing to others, and finds a case again under another name or working grid. A model that
was fine-tuned saw whom its source saw, too.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from synth.data.prepared import Prepared, PreparedCase
from synth.errors import DataError

SEEN_FILE = "patients.json"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Salted hashes of the cases that trained a model and that chose its checkpoint, and the fold it is of.

    hash = sha256(salt + the case's digest)      model: sha256 of the model, once it is written
    source       what the model saw that this one was fine-tuned from; None where there is none, or it is not recorded
    unrecorded   name of the model that this one was fine-tuned from, where that does not say whom it saw
    """

    salt: str
    training: tuple[str, ...]
    holdout: tuple[str, ...] = ()
    fold: int | None = None
    model: str = ""
    source: "Seen | None" = None
    unrecorded: str = ""

    @classmethod
    def of(cls, prepared: Prepared, *, seed: int) -> "Seen":
        """Return what a run on `prepared` sees. The salt comes from the run, so that equal runs have equal bytes."""
        training, holdout = ([prepared.digest(case) for case in prepared.split(side)] for side in ("train", "holdout"))
        salt = hashlib.sha256(f"{seed} {prepared.fold} {sorted(training)} {sorted(holdout)}".encode()).hexdigest()[:32]
        return cls(salt=salt, training=_hashed(salt, training), holdout=_hashed(salt, holdout), fold=prepared.fold)

    @property
    def line(self) -> tuple["Seen", ...]:
        """This and what was seen before: of its source, of the source of that, and so on."""
        return (self,) if self.source is None else (self, *self.source.line)

    @property
    def gap(self) -> str:
        """Name of the model in the line that does not say whom it saw; empty where every one does."""
        return self.line[-1].unrecorded

    def has(self, digest: str) -> bool:
        """True where the case of this digest trained the model or its sources, or chose their checkpoints."""
        for one in self.line:
            (known,) = _hashed(one.salt, [digest])
            if known in one.training or known in one.holdout:
                return True
        return False

    def trained_on(self, digests: Collection[str]) -> bool:
        """True where these are the digests of all cases that trained the model last, and maybe of some of its sources.

        A case that trained neither makes it False.
        """
        trained = self.trained()
        return set(self.training) <= set(_hashed(self.salt, digests)) and all(map(trained.has, digests))

    def after(self, source: "Seen | None", name: str) -> "Seen":
        """Return this as of a model fine-tuned from the one called `name`, which saw `source` (None: does not say)."""
        return replace(self, source=source, unrecorded="" if source is not None else name)

    def of_model(self, sha256: str) -> "Seen":
        """Return this, told of the model with this sha256."""
        return replace(self, model=sha256)

    def trained(self) -> "Seen":
        """Return this without those that only chose checkpoints, here and in its sources."""
        return replace(self, holdout=(), source=None if self.source is None else self.source.trained())

    def words(self) -> str:
        """Return how many cases trained the model, and which others it knows of.

        >>> Seen(salt="s", training=("a", "b")).after(None, "brain-tiny").words()
        '2 cases (salted hashes); fine-tuned from brain-tiny, whose cases are not recorded'
        """
        told = f"{len(self.training)} cases (salted hashes)"
        for one in self.line[1:]:
            told += f"; fine-tuned from a model of {len(one.training)} cases"
        return told + (f"; fine-tuned from {self.gap}, whose cases are not recorded" if self.gap else "")

    def dump(self) -> bytes:
        """Return the content of patients.json; equal values give equal bytes."""
        return (json.dumps(_row(self), sort_keys=True, indent=1) + "\n").encode()


def read_seen(folder: Path) -> Seen | None:
    """Return what the patients.json of a model or a set says; None where there is none, so that nothing is known.

    Errors: DataError where the file is broken.
    """
    path = folder / SEEN_FILE
    if not path.is_file():
        return None
    try:
        return _of_row(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is broken ({error!r}); copy the folder again") from error


def _row(seen: Seen) -> dict[str, object]:
    """Return what patients.json says; of sources only where there are some."""
    row: dict[str, object] = {"fold": seen.fold, "model": seen.model, "salt": seen.salt}
    row |= {"holdout": list(seen.holdout), "training": list(seen.training)}
    row |= {} if seen.source is None else {"source": _row(seen.source)}
    return row | ({"unrecorded": seen.unrecorded} if seen.unrecorded else {})


def _of_row(row: Mapping[str, Any]) -> Seen:
    lists = {name: tuple(str(one) for one in row[name]) for name in ("training", "holdout")}
    return Seen(
        salt=str(row["salt"]),
        fold=None if row["fold"] is None else int(row["fold"]),
        model=str(row["model"]),
        source=_of_row(row["source"]) if "source" in row else None,
        unrecorded=str(row.get("unrecorded", "")),
        **lists,
    )


def require_trained_on(prepared: Prepared, seen: Seen) -> None:
    """Raise DataError unless the training patients of `prepared` are those of the model, and it saw none held out.

    All who trained the model last have to be there. Of a fine-tuned model those who trained its sources may be there
    too; a source may have seen others that `prepared` does not hold.
    """
    given = [prepared.digest(case) for case in prepared.split("train")]
    if not seen.trained_on(given):
        same = len(set(_hashed(seen.salt, given)) & set(seen.training))
        others = len(given) - sum(map(seen.trained().has, given))
        raise DataError(
            f"the model was not trained on the training patients of {prepared.folder}: {same} of its "
            f"{len(seen.training)} training cases are among the {len(given)} there"
            + (f", and {others} there never trained it" if others else "")
            + "; give the data it was trained on"
        )
    require_unseen(prepared, [*prepared.split("val"), *prepared.split("test")], seen)


def require_unseen(
    prepared: Prepared,
    cases: Iterable[PreparedCase],
    seen: Seen,
    *,
    mend: str = "give the data it was trained on",
) -> None:
    """Raise DataError, with the names, where the model saw a case of a patient that one of `cases` is of."""
    known = {row.patient for row in prepared.rows if seen.has(prepared.digest(row))}
    leaked = sorted(case.case for case in cases if case.patient in known)
    if leaked:
        more = f" and {len(leaked) - 8} more" if len(leaked) > 8 else ""
        raise DataError(
            f"the model saw patients that it would be judged on: cases {', '.join(leaked[:8])}{more} of "
            f"{prepared.folder}; {mend}",
            unnamed=f"the model saw patients that it would be judged on ({len(leaked)} cases); {mend}",
        )


def require_masks_of_others(
    prepared: Prepared, cases: Iterable[PreparedCase], masks: Iterable[tuple[str, str]]
) -> None:
    """Raise DataError, with the names, where a mask is of a patient that one of `cases` is of: samples would show it.

    masks   (case, `mask_digest`) of each; either is enough, so that neither a new name nor a changed voxel hides one
    """
    whose: dict[str, set[str]] = defaultdict(set)
    for row in prepared.rows:
        for key in filter(None, (f"case {row.case}", row.mask_digest)):
            whose[key].add(row.patient)
    held = {case.patient for case in cases}
    shown = sorted({case for case, digest in masks if held & (whose[f"case {case}"] | whose[digest])})
    if shown:
        more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
        raise DataError(
            f"masks {', '.join(shown[:8])}{more} are of patients that {prepared.folder} keeps for validation or test, "
            "and samples that follow them would be trained on; give --masks without them (a mask of another patient "
            "under such a name: rename it)"
        )


def unseen_cases(prepared: Prepared, seen: Seen | None) -> tuple[PreparedCase, ...]:
    """Return the real cases that may validate a network trained on a model's samples.

    They are the validation patients of the model's fold, or the test patients where it is of none. A model that
    does not say whom it saw (None) is taken at its word: of no one here.
    Errors: DataError where the model saw one of them, or there are none.
    """
    view = prepared if seen is None or seen.fold is None else prepared.at_fold(seen.fold)
    cases = view.split("test" if view.fold is None else "val")
    if not cases:
        why = "no test patients to validate on; run `synth prepare` with --test"
        raise DataError(f"{prepared.folder} has {why}", unnamed=f"the data has {why}")
    if seen is not None:
        require_unseen(prepared, cases, seen)
    return cases


def _hashed(salt: str, digests: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(hashlib.sha256(f"{salt}{digest}".encode()).hexdigest() for digest in digests))
