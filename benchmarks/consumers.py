"""Run the ecosystem's own loaders and validators on sets that `synth generate` and `synth export` wrote.

    python benchmarks/consumers.py --out benchmarks/results/consumers.json [--python OTHER/bin/python ...]

A library is looked for in this interpreter, then in each --python; a program on the PATH and beside those. What is
nowhere is written down as not run, with the reason. Makes one set (brain-tiny, given masks or its own) and exports it.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
FORMATS = ("nnunet", "msd", "bids", "dicom", "hf", "webdataset", "synthrad", "medmnist", "folder")
MEDMNIST = """
import json, os
from medmnist.dataset import MedMNISTDIMSD
from medmnist.evaluator import Evaluator
from medmnist.info import INFO, __version__
import numpy as np
about = json.load(open(folder + '/synth.json'))
INFO[about['flag']] = about
class Synth(MedMNISTDIMSD):
    flag = about['flag']
made, none = (Synth(split, root=folder, size=about['size']) for split in ('train', 'val'))
assert len(made) == about['n_samples']['train'] and len(none) == 0
image, label = made[0]
assert label.shape == (len(about['label']),) and set(label) <= {0, 1}
shape = np.asarray(image).shape
assert shape[-1] == about['size'] and about['flag'] in repr(made), shape
assert 0 < np.asarray(image).max() <= (1 if DIMS == 3 else 255)
rgb = np.asarray(Synth('train', root=folder, size=about['size'], as_rgb=True)[0][0])
assert 3 in rgb.shape, rgb.shape
made.montage(length=1)
made.save(folder + '/saved')
judge = Evaluator(about['flag'], 'train', size=about['size'], root=folder)
assert np.array_equal(judge.labels, made.labels)
tell(__version__, f'{len(made)} samples, image {shape}, labels {label.tolist()}')
"""
LOADERS: dict[str, tuple[str, str, str]] = {
    "MONAI load_decathlon_datalist": (
        "monai",
        "msd",
        """
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImaged
import monai, numpy as np
items = load_decathlon_datalist(folder + '/dataset.json', is_segmentation=True, data_list_key='training')
shapes = []
for item in items:
    pair = LoadImaged(keys=['image', 'label'])({'image': item['image'], 'label': item['label']})
    assert np.allclose(pair['image'].affine, pair['label'].affine)
    assert tuple(pair['image'].shape[:3]) == tuple(pair['label'].shape)
    shapes.append(tuple(int(n) for n in pair['image'].shape))
tell(monai.__version__, f'{len(items)} cases, first {shapes[0]}')
""",
    ),
    "TorchIO SubjectsLoader": (
        "torchio",
        "msd",
        """
import json, torchio as tio
info = json.load(open(folder + '/dataset.json'))
subjects = [tio.Subject(image=tio.ScalarImage(f"{folder}/{i['image']}"), label=tio.LabelMap(f"{folder}/{i['label']}"))
            for i in info['training']]
for subject in subjects:
    subject.check_consistent_attribute('spatial_shape') if hasattr(subject, 'check_consistent_attribute') else None
batches = list(tio.SubjectsLoader(tio.SubjectsDataset(subjects), batch_size=2))
first = batches[0]['image'][tio.DATA]
assert first.shape[2:] == batches[0]['label'][tio.DATA].shape[2:]
tell(tio.__version__, f'{len(subjects)} subjects, batch {tuple(first.shape)}')
""",
    ),
    "datasets.load_dataset(niftifolder)": (
        "datasets",
        "hf",
        """
import datasets
made = datasets.load_dataset('niftifolder', data_dir=folder, split='train', cache_dir=folder + '/../hf-cache')
kinds = {name: type(feature).__name__ for name, feature in made.features.items()}
assert kinds['image'] == kinds['mask'] == 'Nifti', kinds
row = made[0]
assert row['image'].shape[:3] == row['mask'].shape[:3]
tell(datasets.__version__, f"{len(made)} rows, image {row['image'].shape}, columns {sorted(kinds)}")
""",
    ),
    "datasets.Nifti on the nnU-Net files": (
        "datasets",
        "nnunet",
        """
import datasets, glob
images, labels = (sorted(glob.glob(f'{folder}/{part}/*.nii.gz')) for part in ('imagesTr', 'labelsTr'))
made = datasets.Dataset.from_dict({'image': images, 'label': labels})
made = made.cast_column('image', datasets.Nifti()).cast_column('label', datasets.Nifti())
assert made[0]['image'].shape == made[0]['label'].shape
tell(datasets.__version__, f"{len(made)} rows, {made[0]['image'].shape}")
""",
    ),
    "webdataset.WebDataset": (
        "webdataset",
        "webdataset",
        """
import glob, webdataset
shards = sorted(glob.glob(folder + '/shard-*.tar'))
samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
first = samples[0]
assert first['image.npy'].shape[1:] == first['label.npy'].shape and first['json']['synthetic']
from importlib.metadata import version
tell(version('webdataset'), f"{len(samples)} samples, image {first['image.npy'].shape} {first['image.npy'].dtype}")
""",
    ),
    "highdicom.seg.segread": (
        "highdicom",
        "dicom",
        """
import glob, highdicom
files = sorted(glob.glob(folder + '/*/mask.dcm'))
volumes = [highdicom.seg.segread(path).get_volume(combine_segments=True) for path in files]
tell(highdicom.__version__, f'{len(files)} SEG, first {volumes[0].array.shape}, spacing {volumes[0].spacing}')
""",
    ),
    "SimpleITK ImageSeriesReader (GDCM)": (
        "SimpleITK",
        "dicom",
        """
import glob, SimpleITK as sitk
case = sorted(glob.glob(folder + '/*/image'))[0]
reader = sitk.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(case))
image = reader.Execute()
tell(sitk.Version.VersionString(), f'{image.GetSize()} at {image.GetSpacing()} mm')
""",
    ),
    "SimpleITK ReadImage of .mha": (
        "SimpleITK",
        "synthrad",
        """
import glob, SimpleITK as sitk
images = [sitk.ReadImage(path) for path in sorted(glob.glob(folder + '/*/*.mha'))]
assert len({(i.GetSize(), i.GetOrigin(), i.GetDirection(), i.GetSpacing()) for i in images[:2]}) == 1
tell(sitk.Version.VersionString(), f'{len(images)} files, {images[0].GetSize()}')
""",
    ),
    "medmnist.MedMNIST3D": (
        "medmnist",
        "medmnist",
        MEDMNIST.replace("DIMS", "3"),
    ),
    "medmnist.MedMNIST2D": (
        "medmnist",
        "medmnist-2d",
        MEDMNIST.replace("DIMS", "2"),
    ),
    "nnU-Net verify_dataset_integrity": (
        "nnunetv2",
        "nnunet",
        """
import nnunetv2
from importlib.metadata import version
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
verify_dataset_integrity(folder, num_processes=1)
tell(version('nnunetv2'), 'accepted')
""",
    ),
}
TELL = """
import json, sys
folder = sys.argv[1]
def tell(version, said): print('TOLD', json.dumps([str(version), said]))
"""


def run(line: list[str], *, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    """Run a program, its output kept, with nothing to reach for on a network."""
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
    return subprocess.run(
        line, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **quiet}
    )


def loader(name: str, sets: Path, pythons: list[str]) -> dict[str, Any]:
    """Return what a loader said of its set, from the first interpreter that has its library."""
    library, layout, program = LOADERS[name]
    found = next((p for p in pythons if run([p, "-c", f"import {library}"]).returncode == 0), None)
    out: dict[str, Any] = {"consumer": name, "format": layout}
    if found is None:
        return {**out, "ran": False, "why": f"{library} is not installed in {len(pythons)} interpreters"}
    done = run([found, "-c", TELL + program, str(sets / layout)])
    told = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    if done.returncode or not told:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return {**out, "ran": True, "ok": False, "detail": said[:400]}
    version, detail = json.loads(told[-1][5:])
    return {**out, "ran": True, "ok": True, "version": version, "detail": detail}


def program_of(name: str, pythons: list[str]) -> str | None:
    """Return where a program is: on the PATH, or beside one of the interpreters."""
    beside = [str(Path(python).parent) for python in pythons]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(beside))


def bids_validator(sets: Path, pythons: list[str]) -> dict[str, Any]:
    """Return what bids-validator (deno) says of the derivative: errors fail, warnings are counted."""
    out: dict[str, Any] = {"consumer": "bids-validator-deno", "format": "bids"}
    program = program_of("bids-validator-deno", pythons)
    if program is None:
        return {**out, "ran": False, "why": "bids-validator-deno is not installed"}
    os.environ["PATH"] = os.pathsep.join([str(Path(program).parent), os.environ["PATH"]])
    done = run([program, "--format", "json", str(sets / "bids")])
    issues = json.loads(done.stdout)["issues"]["issues"]
    named = [(one["severity"], f"{one['code']} {one.get('subCode', '')}".strip()) for one in issues]
    errors = sorted({name for severity, name in named if severity == "error"})
    warnings = sorted({name for severity, name in named if severity != "error"})
    version = run([program, "--version"]).stdout.strip().splitlines()[-1]
    return {**out, "ran": True, "ok": not errors, "version": version, "errors": errors, "warnings": warnings}


def dciodvfy(folder: Path, what: str, pythons: list[str]) -> dict[str, Any]:
    """Return what dciodvfy says of every DICOM file of a set: its errors fail, each kind once."""
    out: dict[str, Any] = {"consumer": "dciodvfy", "format": "dicom", "of": what}
    program = program_of("dciodvfy", pythons)
    if program is None:
        return {**out, "ran": False, "why": "dciodvfy is not installed (apt-get install dicom3tools)"}
    files = sorted(folder.rglob("*.dcm"))
    # every slice of a series says the same, so that the first, the last and all SEG are enough
    chosen = [path for path in files if path.name == "mask.dcm" or path.stem == "00001"] + files[-2:-1]
    errors: set[str] = set()
    warnings: set[str] = set()
    kinds: set[str] = set()
    for path in chosen:
        said = run([program, str(path)]).stderr.splitlines()
        errors |= {line for line in said if line.startswith("Error")}
        warnings |= {line for line in said if line.startswith("Warning")}
        kinds |= {line for line in said if not line.startswith(("Error", "Warning"))}
    version = run(["dpkg-query", "-W", "-f", "${Version}", "dicom3tools"]).stdout or "unknown"
    told = {"version": version, "errors": sorted(errors), "warnings": sorted(warnings)}
    return {**out, "ran": True, "ok": not errors, **told, "files": len(chosen), "iods": sorted(kinds)}


def write_ct(folder: Path, channel: str) -> None:
    """Write two oblique phantoms in Hounsfield units (or of any other channel) through the same writer, no model."""
    from synth.formats import WRITERS
    from synth.formats.writing import Description, Told
    from synth.volume import Label, Volume

    turn = np.array([[0.96, -0.28, 0, -40], [0.28, 0.96, 0, -30], [0, 0, 1, 12.5], [0, 0, 0, 1.0]])
    affine = turn @ np.diag([-0.8, -0.9, 2.5, 1.0])
    labels = (Label("liver", 1), Label("liver tumour", 2))
    about = Description(name="Phantoms", channels=(channel,), labels=labels, software="synthvol 0")
    writer = WRITERS["dicom"](folder, about)
    told = [Told(f"syn_{index:05d}", identity=("phantom", index)) for index in range(2)]
    for index, one in enumerate(told):
        rng = np.random.default_rng(index)
        mask = np.zeros((1, 32, 28, 9), np.uint8)
        mask[0, 6:24, 5:22, 2:8] = 1
        mask[0, 10:14, 9:13, 3:5] = 2
        image = (np.array([-1000, 60, 20])[mask] + rng.normal(0, 8, mask.shape)).astype(np.int16)
        writer.add(one.case, Volume(image, affine), Volume(mask, affine, about.label_values), one)
    writer.finish(2, told)


def write_flat(folder: Path) -> None:
    """Write two 2D phantoms (a chest in one channel) through the same writer, no model."""
    from synth.formats import WRITERS
    from synth.formats.writing import Description
    from synth.simulate.phantoms import CHEST_LABELS, chest_xray
    from synth.volume import Label

    labels = tuple(Label(name, value) for name, value in CHEST_LABELS.items())
    writer = WRITERS["medmnist"](folder, Description(name="Phantoms", channels=("XRAY",), labels=labels))
    for seed in range(2):
        pair = chest_xray(seed)
        writer.add(f"syn_{seed:05d}", pair.image, pair.mask)
    writer.finish(2)


def in_and_out(sets: Path, model: str, steps: str) -> dict[str, Any]:
    """DICOM in -> generate -> DICOM out: the largest distance between corners of given and made grids, in mm."""
    from pipelines.cli import run as synth
    from synth.data.reading import read_image, read_mask
    from synth.formats import read

    out = sets / "dicom-again"
    line = [model, "--masks", str(sets / "dicom"), "--format", "dicom", "--count", "1", "--steps", steps]
    code = synth("generate", [*line, "--out", str(out), "--workers", "1"])
    given, made = read(sets / "dicom"), read(out)
    one, two = read_image(given.cases[0], given), read_image(made.cases[0], made)
    corners = np.array([[*np.array(corner) * (np.array(one.grid) - 1), 1] for corner in np.ndindex(2, 2, 2)])
    far = float(np.linalg.norm(((one.affine - two.affine) @ corners.T)[:3], axis=0).max())
    same = np.array_equal(read_mask(given.cases[0], given, one).data, read_mask(made.cases[0], made, two).data)
    return {
        "consumer": "DICOM in -> generate -> DICOM out",
        "format": "dicom",
        "ran": True,
        "ok": code == 0 and far <= 1e-4 and same,
        "corners_mm": far,
        "labels_equal": bool(same),
    }


def made_sets(folder: Path, model: str, count: int, steps: str) -> list[dict[str, Any]]:
    """Generate one nnU-Net set and export it to every other layout; return how long each took."""
    from pipelines.cli import run as synth

    out: list[dict[str, Any]] = []
    for name in FORMATS:
        began = time.perf_counter()
        if name == "nnunet":
            asked = [model, "--out", str(folder / name), "--count", str(count), "--steps", steps, "--workers", "1"]
            code = synth("generate", asked)
        else:
            prompts = ["--prompts"] if name in ("bids", "folder") else []
            code = synth("export", [str(folder / "nnunet"), "--out", str(folder / name), "--format", name, *prompts])
        out.append({"format": name, "exit_code": code, "seconds": round(time.perf_counter() - began, 2)})
    return out


def main() -> None:
    """Make the sets, run every consumer, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="brain-tiny")
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--steps", default="2")
    parser.add_argument("--python", action="append", default=[], help="another interpreter to look for libraries in")
    asked = parser.parse_args()
    pythons = [sys.executable, *asked.python]
    with tempfile.TemporaryDirectory(prefix="consumers-") as place:
        sets = Path(place)
        written = made_sets(sets, asked.model, asked.count, asked.steps)
        write_flat(sets / "medmnist-2d")
        checks: list[dict[str, Any]] = []
        steps: list[Callable[[], dict[str, Any]]] = [
            *(lambda name=name: loader(name, sets, pythons) for name in LOADERS),
            lambda: bids_validator(sets, pythons),
            lambda: dciodvfy(sets / "dicom", "MR and SEG, generated", pythons),
        ]
        for channel, what in (("CT", "CT and SEG, phantoms"), ("grey", "Secondary Capture and SEG, phantoms")):
            write_ct(sets / what.split()[0], channel)
            steps.append(lambda what=what: dciodvfy(sets / what.split()[0], what, pythons))
        steps.append(lambda: in_and_out(sets, asked.model, asked.steps))
        for step in steps:
            checks.append(step())
            print(json.dumps(checks[-1])[:300], flush=True)
    result = {
        "command": f"python benchmarks/consumers.py {' '.join(sys.argv[1:])}",
        "machine": {"python": platform.python_version(), "system": platform.platform()},
        "written": written,
        "checks": checks,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
