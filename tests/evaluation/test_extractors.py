"""Feature extractors: laws of the weight-free one, plug-ins that are refused or right, the cache, and who uses them."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from skimage.feature import graycomatrix, graycoprops

from evaluation.evidence import Evidence, Judged
from evaluation.extractors import Extractor, FeatureCache, InputSpec, mapped_windows, radiomics_extractor
from evaluation.extractors.radiomics import _pairs, directions, radiomics_table
from evaluation.judge import judge
from synth.errors import DataError
from tests.conftest import phantom


def volume(index: int, grid: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    image, mask = phantom(index, grid)
    return image[None] / 800.0, mask


@pytest.mark.parametrize("grid", [(24, 26), (12, 13, 14), (5, 4, 3)])
def test_the_length_depends_on_channels_dimensions_and_labels_only(grid: tuple[int, ...]) -> None:
    measure = radiomics_extractor()
    image, mask = volume(0, grid)
    whole = measure(image, mask, labels=2)
    other = measure(*volume(1, tuple(n + 3 for n in grid)), labels=2)
    assert whole.shape == other.shape
    for fewer in (np.minimum(mask, 1), 0 * mask):
        assert measure(image, fewer, labels=2).shape == whole.shape
    assert measure(image, labels=2).shape == whole.shape
    two = measure(np.concatenate([image, image]), labels=0)
    assert len(two) == 2 * len(measure(image))
    assert np.isfinite(whole).all()
    assert np.array_equal(whole, measure(image, mask, labels=2))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_constant_or_empty_image_has_finite_features(dims: int) -> None:
    for value in (0.0, 0.5):
        row = radiomics_extractor()(np.full((1, *(8,) * dims), value), np.zeros((8,) * dims, dtype=np.uint8), labels=1)
        assert np.isfinite(row).all()


def test_cooccurrence_is_that_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    level = rng.integers(0, 16, (20, 23)).astype(np.uint16)
    angles = {(0, 1): 0, (1, 1): np.pi / 4, (1, 0): np.pi / 2, (1, -1): 3 * np.pi / 4}
    assert set(angles) == set(directions(2))
    for step, angle in angles.items():
        theirs = graycomatrix(
            level.astype(np.uint8), [1 if 0 in step else 1.5], [angle], levels=16, symmetric=True, normed=True
        )
        ours = _pairs(level, step)
        assert np.allclose(ours, theirs[:, :, 0, 0], atol=1e-12)
        assert ours.sum() == pytest.approx(1.0)
        gap = np.abs(np.subtract.outer(np.arange(16), np.arange(16)))
        assert (ours * gap**2).sum() == pytest.approx(graycoprops(theirs, "contrast")[0, 0])


def test_shapes_are_in_mm() -> None:
    mask = np.zeros((12, 12, 12), dtype=np.uint8)
    mask[2:8, 3:7, 5:10] = 1
    spacing = (1.0, 2.0, 3.0)
    table = radiomics_table(mask[None] * 0.5, mask, labels=1, spacing_mm=spacing)
    cells = np.array([6, 4, 5])
    sides = cells * np.array(spacing)
    assert table["label1.volume"] == pytest.approx(np.log1p(sides.prod()))
    faces = 2 * (sides[0] * sides[1] + sides[1] * sides[2] + sides[0] * sides[2])
    assert table["label1.roughness"] == pytest.approx(faces / sides.prod() ** (2 / 3))
    centre = (np.array([4.5, 4.5, 7.0]) - 5.5) * spacing
    assert [table[f"label1.centre{a}"] for a in range(3)] == pytest.approx(centre.tolist())
    axes = sorted(np.sqrt((cells**2 - 1) / 12) * spacing)
    assert [table[f"label1.axis{a}"] for a in range(3)] == pytest.approx(axes)
    assert table["c0.label1.mean"] == pytest.approx(0.5)


def test_what_must_move_features_moves_them() -> None:
    image, mask = volume(0, (16, 16, 16))
    clean = radiomics_table(image, mask, labels=2)
    offset = radiomics_table(image + 0.1, mask, labels=2)
    assert offset["c0.quantile0.5"] == pytest.approx(clean["c0.quantile0.5"] + 0.1, abs=0.15)
    assert offset["c0.label1.mean"] == pytest.approx(clean["c0.label1.mean"] + 0.1)
    doubled = image.copy()
    doubled[:, :, :, 1::2] = doubled[:, :, :, ::2]
    twice = radiomics_table(doubled, mask, labels=2)
    assert twice["c0.haar1.LLH"] < clean["c0.haar1.LLH"] - 1
    assert twice["c0.haar1.HLL"] == pytest.approx(clean["c0.haar1.HLL"], abs=0.5)


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        (np.full((1, 4, 4), np.nan), {}, "NaN"),
        (np.zeros((4, 4)), {}, "channel"),
        (np.zeros((1, 4, 4)), {"mask": np.zeros((4, 5), dtype=np.uint8)}, "mask grid"),
        (np.zeros((1, 4, 4)), {"spacing_mm": (1.0, 0.0)}, "spacing"),
        (np.zeros((1, 4, 4)), {"spacing_mm": (1.0, 1.0, 1.0)}, "spacing"),
    ],
)
def test_what_cannot_be_measured_is_refused(image: np.ndarray, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        radiomics_extractor()(image, **options)


def test_a_fingerprint_tells_name_input_weights_and_pooling_apart() -> None:
    def fn(image: np.ndarray, *_: object) -> np.ndarray:
        return image.mean(axis=(1, 2))

    base = Extractor("mean", fn, InputSpec(), "a" * 64)
    others = [
        Extractor("other", fn, InputSpec(), "a" * 64),
        Extractor("mean", fn, InputSpec(size=(9, 9)), "a" * 64),
        Extractor("mean", fn, InputSpec(filter="bilinear-tf1"), "a" * 64),
        Extractor("mean", fn, InputSpec(), "b" * 64),
        Extractor("mean", fn, InputSpec(), "a" * 64, "max"),
    ]
    assert len({row.fingerprint() for row in (base, *others)}) == 6
    assert Extractor("mean", fn, InputSpec(), "a" * 64).fingerprint() == base.fingerprint()


def test_windows_in_hounsfield_units_are_mapped() -> None:
    assert mapped_windows([(-1000.0, 0.0), (0.0, 1000.0)], seen=(-1000.0, 1000.0)) == ((0.0, 0.5), (0.5, 1.0))
    with pytest.raises(DataError, match="empty"):
        mapped_windows([(0.0, 1.0)], seen=(1.0, 1.0))


def counting() -> tuple[Extractor, list[int]]:
    calls: list[int] = []

    def fn(image: np.ndarray, *_: object) -> np.ndarray:
        calls.append(1)
        return np.array([image.mean(), image.std()])

    return Extractor("counting", fn, InputSpec(), "c" * 64), calls


def test_the_cache_measures_once_and_mends_itself(tmp_path: Path) -> None:
    extractor, calls = counting()
    image, mask = volume(0, (8, 8))
    cache = FeatureCache(tmp_path / "cache")
    first = cache.features(extractor, image, mask, labels=2)
    assert np.array_equal(first, FeatureCache(tmp_path / "cache").features(extractor, image, mask, labels=2))
    assert len(calls) == 1
    for changed in ({"labels": 1}, {"spacing_mm": (2.0, 1.0)}, {"mask": mask * 0}, {"image": image + 1}):
        cache.features(extractor, **{"image": image, "mask": mask, "labels": 2, **changed})
    assert len(calls) == 5
    for content in (b"", b"broken", None):
        for path in (tmp_path / "cache").glob("*.npy"):
            path.write_bytes(content) if content is not None else np.save(path, np.array([np.nan]))
        assert np.array_equal(cache.features(extractor, image, mask, labels=2), first)
    assert len(calls) == 8
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".npy"]


def test_a_second_judgement_is_read_from_the_cache(tmp_path: Path) -> None:
    extractor, calls = counting()
    made = [Judged(f"c{i}", *volume(i, (12, 12))) for i in range(3)]
    cache = FeatureCache(tmp_path)
    sides: dict[str, Any] = {"training": made[:2], "holdout": made[2:], "population": "phantoms"}
    reports = [judge(Evidence(made, **sides, extractor=extractor, cache=cache), only=["pictures"]) for _ in range(2)]
    assert len(calls) == 3, "6 volumes, 3 of them different"
    assert reports[0].plain() == reports[1].plain()
    assert reports[0].fingerprint["features"] == f"counting {extractor.fingerprint()}"
    assert all(isinstance(value, str) for value in cast("dict[str, object]", reports[0].fingerprint).values())


def test_the_fingerprint_tells_other_real_volumes_and_not_their_order() -> None:
    made = [Judged(f"c{i}", *volume(i, (12, 12))) for i in range(4)]

    def fingerprint(real: list[Judged]) -> dict[str, str]:
        return judge(Evidence(made, real, [], "phantoms"), only=["diversity"]).fingerprint

    base = fingerprint(made[:3])
    assert fingerprint(made[:3][::-1]) == base
    assert fingerprint([*made[:2], made[3]])["real"] != base["real"]


def test_the_cache_folder_is_made_where_it_is_asked_for(tmp_path: Path) -> None:
    extractor, _ = counting()
    FeatureCache(tmp_path / "a" / "b").features(extractor, np.zeros((1, 4, 4)))
    assert len(list((tmp_path / "a" / "b").glob("*.npy"))) == 1


def sets(shift: float) -> list[tuple[np.ndarray, np.ndarray]]:
    out = []
    for index in range(12):
        image, mask = volume(index, (12, 12))
        out.append((image + shift, mask))
    return out


def test_the_frechet_radiomics_distance_names_its_logarithm_and_scales_by_the_real_set() -> None:
    import torch

    from evaluation import FrechetRadiomicsDistance
    from evaluation import functional as F

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 5)), rng.normal(0.5, 2.0, size=(60, 5))
    square = F.frechet_radiomics_distance(x, y, log="none")
    assert square == pytest.approx(F.frechet_distance((x - y.mean(0)) / y.std(0), (y - y.mean(0)) / y.std(0)))
    assert F.frechet_radiomics_distance(x, y) == pytest.approx(np.log(square) / 2)
    assert F.frechet_radiomics_distance(x, y, log="code") == pytest.approx(np.log(square))
    units = np.array([1.0, 1e3, 1e-3, 7.0, 1.0])
    assert F.frechet_radiomics_distance(x * units, y * units) == pytest.approx(np.log(square) / 2)
    constant = np.column_stack([y, np.ones(60)])
    assert F.frechet_radiomics_distance(np.column_stack([x, np.zeros(80)]), constant, log="none") == pytest.approx(
        square
    )
    assert F.frechet_radiomics_distance(y, y) == -np.inf
    with pytest.raises(ValueError, match="constant"):
        F.frechet_radiomics_distance(x, np.ones((4, 5)))
    with pytest.raises(ValueError, match="paper, code or none"):
        F.frechet_radiomics_distance(x, y, log=cast("Any", "log"))

    metric = FrechetRadiomicsDistance(labels=2, log="none")
    with pytest.raises(ValueError, match="before compute"):
        metric.compute()
    for real, shift in ((True, 0.0), (False, 0.1)):
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*sets(shift), strict=True))
        for half in (slice(0, 5), slice(5, 12)):
            metric.update(images[half], masks[half], real=real)
    measure = radiomics_extractor()
    rows = [np.stack([measure(a, b, labels=2) for a, b in sets(shift)]) for shift in (0.1, 0.0)]
    assert float(metric.compute()) == pytest.approx(F.frechet_radiomics_distance(*rows, log="none"))
