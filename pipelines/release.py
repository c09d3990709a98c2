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
    *("environment", "files", "software", "seam", "acceptance"),
)


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

        from pipelines.gate import AFTER, FAILED, IMAGES, release_code
        from synth.errors import DataError
        from synth.formats import read

        self._check_out()
        raw, content = self._content()
        try:
            code = release_code(content)
            why = content["verdicts"][IMAGES]["why"]
            flagged = {str(row["case"]) for row in content["samples"] if row["flagged"]}
            known = {str(row["case"]) for row in content["samples"]}
            judged = {str(name): str(sha) for name, sha in content["judged"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{self._file} has no privacy verdict on the samples ({error}); run `synth evaluate` with privacy"
            ) from error
        if code:
            print(f"not released: {why}")
            if code == FAILED and AFTER in content["verdicts"]:
                print(f"nor without the flagged samples: {content['verdicts'][AFTER]['why']}")
            return code
        dataset = read(self.synthetic)
        if not dataset.layout.startswith("nnU-Net"):
            raise DataError(
                f"{self.synthetic} is laid out as {dataset.layout}; judge and release the nnU-Net set, and export that"
            )
        files = self._files(dataset, judged, known, flagged)
        part = self.out.resolve().with_name(f".{self.out.resolve().name}.partial")
        shutil.rmtree(part, ignore_errors=True)
        try:
            self._copy(part, files, judged)
            written = self._write_sidecars(part, dataset, known - flagged)
            self._bind(part, raw, content, {name: judged[name] for name in files}, written, sorted(flagged))
            if self.out.exists():
                shutil.rmtree(self.out)
            os.replace(part, self.out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        left = f"; {len(flagged)} flagged samples left out" if flagged else ""
        print(f"{len(known - flagged)} samples in {self.out}, {len(files)} files bound in {RELEASE_FILE}{left}")
        return 0

    @property
    def _file(self) -> Path:
        return self.report / "report.json" if self.report.is_dir() else self.report

    def _check_out(self) -> None:
        from synth.errors import OutputError

        out, source = self.out.resolve(), self.synthetic.resolve()
        if out == source or source in out.parents or out in source.parents:
            raise OutputError(f"--out {self.out} and {self.synthetic} lie in one another; give another --out")
        if self.out.exists() and any(self.out.iterdir()):
            if not self.overwrite:
                raise OutputError(f"{self.out} is not empty; give --overwrite or another --out")
            if not (self.out / RELEASE_FILE).is_file():
                raise OutputError(f"{self.out} is no release, so it is not replaced; give another --out")

    def _content(self) -> tuple[bytes, dict[str, Any]]:
        """Return the report's bytes and what they say. Errors: DataError where it is missing or broken."""
        import json

        from synth.errors import DataError

        try:
            raw = self._file.read_bytes()
            content = json.loads(raw)
        except (OSError, ValueError) as error:
            raise DataError(f"{self._file} cannot be read ({error}); give a report of `synth evaluate`") from error
        if not isinstance(content, dict) or content.get("schema") != 1:
            raise DataError(f"{self._file} is no report of this version; run `synth evaluate` again")
        return raw, content

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

    def _copy(self, part: Path, names: list[str], judged: dict[str, str]) -> None:
        """Copy each file whose bytes are those judged. Errors: DataError for others, and for paths that lead out."""
        import hashlib

        from synth.errors import DataError
        from synth.io import write_bytes

        inside = self.synthetic.resolve()
        for name in names:
            path = self.synthetic / name
            parts = Path(name).parts
            if not path.resolve().is_relative_to(inside) or Path(name).is_absolute() or ".." in parts:
                raise DataError(f"{path} leads out of {self.synthetic}; a release holds what lies in the set")
            if "internal" in parts:
                raise DataError(f"{path} is marked internal; it is not released")
            try:
                data = path.read_bytes()
            except OSError as error:
                raise DataError(f"{path} cannot be read ({error.strerror}); generate or judge the set again") from error
            if hashlib.sha256(data).hexdigest() != judged[name]:
                raise DataError(f"{path} is not the file that was judged (its sha256 differs); judge the set again")
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(part / name, data)

    def _write_sidecars(self, part: Path, dataset: "Dataset", cases: set[str]) -> dict[str, str]:
        """Write what a set says of itself, for the released cases and by known keys alone; return {name: sha256}."""
        import hashlib
        import json

        from pipelines.evidence import manifest_rows
        from synth.io import write_bytes

        written: dict[str, bytes] = {}
        rows = [row for row in manifest_rows(self.synthetic) if row["case"] in cases]
        if rows:
            kept = [{key: row[key] for key in _ROW_KEYS if key in row} | {"synthetic": True} for row in rows]
            written["manifest.jsonl"] = "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept).encode()
        if dataset.layout.startswith("nnU-Net"):
            info = json.loads((self.synthetic / "dataset.json").read_text(encoding="utf-8"))
            own = {key: info[key] for key in _DATASET_KEYS if key in info}
            own |= {"name": part.name.strip(".").removesuffix(".partial"), "numTraining": len(cases), "synthetic": True}
            written["dataset.json"] = (json.dumps(own, indent=1, sort_keys=True) + "\n").encode()
        for name, data in written.items():
            write_bytes(part / name, data)
        return {name: hashlib.sha256(data).hexdigest() for name, data in written.items()}

    def _bind(
        self,
        part: Path,
        raw: bytes,
        content: dict[str, Any],
        files: dict[str, str],
        written: dict[str, str],
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
            "files": files,
            "written": written,
            "note": "binds this report's verdict to these bytes; no formal (DP) guarantee, not a legal finding",
        }
        write_bytes(part / RELEASE_FILE, (json.dumps(bound, indent=1, sort_keys=True) + "\n").encode())
