"""A generated folder, browsed: its cases as pairs, its report. Reads inside the folder alone and writes nothing."""

import html
import secrets
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.page.pairs import Pair

LARGEST_REPORT_BYTES = 64 << 20
_REPORTS = ("share", "report/share", "evaluation/share")
"""Where a report is looked for; its internal side shows real images, and is never served."""


class Gallery:
    """The cases of a dataset folder. Errors: DataError where no known layout is there."""

    def __init__(self, source: Path, folder: Path) -> None:
        from synth.formats import read

        self.source, self.folder = source.resolve(), folder
        below = self.source / "dataset"  # as quickstart lays it out, its report beside
        self.data = below if (below / "dataset.json").is_file() else self.source
        self.dataset = read(self.data)
        self._cases = {case.id: case for case in self.dataset.cases}
        self._shown: dict[str, Pair] = {}

    @property
    def cases(self) -> list[str]:
        """Names of the cases."""
        return sorted(self._cases)

    @cached_property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """What the manifest says of each case; nothing of a set without one."""
        from pipelines.records import MANIFEST, manifest_rows

        path = self.data / MANIFEST
        return {row["case"]: row for row in manifest_rows(path)} if path.is_file() else {}

    def show(self, name: str) -> "Pair":
        """Return a case, copied into the page's folder. Errors: DataError for a name or a file that is not in it."""
        from pipelines.page.pairs import Pair
        from synth.errors import DataError, nearest
        from synth.io import read
        from synth.volume import Volume

        if name not in self._cases:
            raise DataError(f"case {name!r} is not in the folder; {nearest(name, self._cases)}")
        if name in self._shown:
            return self._shown[name]
        import numpy as np

        case = self._cases[name]
        images = [read(self._inside(path)) for path in case.images]
        image = Volume(np.concatenate([one.data for one in images]), images[0].affine)
        mask = None
        if case.mask is not None:
            mask = read(self._inside(case.mask), labels=self.dataset.label_values)
        place = self.folder / secrets.token_hex(12)
        place.mkdir(parents=True)
        row = self.provenance.get(name, {"case": name})
        names = (self.dataset.channels, self.dataset.labels)
        pair = Pair.written(name, (image, mask), names, place, provenance=row)
        self._shown[name] = pair
        return pair

    def report(self) -> str:
        """Return the shareable report as a frame without scripts, or why there is none."""
        for place in _REPORTS:
            path = self.source / place / "index.html"
            if path.is_file() and path.stat().st_size <= LARGEST_REPORT_BYTES:
                page = html.escape(path.read_text(encoding="utf-8", errors="replace"), quote=True)
                return f'<iframe class="report" sandbox="" title="report" srcdoc="{page}"></iframe>'
        return "<p>No shareable report beside this set: <code>synth evaluate</code> writes one.</p>"

    def _inside(self, path: Path) -> Path:
        """Return a file of the folder. Errors: DataError for one that a list or a link puts elsewhere."""
        from synth.errors import DataError

        if not path.resolve().is_relative_to(self.source):
            raise DataError(f"{path.name} lies outside the folder and is not shown; copy it in")
        return path
