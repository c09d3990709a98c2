"""What of a pair can be taken home: NIfTI, PNG, an nnU-Net zip and, where there is a writer, DICOM. Knows no widget."""

import io
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.page.pictures import NOTICE

if TYPE_CHECKING:
    from pipelines.page.pairs import Pair

_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The date of every member, so that equal pairs give equal archives."""


def offered() -> dict[str, Callable[["Pair"], Path]]:
    """Return each download by name; DICOM where this version writes it and pydicom is installed."""
    ways: dict[str, Callable[[Pair], Path]] = {"NIfTI": nifti, "PNG": picture, "nnU-Net": nnunet}
    if _dicom_writer() is not None:
        ways["DICOM"] = dicom
    return ways


def nifti(pair: "Pair") -> Path:
    """Return a zip of image, mask and provenance."""
    files = [*pair.images, pair.record, *([pair.mask] if pair.mask else [])]
    return _zipped(pair, "nifti", {path.name: path.read_bytes() for path in files})


def picture(pair: "Pair") -> Path:
    """Return the picture; the notice is in it."""
    return pair.picture


def nnunet(pair: "Pair") -> Path:
    """Return a zip of an nnU-Net dataset with this one case. Errors: DataError for a pair without a mask."""
    from synth.formats.nnunet import DatasetWriter

    def fill(folder: Path) -> None:
        writer = DatasetWriter(
            folder / "Dataset900_SYNTHETIC",
            name=f"SYNTHETIC_{pair.case}",
            channels=pair.channels,
            labels={one.name: one.value for one in pair.legend},
            extra={"synthetic": True, "notice": NOTICE, "population": pair.population},
        )
        image, mask = _labelled(pair)
        writer.add(pair.case, image, mask)
        writer.finish(1)

    return _folder_zipped(pair, "nnunet", fill)


def dicom(pair: "Pair") -> Path:
    """Return a zip of a series a channel and the SEG of the mask. Errors: DataError for a pair without a mask."""

    def fill(folder: Path) -> None:
        writer = _dicom_writer()
        assert writer is not None, "offered only where it is there"
        from synth.volume import Label

        about: Any = import_module("synth.formats.writing")
        image, mask = _labelled(pair)
        made = writer(
            folder,
            about.Description(
                name=f"SYNTHETIC_{pair.case}",
                channels=pair.channels,
                labels=tuple(Label(one.name, one.value, one.colour) for one in pair.legend),
                population=pair.population,
            ),
        )
        row = {"case": pair.case, **{key: value for key, value in pair.provenance.items() if key != "case"}}
        made.add(pair.case, image, mask, about.Told.of(row))
        made.finish(1)

    return _folder_zipped(pair, "dicom", fill)


def _dicom_writer() -> Any:
    """Return the writer of DICOM sets, None where this version or its extra has none."""
    try:
        import_module("pydicom")
    except ImportError:
        return None
    return getattr(import_module("synth.formats"), "WRITERS", {}).get("dicom")


def _labelled(pair: "Pair") -> tuple[Any, Any]:
    from synth.errors import DataError

    image, mask = pair.volumes()
    if mask is None:
        raise DataError(f"{pair.case} has no mask, which this format needs; take NIfTI")
    return image, mask


def _folder_zipped(pair: "Pair", name: str, fill: Callable[[Path], None]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=pair.place))
    try:
        fill(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
        return _zipped(pair, name, {**content, "provenance.json": pair.record.read_bytes()})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _zipped(pair: "Pair", name: str, content: dict[str, bytes]) -> Path:
    """Write the archive of `content`, the notice beside it."""
    from synth.io import write_bytes

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in {"NOTICE.txt": f"{NOTICE}\n".encode(), **content}.items():
            archive.writestr(zipfile.ZipInfo(path, _OLDEST), data, zipfile.ZIP_DEFLATED)
    target = pair.place / f"SYNTHETIC_{pair.case}_{name}.zip"
    write_bytes(target, file.getvalue())
    return target
