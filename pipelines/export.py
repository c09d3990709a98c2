"""synth export: a finished generated set laid out anew. Voxels, labels, geometry and provenance stay; no model runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from pipelines.generate import FormatName

if TYPE_CHECKING:
    from synth.data.dataset import Case, Dataset
    from synth.formats.writing import Writer
    from synth.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the generated set SET in another layout, with its manifest.

    SET is what `synth generate` finished, in a layout read as files (all but medmnist and webdataset).
    The same command again completes an export that was cut short.
    """

    set: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SET")]
    """A finished set: it has a manifest.jsonl."""
    out: Path
    """Folder to write."""
    format: FormatName
    """Layout to write; see docs/formats.md."""
    prompts: bool = False
    """Also write prompts.jsonl and boxes.json: points, boxes, scribbles, captions, questions, measured on the masks."""

    def run(self) -> int:
        """Write what is missing; sidecars and the manifest come before the index."""
        from pipelines.places import require_apart
        from pipelines.progress import progress
        from pipelines.records import prompts_path
        from pipelines.workers import alone
        from synth.formats import WRITERS, read
        from synth.formats.writing import Told
        from synth.io import write_bytes

        require_apart(self.out, self.set)
        rows = {str(row["case"]): row for row in self._rows()}
        dataset = read(self.set)
        cases = {case.id: case for case in dataset.cases}
        self._require_same(rows, cases)
        writer = WRITERS[self.format](self.out, _described(dataset, next(iter(rows.values()))))
        self.out.mkdir(parents=True, exist_ok=True)
        with alone(self.out):
            self._claim()
            todo = [name for name in rows if not (self._done(name) and writer.has(name))]
            if todo:
                writer.reopen()
            with progress("cases", len(todo)) as bar:
                for name in todo:
                    self._write(writer, dataset, cases[name], rows[name])
                    bar.advance()
            records = [self.out / "records" / f"{name}.json" for name in rows]
            write_bytes(self.out / "manifest.jsonl", b"".join(path.read_bytes() + b"\n" for path in records))
            for sidecar in ("patients.json",):
                if (self.set / sidecar).is_file():
                    write_bytes(self.out / sidecar, (self.set / sidecar).read_bytes())
            if self.prompts:
                from synth.formats.prompts import write_prompts

                write_prompts(self.out, map(prompts_path, records))
            writer.finish(len(rows), [Told.of(row) for row in rows.values()])
        print(f"{len(rows)} samples in {self.out} as {self.format}")
        return 0

    def _rows(self) -> list[dict[str, Any]]:
        """Return the manifest. Errors: DataError without one: what is not known to be synthetic is not exported."""
        from pipelines.records import rows_beside
        from synth.errors import DataError

        if not self.set.is_dir():
            raise DataError(f"{self.set} is not a folder; give a set that `synth generate` wrote")
        rows = rows_beside(self.set)
        if not rows or not all(row.get("synthetic") is True for row in rows):
            raise DataError(
                f"{self.set} has no manifest.jsonl of synthetic samples; give a set that `synth generate` finished"
            )
        return rows

    def _require_same(self, rows: dict[str, Any], cases: "dict[str, Case]") -> None:
        from synth.errors import DataError

        odd = sorted(set(rows) ^ set(cases))
        if odd:
            where = "manifest.jsonl alone" if odd[0] in rows else "the images alone"
            raise DataError(f"{self.set}: case {odd[0]!r} stands in {where}; generate the set again")

    def _claim(self) -> None:
        """Errors: OutputError for a folder that holds anything but this export."""
        import json

        from synth.errors import OutputError
        from synth.formats.writing import sha256_of
        from synth.io import write_bytes

        asked: dict[str, Any] = {"export": self.format, "of": sha256_of(self.set / "manifest.jsonl")}
        asked |= {"prompts": self.prompts, "request": self._request()}
        path = self.out / "request.json"
        content = (json.dumps(asked, sort_keys=True, indent=1) + "\n").encode()
        if path.is_file() and path.read_bytes() != content:
            raise OutputError(f"{self.out} holds another export or set; give another --out")
        if not path.is_file():
            if any(found.name != f".{path.name}.partial" for found in self.out.iterdir()):
                raise OutputError(f"{self.out} is not empty; give another --out")
            write_bytes(path, content)

    def _request(self) -> dict[str, Any] | None:
        """Return what the samples were generated by, so that they can be made again; None where it is not known."""
        from pipelines.records import REQUEST, read_request

        path = self.set / REQUEST
        asked = read_request(path) if path.is_file() else {}
        return asked.get("request") if "export" in asked else asked or None

    def _done(self, case: str) -> bool:
        """Return whether a case has its record, whole: a cut of power may leave an empty one."""
        import json

        try:
            return json.loads((self.out / "records" / f"{case}.json").read_text(encoding="utf-8"))["case"] == case
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _require_unchanged(self, row: dict[str, Any]) -> None:
        """Errors: DataError where a file is not the one that the manifest names: an export would vouch for it."""
        from synth.errors import DataError
        from synth.formats.nnunet import sha256_of

        for name, digest in row.get("files", {}).items():
            path = self.set / name
            if ".." in Path(name).parts or not path.is_file() or sha256_of(path) != digest:
                raise DataError(f"{path} is not the file that manifest.jsonl names; generate the set again")

    def _write(self, writer: "Writer", dataset: "Dataset", case: "Case", row: dict[str, Any]) -> None:
        """Write one case, what is derived of it, and its record, which comes last."""
        import json

        from pipelines.records import write_derived
        from synth.data.reading import read_image, read_mask
        from synth.formats.prompts import derive
        from synth.formats.writing import Told
        from synth.io import write_bytes

        self._require_unchanged(row)
        image = read_image(case, dataset, varied=False)
        mask = _as_named(read_mask(case, dataset, image), writer)
        row = {**row, "files": writer.add(case.id, image, mask, Told.of(row))}
        row.pop("prompts", None)
        record = self.out / "records" / f"{case.id}.json"
        if self.prompts:
            seed = (int(row.get("seed", 0)), int(row.get("index", 0)))
            derived = derive(mask, case=case.id, seed=seed, patient_space=writer.about.patient_space)
            row["prompts"] = write_derived(record, derived)
        write_bytes(record, json.dumps(row, sort_keys=True).encode())


def _described(dataset: "Dataset", row: dict[str, Any]):  # noqa: ANN202 - Description
    """Return what all cases share, labels under the values that they had at the source."""
    from dataclasses import replace

    from synth.formats.writing import Description

    own = dataset.extra.get("synth_label_values")
    values = {str(name): value for name, value in own.items()} if isinstance(own, dict) else {}
    return Description(
        name=str(dataset.extra.get("name") or f"Synthetic_{row['model'].get('name', 'set')}"),
        channels=dataset.channels,
        labels=tuple(replace(label, value=int(values.get(label.name, label.value))) for label in dataset.labels),
        file_ending=dataset.file_ending,
        population=dataset.population,
        software=str(row.get("software", "synthvol")),
    )


def _as_named(mask: "Volume", writer: "Writer") -> "Volume":
    """Return the mask under the source's values, its labels named."""
    from synth.formats.writing import renumbered

    values = writer.about.label_values
    return mask.replace(data=renumbered("", mask, values), labels=values)
