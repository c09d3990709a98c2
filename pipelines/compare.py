"""synth compare: two reports side by side, refused where they do not rest on the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Print the differences of two reports of `synth evaluate`, B - A, with intervals where both reports have one.

    Refused unless both rest on the same: extractor, intensity mapping, real volumes, judge, numbers of samples.
    """

    a: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPORT_A")]
    """A report's folder, or its report.json."""
    b: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="REPORT_B")]
    """The other one."""
    out: Path | None = None
    """Also write the table to this new file (Markdown)."""

    def run(self) -> int:
        """Compare and print."""
        from evaluation.compare import compare
        from synth.errors import OutputError
        from synth.io import write_bytes

        if self.out is not None and self.out.exists():
            raise OutputError(f"{self.out} is there already; give another --out")
        found = compare(self.a, self.b)
        table = f"a: {self.a}\nb: {self.b}\n\n{found.markdown()}"
        print(table, end="")
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.out, table.encode())
        return 0
