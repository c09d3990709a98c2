"""synth release: copy the samples that a report lets go, and bind its verdict to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from synth.data.dataset import Dataset

RELEASE_FILE = "RELEASE.json"
_DATASET_KEYS = ("channel_names", "labels", "file_ending", "regions_class_order", "overwrite_image_reader_writer")
_ROW_KEYS = (
    *("case", "seed", "index", "attempt", "model", "condition", "mask_origin", "sampler", "steps", "guidance"),
    *("environment", "files", "software", "seam", "acceptance", "watermark"),
)
_NESTED_KEYS = {
    "condition": ("attributes", "text", "size", "spacing_mm", "edit"),
    "acceptance": ("judge", "segmenter", "tests", "rejected"),
    "watermark": ("key", "strength", "peaks"),
}
"""Of those rows in rows: p-values and agreement of a sample measure it against real patients, and stay inside."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """Copy the samples of SYNTHETIC that a report lets go: files whose sha256 stands in it, and no others.

    The report's privacy verdict must be a pass; where it failed for flagged samples alone and the audit without them
    passed, they are left out. RELEASE.json binds report, verdict and files by sha256. Exit code 3 where the report
    failed, 4 where it is undecidable.
    """

    synthetic: Annotated[Path, tyro.conf.Positional]
    """The generated dataset."""
    report: Path
    """Folder of the report that `synth evaluate` wrote, or its report.json."""
    out: Path
    """Folder of the release."""
    overwrite: bool = False
    """Replace an earlier release."""

    def run(self) -> int:
        """Check everything, then copy."""
        import os
        import shutil

        from evaluation.saved import read_report
        from pipelines.gate import AFTER, FAILED, IMAGES, release_code
        from synth.errors import DataError
        from synth.formats import read

        self._check_out()
        content, raw = read_report(self.report)
        if IMAGES not in content["verdicts"]:
            raise DataError(f"{self.report} has no privacy verdict on the samples; run `synth evaluate` with privacy")
        code = release_code(content)
        flagged = {row["case"] for row in content["samples"] if row["flagged"]}
        known = {row["case"] for row in content["samples"]}
        if code:
            print(f"not released: {content['verdicts'][IMAGES]['why']}")
            if code == FAILED and AFTER in content["verdicts"]:
                print(f"nor without the flagged samples: {content['verdicts'][AFTER]['why']}")
            return code
        self._require_flags(content["samples"])
        judged: dict[str, str] = content["judged"]
        self._require_said(judged)
        dataset = read(self.synthetic)
        if not dataset.layout.startswith("nnU-Net"):
            raise DataError(
                f"{self.synthetic} is laid out as {dataset.layout}; judge and release the nnU-Net set, and export that"
            )
        self._require_no_edits(known - flagged)
        files = self._files(dataset, judged, known, flagged)
        part = self.out.resolve().with_name(f".{self.out.resolve().name}.partial")
        shutil.rmtree(part, ignore_errors=True)
        try:
            self._copy(part, files, judged)
            written = self._write_sidecars(part, judged, known - flagged)
            self._bind(part, raw, content, files, written, sorted(flagged))
            if self.out.exists():
                shutil.rmtree(self.out)
            os.replace(part, self.out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        left = f"; {len(flagged)} flagged samples left out" if flagged else ""
        bound = len(files) + len(written)
        print(f"{len(known - flagged)} samples in {self.out}, {bound} files bound in {RELEASE_FILE}{left}")
        return 0

    def _check_out(self) -> None:
        from pipelines.places import require_apart
        from synth.errors import OutputError

        require_apart(self.out, self.synthetic, self.report)
        if self.out.exists() and any(self.out.iterdir()):
            if not self.overwrite:
                raise OutputError(f"{self.out} is not empty; give --overwrite or another --out")
            if not (self.out / RELEASE_FILE).is_file():
                raise OutputError(f"{self.out} is no release, so it is not replaced; give another --out")

    def _require_flags(self, samples: list[dict[str, Any]]) -> None:
        """Errors: DataError where a report that lets samples go does not say of one whether it was flagged."""
        from synth.errors import DataError

        untold = [row["case"] for row in samples if row["flagged"] is None]
        if untold:
            raise DataError(
                f"{self.report} does not say whether case {untold[0]} is flagged; run `synth evaluate` with privacy"
            )

    def _require_said(self, judged: dict[str, str]) -> None:
        """Errors: DataError where what the set says of itself is not what was judged, added or gone."""
        from pipelines.evidence import SAID
        from synth.errors import DataError

        for name in SAID:
            path = self.synthetic / name
            if path.exists() and name not in judged:
                raise DataError(f"{path} does not stand in the report; run `synth evaluate` again")
            if name in judged:
                self._judged_bytes(name, judged)

    def _require_no_edits(self, cases: set[str]) -> None:
        """Errors: DataError where one of the cases is an edit of an image not known to be synthetic."""
        from pipelines.origins import edits_patient
        from pipelines.records import rows_beside
        from synth.errors import DataError

        for row in rows_beside(self.synthetic):
            if row["case"] in cases and edits_patient(row):
                raise DataError(
                    f"{self.synthetic}: case {row['case']} is an edit of an image not known to be synthetic, which it "
                    "is beyond the edit; release edits of generated samples"
                )

    def _files(self, dataset: "Dataset", judged: dict[str, str], known: set[str], flagged: set[str]) -> list[str]:
        """Return the files to copy, relative to the set. Errors: DataError where set and report do not agree."""
        import os

        from synth.errors import DataError

        strange = sorted({case.id for case in dataset.cases} ^ known)
        if strange:
            raise DataError(
                f"case {strange[0]} is in the set or the report, not in both: the report is of another set; "
                "run `synth evaluate` again"
            )
        out = []
        for case in dataset.cases:
            if case.id in flagged:
                continue
            given = [path for path in (*case.images, case.mask) if path is not None]
            for path in (one for whole in given for one in (sorted(whole.iterdir()) if whole.is_dir() else [whole])):
                name = Path(os.path.relpath(path, self.synthetic)).as_posix()
                if name not in judged:
                    raise DataError(f"{path} does not stand in the report; run `synth evaluate` again")
                out.append(name)
        return sorted(out)

    def _judged_bytes(self, name: str, judged: dict[str, str]) -> bytes:
        """Return a file's bytes, which are those judged. Errors: DataError for others, and for paths that lead out."""
        import hashlib

        from synth.errors import DataError

        path, parts = self.synthetic / name, Path(name).parts
        if not path.resolve().is_relative_to(self.synthetic.resolve()) or Path(name).is_absolute() or ".." in parts:
            raise DataError(f"{path} leads out of {self.synthetic}; a release holds what lies in the set")
        if "internal" in parts:
            raise DataError(f"{path} is marked internal; it is not released")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); generate or judge the set again") from error
        if hashlib.sha256(data).hexdigest() != judged[name]:
            raise DataError(f"{path} is not the file that was judged (its sha256 differs); judge the set again")
        return data

    def _copy(self, part: Path, names: list[str], judged: dict[str, str]) -> None:
        """Copy each file whose bytes are those judged. Errors: DataError."""
        from synth.io import write_bytes

        for name in names:
            data = self._judged_bytes(name, judged)
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(part / name, data)

    def _write_sidecars(self, part: Path, judged: dict[str, str], cases: set[str]) -> dict[str, dict[str, str]]:
        """Write what a set says of itself, for the released cases and by known keys alone.

        Return {name: its sha256, and that of the judged file it was drawn from}. Errors: DataError where a row of the
        manifest names files of other bytes than those judged.
        """
        import hashlib
        import json

        from pipelines.records import MANIFEST, rows_beside
        from synth.documents import document_of
        from synth.errors import DataError
        from synth.io import write_bytes

        written: dict[str, bytes] = {}
        kept: list[dict[str, Any]] = []
        for number, row in enumerate(rows_beside(self.synthetic), start=1):
            if row["case"] not in cases:
                continue
            for name, sha256 in row.get("files", {}).items():
                if judged.get(name) != sha256:
                    raise DataError(
                        f"{self.synthetic / MANIFEST} line {number}: {name} is another file there than the one judged; "
                        "generate the set again, and judge that"
                    )
            kept.append({key: _known(key, row[key]) for key in _ROW_KEYS if key in row} | {"synthetic": True})
        if kept:
            written[MANIFEST] = "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept).encode()
        name = "dataset.json"
        info = document_of(self._judged_bytes(name, judged), self.synthetic / name, mend="generate the set again")
        own = {key: info[key] for key in _DATASET_KEYS if key in info}
        own |= {"name": part.name.strip(".").removesuffix(".partial"), "numTraining": len(cases), "synthetic": True}
        written[name] = (json.dumps(own, indent=1, sort_keys=True) + "\n").encode()
        for name, data in written.items():
            write_bytes(part / name, data)
        return {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "of": judged[name]} for name, data in written.items()
        }

    def _bind(
        self,
        part: Path,
        raw: bytes,
        content: dict[str, Any],
        files: list[str],
        written: dict[str, dict[str, str]],
        left_out: list[str],
    ) -> None:
        import hashlib
        import json

        from pipelines.gate import AFTER, IMAGES
        from synth.generator import software
        from synth.io import write_bytes

        bound = {
            "schema": 1,
            "synthetic": True,
            "software": software(),
            "population": content["population"],
            "report_sha256": hashlib.sha256(raw).hexdigest(),
            "verdict": content["verdicts"][AFTER if left_out else IMAGES],
            "verdict_before_drop": content["verdicts"][IMAGES],
            "left_out": left_out,
            "files": {name: content["judged"][name] for name in files},
            "written": {name: one["sha256"] for name, one in written.items()},
            "written_from": {name: one["of"] for name, one in written.items()},
            "note": "binds this report's verdict to these bytes; no formal (DP) guarantee, not a legal finding",
        }
        write_bytes(part / RELEASE_FILE, (json.dumps(bound, indent=1, sort_keys=True) + "\n").encode())


def _known(key: str, value: Any) -> Any:
    """Return what a row says under a key, by known keys alone where that is a row itself."""
    if key not in _NESTED_KEYS or not isinstance(value, dict):
        return value if key not in _NESTED_KEYS else None
    return {name: value[name] for name in _NESTED_KEYS[key] if name in value}
