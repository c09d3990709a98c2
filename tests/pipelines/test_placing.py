"""Placing a lesion on the page, without a browser: where, how large, what is kept, what is refused, how it is undone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synth
from pipelines.page.callbacks import Callbacks
from pipelines.page.pairs import Pair
from pipelines.page.placing import offered, place
from pipelines.page.studio import Ask, Studio
from pipelines.spots import Spot
from synth.errors import ConditionError

pytest.importorskip("gradio", reason="the page's extra is not installed")


@pytest.fixture(scope="module")
def calls(lesion_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callbacks:
    folder = tmp_path_factory.mktemp("placing")
    (folder / "uploads").mkdir()
    return Callbacks(Studio(str(lesion_model), folder / "files"), None, uploads=folder / "uploads")


@pytest.fixture(scope="module")
def mask(dataset: Path, calls: Callbacks) -> Path:
    """A mask to begin with, among the uploads."""
    out = calls.uploads / "begin.nii.gz"
    synth.write(synth.read(dataset / "labelsTr" / "c00.nii.gz"), out)
    return out


@pytest.fixture(scope="module")
def pair(calls: Callbacks, mask: Path) -> Pair:
    assert calls.studio is not None
    return calls.studio.make(Ask(seed=5, text="a round thing", attributes={"kind": "a"}, mask=mask))


def shell_mm(pair: Pair) -> list[float]:
    """Where a voxel of the shell lies, in mm."""
    _, mask = pair.volumes()
    assert mask is not None
    voxels = np.argwhere(mask.data[0] == 3)
    return (mask.affine @ [*voxels[len(voxels) // 3], 1.0])[:3].tolist()


def test_a_lesion_is_placed_where_it_was_clicked_and_the_rest_is_kept(calls: Callbacks, pair: Pair) -> None:
    fault, view, facts, command, python, again, history, pictures = calls.place(
        [pair], pair, "lesion", 0.1, shell_mm(pair)
    )
    assert fault == "" and history == [pair, again] and len(pictures) == 2
    assert again.case == "syn_00000_seed5_placed1" and view["case"] == again.case and "mask given" in facts
    (image, before), (made, after) = pair.volumes(), again.volumes()
    assert before is not None and after is not None
    grown = (after.data[0] == 200) & (before.data[0] != 200)
    voxel_ml = np.prod(before.spacing_mm) / 1000
    assert 0.5 < grown.sum() * voxel_ml / 0.1 <= 1.05 and set(np.unique(before.data[0][grown])) == {3}
    apart = np.argwhere(np.ones(grown.shape, bool)) * np.array(before.spacing_mm)
    near = np.argwhere(grown) * np.array(before.spacing_mm)
    kept = (np.sqrt(((apart[:, None] - near[None]) ** 2).sum(2)).min(1) > 8.0 + 1e-3).reshape(grown.shape)
    assert kept.any() and made.data[0][kept].tobytes() == image.data[0][kept].tobytes()
    assert not np.array_equal(made.data, image.data)
    assert again.provenance["condition"]["edit"]["task"] == "inpaint" and again.provenance["mask_origin"] == "given"


def test_the_python_that_is_shown_makes_the_same_lesions(
    calls: Callbacks, pair: Pair, mask: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert calls.studio is not None
    once = place(calls.studio, pair, {"label": "lesion", "ml": 0.1, "mm": shell_mm(pair)})
    twice = calls.place([], once, "lesion", 0.12, shell_mm(once))
    assert twice[0] == "" and len(twice[5].ask.placed) == 2
    (tmp_path / "masks").mkdir()
    synth.write(synth.read(mask), tmp_path / "masks" / mask.name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(twice[4], names)  # noqa: S102 - what the page tells people to run
    image, labels = twice[5].volumes()
    np.testing.assert_array_equal(names["sample"].mask.data, labels.data)
    np.testing.assert_array_equal(names["sample"].image.data, image.data)


def test_undo_shows_the_pair_before(calls: Callbacks, pair: Pair) -> None:
    made = calls.place([pair], pair, "lesion", 0.1, shell_mm(pair))
    fault, view, *_, back = calls.undo(made[6], made[5])
    assert fault == "" and back == pair and view["case"] == pair.case
    assert "nothing was placed" in calls.undo(made[6], pair)[0]
    assert "nothing was placed" in calls.undo([], None)[0]
    assert "no longer kept" in calls.undo([], made[5])[0]


def test_what_cannot_be_placed_is_one_line(calls: Callbacks, pair: Pair) -> None:
    there = shell_mm(pair)
    _, mask = pair.volumes()
    assert mask is not None
    air = (mask.affine @ [*np.argwhere(mask.data[0] == 0)[0], 1.0])[:3].tolist()
    bad: list[tuple[str, Any, Any, str]] = [
        ("shell", 0.1, there, "cannot be placed"),
        ("lesion", 1e9, there, "ml; give"),
        ("lesion", float("nan"), there, "ml; give"),
        ("lesion", None, there, "ml; give"),
        ("lesion", 0.1, None, "click into a slice"),
        ("lesion", 0.1, ["a", 0, 0], "click into a slice"),
        ("lesion", 0.1, [1e6, 0, 0], "outside the volume"),
        ("lesion", 0.1, air, "no tissue"),
    ]
    for label, ml, mm, said in bad:
        fault = calls.place([], pair, label, ml, mm)[0]
        assert said in fault and "our fault" not in fault, (label, ml, mm, fault)
    assert "make a pair first" in calls.place([], None, "lesion", 0.1, there)[0]


def test_a_model_without_findings_offers_nothing(model: Path, calls: Callbacks, pair: Pair, tmp_path: Path) -> None:
    plain = Studio(str(model), tmp_path)
    assert offered(plain) is None
    with pytest.raises(ConditionError, match="places no lesion"):
        place(plain, pair, {"label": "lesion", "ml": 0.1, "mm": [0, 0, 0]})
    assert calls.studio is not None
    offer = offered(calls.studio)
    assert offer is not None and offer.labels == ("lesion",) and 0 < offer.low_ml < offer.first_ml < offer.high_ml


def test_the_page_shows_the_tool_only_where_it_works(calls: Callbacks, model: Path, tmp_path: Path) -> None:
    from pipelines.page.app import build

    assert calls.studio is not None
    shown = [
        {block.elem_id for block in build(studio, None, uploads=tmp_path).blocks.values()}
        for studio in (calls.studio, Studio(str(model), tmp_path))
    ]
    tool = {"placing", "place-ml", "place-by-click", "place-here", "undo-place"}
    assert tool <= shown[0] and not tool & shown[1]


def test_the_bundled_model_offers_its_lesions() -> None:
    """Read from its recipe alone: the model needs not be loaded to know."""
    from synth.checkpoint import read_recipe
    from synth.generator import bundled

    recipe = read_recipe(bundled()["brain-tiny"])
    assert recipe.schema is not None

    class Known:
        schema, follows_masks = recipe.schema, True

    offer = offered(Known())  # pyright: ignore[reportArgumentType]
    assert offer is not None and offer.labels == ("lesion",)
    assert offer.low_ml < 0.5 and 5 < offer.high_ml < 20


def test_asks_of_the_label_are_left_out_of_what_is_asked_beside_it() -> None:
    from pipelines.page.placing import asked_beside

    spot = Spot(label="lesion", at=(1, 2, 3), ml=1.0, seed=0)
    ask = Ask(attributes={"contrast": "T1", "Lesion_volume_ml": 0.0}, placed=(spot,))
    assert asked_beside(ask) == {"contrast": "T1"}


def test_two_kinds_of_finding_are_repeated_by_python_and_the_command_says_why_not_by_it() -> None:
    """Each stage was made with the attributes that the labels placed until then left."""
    from types import SimpleNamespace

    from pipelines.page.placing import asked_beside, command_of, python_of

    spots = tuple(Spot(label=label, at=(1, 2, 3), ml=1.0, seed=k) for k, label in enumerate(("lesion", "edema")))
    ask = Ask(seed=4, text="round", attributes={"kind": "a", "lesion_count": 0.0, "edema_ml": 2.0}, placed=spots)
    asked: list[Any] = []

    class Recorded:
        def generate(self, conditions: list[Any], **options: Any) -> Any:
            asked.extend(conditions)
            yield SimpleNamespace(mask="mask", image="image")

    def nothing(*_: Any, **__: Any) -> None:
        return None

    names = {"Inpaint": nothing, "changed": nothing, "place_label": nothing, "generator": Recorded()}
    kept = {"synth": SimpleNamespace(Condition=lambda **told: told), "sample": SimpleNamespace(mask="", image="")}
    exec("\n".join(python_of(ask)), {**names, **kept})  # noqa: S102 - what the page tells people to run
    wanted = [asked_beside(Ask(attributes=ask.attributes, placed=spots[: k + 1])) for k in range(2)]
    assert [one["attributes"] for one in asked] == wanted == [{"kind": "a", "edema_ml": 2.0}, {"kind": "a"}]
    assert [one["text"] for one in asked] == ["round", "round"]
    (line,) = command_of(ask, "m").strip().splitlines()
    assert line.startswith("# placed one by one, each with other attributes") and "run the Python" in line
    same = Ask(seed=4, attributes={"kind": "a"}, placed=spots)
    assert command_of(same, "m").count("--place") == 2 and "beside" not in "".join(python_of(same))
