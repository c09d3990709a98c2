"""A judge of single samples as a folder: tensors as safetensors, the rest as JSON, a card that says what it holds.

judge.json, weights.safetensors   the segmenter, where there is one: what `--judge` takes, with patients.json: who
                                  trained it, as salted hashes
gate.safetensors                  the artefact gate, where there is one
real.safetensors                  training and held-out volumes in cells; scores of the held-out ones and whose they are
accept.json                       schema, rate, thresholds, what is absent and why, sha256 of every file and of itself
README.md                         the card
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.acceptance import REASONS, Acceptance, Near, Reference
from evaluation.artefact import load_gate, save_gate
from evaluation.segmenter import load_judge, save_judge
from synth.config import build, plain
from synth.data.schema import Schema
from synth.data.seen import SEEN_FILE, Seen
from synth.errors import CheckpointError, OutputError, SynthError

FORMAT, ACCEPT_FILE, CARD = 2, "accept.json", "README.md"
_WEIGHTS, _GATE, _REAL = "weights.safetensors", "gate.safetensors", "real.safetensors"
_AGAIN = "write it again with `synth evaluate --save-judge`"


def write_acceptance(judge: Acceptance, folder: Path, *, facts: Mapping[str, object], seen: Seen | None = None) -> str:
    """Write a judge's folder and return its sha256: the whole folder or nothing; equal judges give equal bytes.

    A folder that is there is replaced.
    facts   of the segmenter, its held-out Dice among them, for judge.json
    seen    who trained it, for patients.json; None where that is not known
    Errors: OutputError when it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save

    partial, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    try:
        _restore(folder, old)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if judge.segmenter is not None:
            digest = save_judge(judge.segmenter, partial, facts=dict(facts))
            if seen is not None:
                (partial / SEEN_FILE).write_bytes(seen.of_model(digest).dump())
        if judge.gate is not None:
            save_gate(judge.gate, partial / _GATE)
        (partial / _REAL).write_bytes(save(_tensors(judge)))
        files = {path.name: _sha256(path.read_bytes()) for path in sorted(partial.iterdir())}
        info: dict[str, Any] = {
            "format": FORMAT,
            "rate": judge.rate,
            "schema": plain(judge.schema),
            "thresholds": {name: one.threshold(judge.rate) for name, one in judge.references.items()},
            "held_out_patients": {name: one.count for name, one in judge.references.items()},
            "without": dict(judge.without),
            "cases": plain(judge.cases),
            "files": files,
        }
        info["sha256"] = _own_hash(info)
        (partial / ACCEPT_FILE).write_text(json.dumps(info, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        (partial / CARD).write_text(card(replace(judge, sha256=info["sha256"])), encoding="utf-8")
        if folder.exists():
            os.replace(folder, old)
        os.replace(partial, folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"{folder} cannot be written ({why}); free room or give another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _restore(folder, old)
    return info["sha256"]


def _restore(folder: Path, old: Path) -> None:
    """Put the former folder back where no other took its place, else remove it."""
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def read_acceptance(folder: Path) -> Acceptance:
    """Return the judge of a folder. Errors: CheckpointError where it is no judge of samples, damaged or changed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    info = _info(folder)
    contents: dict[str, bytes] = {}
    try:
        for name, digest in info["files"].items():
            contents[name] = (folder / Path(name).name).read_bytes()
            if _sha256(contents[name]) != digest:
                raise CheckpointError(
                    f"{folder / name} is not the file that {ACCEPT_FILE} names; copy the folder again"
                )
        tensors = load(contents[_REAL])
        references = {
            name: Reference(tensors[f"{name}.scores"], tensors[f"{name}.patients"])
            for name in REASONS
            if f"{name}.scores" in tensors
        }
        return Acceptance(
            schema=build(Schema, info["schema"], where=str(folder / ACCEPT_FILE)),
            segmenter=load_judge(folder)[0] if _WEIGHTS in contents else None,
            gate=load_gate(folder / _GATE) if _GATE in contents else None,
            near=Near(tensors["training"], tensors["holdout"]) if "training" in tensors else None,
            references=references,
            without=dict(info["without"]),
            rate=float(info["rate"]),
            cases={side: tuple(digests) for side, digests in info["cases"].items()},
            sha256=str(info["sha256"]),
        )
    except CheckpointError:
        raise
    except (OSError, SynthError, SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder} is damaged ({error!r}); copy the folder again, or {_AGAIN}") from error


def _info(folder: Path) -> dict[str, Any]:
    """Return accept.json, whose own hash is right. Errors: CheckpointError."""
    path = folder / ACCEPT_FILE
    if not path.is_file():
        if (folder / "judge.json").is_file():
            raise CheckpointError(f"{folder} holds a segmenter alone, no tests of samples; {_AGAIN}")
        raise CheckpointError(f"{folder} is no judge folder: {ACCEPT_FILE} is missing; {_AGAIN}")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        number = info["format"]
        if number == FORMAT and info["sha256"] != _own_hash(info):
            raise ValueError("it was changed: its sha256 is another")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy the folder again, or {_AGAIN}") from error
    if number != FORMAT:
        raise CheckpointError(f"{path} is of format {number}, this version reads {FORMAT}; {_AGAIN}")
    return info


def card(judge: Acceptance) -> str:
    """Return the README.md of a judge's folder."""
    schema = judge.schema
    lines = [
        "# Judge of synthetic samples",
        "",
        "**Holds data of real patients. Keep it where their images are kept; do not share or publish it.**",
        "",
        f"- population: {schema.population}",
        f"- channels: {', '.join(schema.channels)}",
        f"- labels: {', '.join(label.name for label in schema.labels)}",
        f"- grid: {' x '.join(map(str, schema.grid))} at {' x '.join(f'{step:g}' for step in schema.spacing_mm)} mm",
        f"- sha256: {judge.sha256}",
        "",
        "## What of patients is in it",
        "",
    ]
    if judge.near is not None:
        count, _, *grid = judge.near.training.shape
        lines.append(
            f"- `{_REAL}`: {count} training and {len(judge.near.holdout)} held-out volumes, "
            f"each reduced to {' x '.join(map(str, grid))} cells "
            f"({np.prod(grid) / np.prod(schema.grid):.0%} of their voxels): pictures of patients"
        )
    lines += [
        f"- `{_REAL}`: the scores of held-out volumes, and which are of one patient, without names",
        f"- `{ACCEPT_FILE}`: hashes of the voxels of {sum(map(len, judge.cases.values()))} cases",
        "- the weights of a segmenter and the statistics of a gate that were learned from real volumes",
        "",
        "## Tests",
        "",
        f"Each rejects at most {judge.rate:.0%} of real volumes like the held-out ones (conformal p, by patient).",
        "",
        "| test | rejects | held-out patients |",
        "|---|---|---|",
    ]
    told = {
        "agreement": "Dice of the segmenter with the mask below {:.4g}",
        "artefact": "score of the artefact gate above {:.4g}",
        "near_copy": "1 - correlation with the nearest training volume, over that with a held-out one, below {:.4g}",
    }
    for name, one in judge.references.items():
        value = one.threshold(judge.rate) * (-1 if name == "artefact" else 1)
        lines.append(f"| {name} | {told[name].format(value)} | {one.count} |")
    lines += [f"| {name} | absent: {why} | |" for name, why in judge.without.items()]
    lines += [
        "",
        "`synth generate MODEL --accept FOLDER` makes a rejected sample again, with the next attempt of its own seed. "
        "A set that was accepted so was chosen by these tests: what they say of it afterwards is optimistic.",
    ]
    return "\n".join(lines) + "\n"


def _tensors(judge: Acceptance) -> dict[str, np.ndarray]:
    sides = {} if judge.near is None else {"training": judge.near.training, "holdout": judge.near.holdout}
    out = {name: np.ascontiguousarray(volumes) for name, volumes in sides.items()}
    for name, one in judge.references.items():
        out[f"{name}.scores"] = np.ascontiguousarray(one.scores, dtype=np.float64)
        out[f"{name}.patients"] = np.ascontiguousarray(one.patients, dtype=np.int64)
    return out


def _own_hash(info: Mapping[str, Any]) -> str:
    """Return the sha256 of a judge: of everything that accept.json says, the hashes of its files included."""
    rest = {name: value for name, value in info.items() if name != "sha256"}
    return _sha256(json.dumps(rest, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
