"""Which patients a model saw, told without naming them: what lets others check that they judge it on unseen ones.

A case is known by its voxels, not by its name: names are few and can be tried out, voxels only who holds them
can hash. So the list tells nothing to others, and finds a case again under another name or working grid.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from synth.data.prepared import Prepared, PreparedCase
from synth.errors import DataError

SEEN_FILE = "patients.json"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Salted hashes of the cases that trained a model and that chose its checkpoint, and the fold it is of.

    hash = sha256(salt + the case's digest)      model: sha256 of the model, once it is written
    """

    salt: str
    training: tuple[str, ...]
    holdout: tuple[str, ...] = ()
    fold: int | None = None
    model: str = ""

    @classmethod
    def of(cls, prepared: Prepared, *, seed: int) -> "Seen":
        """Return what a run on `prepared` sees. The salt comes from the run, so that equal runs have equal bytes."""
        training, holdout = ([prepared.digest(case) for case in prepared.split(side)] for side in ("train", "holdout"))
        salt = hashlib.sha256(f"{seed} {prepared.fold} {sorted(training)} {sorted(holdout)}".encode()).hexdigest()[:32]
        return cls(salt=salt, training=_hashed(salt, training), holdout=_hashed(salt, holdout), fold=prepared.fold)

    def has(self, digest: str) -> bool:
        """True where the case of this digest trained the model or chose its checkpoint."""
        (known,) = _hashed(self.salt, [digest])
        return known in self.training or known in self.holdout

    def of_model(self, sha256: str) -> "Seen":
        """Return this, told of the model with this sha256."""
        return replace(self, model=sha256)

    def dump(self) -> bytes:
        """Return the content of patients.json; equal values give equal bytes."""
        fields = {"fold": self.fold, "model": self.model, "salt": self.salt}
        lists = {"holdout": list(self.holdout), "training": list(self.training)}
        return (json.dumps({**fields, **lists}, sort_keys=True, indent=1) + "\n").encode()


def read_seen(folder: Path) -> Seen | None:
    """Return what the patients.json of a model or a set says; None where there is none, so that nothing is known.

    Errors: DataError where the file is broken.
    """
    path = folder / SEEN_FILE
    if not path.is_file():
        return None
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(str(one) for one in row[name]) for name in ("training", "holdout")}
        fold = None if row["fold"] is None else int(row["fold"])
        return Seen(salt=str(row["salt"]), fold=fold, model=str(row["model"]), **lists)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is broken ({error!r}); copy the folder again") from error


def require_trained_on(prepared: Prepared, seen: Seen) -> None:
    """Raise DataError unless the model was trained on the training patients of `prepared`, and saw no other ones."""
    given = _hashed(seen.salt, (prepared.digest(case) for case in prepared.split("train")))
    if set(given) != set(seen.training):
        same = len(set(given) & set(seen.training))
        raise DataError(
            f"the model was not trained on the training patients of {prepared.folder}: {same} of its "
            f"{len(seen.training)} training cases are among the {len(given)} there; give the data it was trained on"
        )
    require_unseen(prepared, [*prepared.split("val"), *prepared.split("test")], seen)


def require_unseen(prepared: Prepared, cases: Iterable[PreparedCase], seen: Seen) -> None:
    """Raise DataError, with the names, where the model saw a case of a patient that one of `cases` is of."""
    known = {row.patient for row in prepared.rows if seen.has(prepared.digest(row))}
    leaked = sorted(case.case for case in cases if case.patient in known)
    if leaked:
        more = f" and {len(leaked) - 8} more" if len(leaked) > 8 else ""
        raise DataError(
            f"the model saw patients that it would be judged on: cases {', '.join(leaked[:8])}{more} of "
            f"{prepared.folder}; give the data it was trained on"
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
        raise DataError(f"{prepared.folder} has no test patients to validate on; run `synth prepare` with --test")
    if seen is not None:
        require_unseen(prepared, cases, seen)
    return cases


def _hashed(salt: str, digests: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(hashlib.sha256(f"{salt}{digest}".encode()).hexdigest() for digest in digests))
