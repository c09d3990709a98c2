"""Prompts, captions and answers are right on masks whose truth is known, however the grid is stored."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synth.formats.prompts import box_of, caption, derive, measure, points_in, questions, scribble_in, write_prompts
from synth.rng import numpy_rng
from synth.volume import Volume

LABELS = {"organ": 1, "lesion": 2, "unseen": 9}


def scene() -> Volume:
    """RAS+, 2 x 1 x 1 mm: an organ in the middle, a lesion of two parts to the patient's left, front and top of it."""
    data = np.zeros((1, 30, 40, 40), np.uint8)
    data[0, 12:20, 10:20, 10:20] = 1
    data[0, 2:5, 30:34, 30:34] = 2
    data[0, 6:8, 30:32, 30:32] = 2
    return Volume(data, np.diag([2.0, 1.0, 1.0, 1.0]), LABELS)


def flipped(volume: Volume, axes: tuple[int, ...]) -> Volume:
    """The same place in the world, some axes stored the other way round."""
    affine = np.array(volume.affine)
    data = volume.data
    for axis in axes:
        affine[:3, 3] += affine[:3, axis] * (volume.grid[axis] - 1)
        affine[:3, axis] *= -1
        data = np.flip(data, axis + 1)
    return volume.replace(data=data.copy(), affine=affine)


def turned(volume: Volume, order: tuple[int, int, int]) -> Volume:
    """The same place in the world, axes stored in another order."""
    return volume.replace(
        data=volume.data.transpose(0, *(n + 1 for n in order)).copy(), affine=volume.affine[:, [*order, 3]]
    )


def answers(volume: Volume, *, patient_space: bool = True) -> dict[str, object]:
    row = derive(volume, case="x", patient_space=patient_space)
    return {one["question"]: one["answer"] for one in row["questions"]}


TRUTH = {
    "Is any organ labelled?": "yes",
    "Is any lesion labelled?": "yes",
    "Is any unseen labelled?": "no",
    "How many separate parts does lesion have?": "2",
    "How many separate parts does organ have?": "1",
    "How large is organ?": "1.6 ml",
    "How large is lesion?": "0.112 ml",
    "Which is larger, organ or lesion?": "organ",
    "Is the centre of organ left of or right of that of lesion?": "right of",
    "Is the centre of organ posterior to or anterior to that of lesion?": "posterior to",
    "Is the centre of organ inferior to or superior to that of lesion?": "inferior to",
}


@pytest.mark.parametrize("axes", [(), (0,), (1,), (2,), (0, 1), (0, 1, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_answers_are_the_patient_s_however_the_grid_is_stored(
    axes: tuple[int, ...], order: tuple[int, int, int]
) -> None:
    assert answers(turned(flipped(scene(), axes), order)) == TRUTH


def test_sides_are_not_asked_where_they_are_unclear() -> None:
    data = np.zeros((1, 20, 20, 20), np.uint8)
    data[0, 4:14, 4:14, 4:14] = 1
    data[0, 6:13, 5:12, 12:14] = 2
    asked = answers(Volume(data, np.eye(4), LABELS))
    assert not [question for question in asked if "left" in question or "anterior" in question]
    assert asked["Is the centre of organ inferior to or superior to that of lesion?"] == "inferior to"


def test_pictures_are_spoken_of_as_they_are_seen() -> None:
    data = np.zeros((1, 30, 20), np.uint8)
    data[0, 2:6, 1:5] = 1
    data[0, 20:26, 12:18] = 2
    asked = answers(Volume(data, np.diag([-0.5, -0.5, 1, 1]), LABELS), patient_space=False)
    assert asked["Is the centre of organ left of or right of that of lesion?"] == "left of"
    assert asked["Is the centre of organ above or below that of lesion?"] == "above"
    assert asked["How large is organ?"] == "4 mm2"


def test_the_caption_says_what_was_measured() -> None:
    found = measure(scene())
    said = caption(found, patient_space=True, dims=3)
    assert said == (
        "Labelled: organ (1.6 ml), lesion (0.112 ml in 2 separate parts). The centre of lesion is left of and "
        "anterior to and superior to that of organ."
    )
    assert caption([], patient_space=True, dims=3) == "Nothing is labelled."


@given(st.integers(0, 10_000), st.booleans())
def test_points_scribbles_and_boxes_lie_inside(seed: int, flat: bool) -> None:
    rng = np.random.default_rng(seed)
    inside = rng.random((9, 8) if flat else (9, 8, 7)) < rng.uniform(0.02, 0.9)
    inside[tuple(rng.integers(0, n) for n in inside.shape)] = True
    for place in points_in(inside, numpy_rng(seed, "a")):
        assert inside[tuple(place)]
    path = scribble_in(inside, numpy_rng(seed, "b"))
    assert path and all(inside[tuple(place)] for place in path)
    steps = np.abs(np.diff(np.array(path), axis=0))
    assert steps.size == 0 or (steps.max() == 1 and (steps.sum(axis=1) > 0).all())
    volume = Volume(inside.astype(np.uint8)[None], np.eye(4), {"a": 1})
    one = measure(volume)[0]
    box = box_of(one)
    dims = inside.ndim
    window = tuple(slice(low, low + n) for low, n in zip(box[:dims], box[dims:], strict=True))
    assert inside[window].sum() == inside.sum()
    for axis in range(dims):  # and it is the smallest
        rest = inside[window].any(axis=tuple(a for a in range(dims) if a != axis))
        assert rest[0] and rest[-1]


def test_the_deepest_point_is_the_centre_of_a_ball() -> None:
    axes = np.meshgrid(*[np.arange(15)] * 3, indexing="ij")
    ball = sum((a - 7) ** 2 for a in axes) <= 25
    assert points_in(np.asarray(ball), numpy_rng(0, "x"))[0] == [7, 7, 7]


def test_equal_seeds_give_equal_prompts_and_others_do_not() -> None:
    one, two, other = (json.dumps(derive(scene(), case="x", seed=(1, n))) for n in (2, 2, 3))
    assert one == two != other
    row = json.loads(one)
    assert [prompt["label"] for prompt in row["prompts"]] == ["organ", "lesion"]
    assert all(scene().data[0][tuple(place)] == 0 for place in row["background_points"])


def test_boxes_stand_in_a_coco_file(tmp_path: Path) -> None:
    parts = []
    for n in range(2):
        parts.append(tmp_path / f"{n}.prompts")
        parts[-1].write_text(json.dumps(derive(flipped(scene(), (n,)), case=f"syn_{n}")))
    write_prompts(tmp_path, parts)
    coco = json.loads((tmp_path / "boxes.json").read_text())
    assert [one["id"] for one in coco["annotations"]] == [1, 2, 3, 4]
    assert coco["images"][1] == {"id": 2, "file_name": "syn_1", "width": 30, "height": 40, "depth": 40}
    assert coco["categories"] == [{"id": 1, "name": "organ"}, {"id": 2, "name": "lesion"}]
    first = coco["annotations"][0]
    assert first["bbox"] == [10, 10, 10, 8, 10, 10] and first["area"] == 800 and first["iscrowd"] == 0
    lines = (tmp_path / "prompts.jsonl").read_text().splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["syn_0", "syn_1"]


def test_touching_corners_are_one_part_and_the_empty_mask_has_none() -> None:
    data = np.zeros((1, 4, 4, 4), np.uint8)
    data[0, 1, 1, 1] = data[0, 2, 2, 2] = 1
    assert measure(Volume(data, np.eye(4), {"a": 1}))[0].components == 1
    empty = derive(Volume(data * 0, np.eye(4), {"a": 1}), case="x")
    assert empty["prompts"] == [] and empty["questions"][0]["answer"] == "no" and len(empty["questions"]) == 1
    assert questions([], [], patient_space=True, dims=3) == []
