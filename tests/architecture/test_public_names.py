"""The public names, spelled out: a change of this list is a change of the interface."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import evaluation
import synth

ROOT = Path(__file__).parents[2]
PUBLIC = {
    "synth": [
        "Condition",
        "Generator",
        "Label",
        "Provenance",
        "Sample",
        "Sampling",
        "Seed",
        "Stream",
        "SynthError",
        "Volume",
        "load",
        "read",
        "save",
        "write",
    ],
    "evaluation": [
        "Acceptance",
        "BoundaryAlignment",
        "BrierScore",
        "CalibrationError",
        "DensityCoverage",
        "Dice",
        "FSIM",
        "FrechetDistance",
        "FrechetRadiomicsDistance",
        "HD95",
        "KernelDistance",
        "LabelVolumeError",
        "LesionDetection",
        "MAE",
        "MultiScaleSSIM",
        "NCC",
        "PSNR",
        "PerceptualDistance",
        "PrecisionRecall",
        "ROICalibrationError",
        "SSIM",
        "SlicedWasserstein",
        "SurfaceDice",
        "VendiScore",
        "VolumeCRPS",
        "audit",
        "pool",
    ],
}
VERBS = [
    *("bench", "cohort", "compare", "demo", "edit", "evaluate", "export", "generate", "info", "merge", "prepare"),
    *("quickstart", "release", "reproduce", "train", "watermark"),
]
HEAVY = ["torch", "monai", "diffusers", "accelerate", "matplotlib", "SimpleITK", "nibabel", "scipy", "pydantic"]


def _loaded_after(program: str, names: list[str], *, cwd: Path = ROOT) -> list[str]:
    """Return which of `names` a fresh interpreter has imported after `program`."""
    told = f"{program}\nimport sys; print('loaded', [n for n in {names!r} if n in sys.modules])"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{told}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.splitlines()[-1].removeprefix("loaded "))


def test_public_names_are_these() -> None:
    assert sorted(synth.__all__) == PUBLIC["synth"] == dir(synth)
    assert sorted(evaluation.__all__) == PUBLIC["evaluation"]
    for module in (synth, evaluation):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = synth.nothing  # pyright: ignore[reportAttributeAccessIssue]


def test_verbs_are_these() -> None:
    from pipelines.cli import VERBS as BUILT

    assert sorted(BUILT) == VERBS


def test_importing_is_light() -> None:
    assert _loaded_after("import synth, evaluation", HEAVY) == []


def test_verbs_import_nothing_heavy() -> None:
    program = "\n".join(f"import pipelines.{verb}" for verb in VERBS)
    assert _loaded_after(program, [*HEAVY, "numpy"]) == []


def test_help_imports_no_parser() -> None:
    assert _loaded_after("from pipelines.cli import main\nmain(['--help'])", [*HEAVY, "tyro", "rich", "numpy"]) == []


def test_recipes_load_without_torch() -> None:
    program = (
        "from pipelines.configs import config_path\nfrom synth import config\nfrom synth.recipe import Recipe\n"
        "config.load(Recipe, config_path('brain-tiny'))"
    )
    assert _loaded_after(program, ["torch", "monai", "accelerate"]) == []


@pytest.mark.skipif(not (ROOT / "synth" / "assets" / "brain-tiny").is_dir(), reason="the bundled model is not here")
def test_generating_leaves_optional_libraries_alone(tmp_path: Path) -> None:
    program = (
        "import synth\ngenerator = synth.load('brain-tiny')\n"
        "sample = next(iter(generator.generate([synth.Condition()], seeds=[0])))\n"
        "synth.write(sample.image, 'image.nii.gz')"
    )
    optional = ["monai", "diffusers", "transformers", "accelerate", "matplotlib", "nilearn", "sklearn", "tensorboard"]
    assert _loaded_after(program, optional, cwd=tmp_path) == []
