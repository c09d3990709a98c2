"""What a stream may not be asked with: one line each, before any file is made."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import synth
from synth.errors import ConfigError, DataError, OutputError
from synth.formats import read
from synth.stream import Balanced, Cosine, Hard, Linear, Plain, Replay, Stream

Make = Callable[..., Stream]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 1.2}, "ratio is 1.2; give a share of synthetic items from 0 to 1"),
        ({"ratio": math.nan}, "ratio is nan"),
        ({"ratio": "all"}, "ratio is 'all'; give a number"),
        ({"reuse": 0}, "reuse is 0"),
        ({"reuse": 2.5}, "reuse is 2.5; give a whole number"),
        ({"reuse": 3, "depth": 4}, "depth is 4, reuse 3; give a depth that is a multiple"),
        ({"batch": 0}, "batch is 0"),
        ({"rank": (0, 3)}, "batch is 4, 3 ranks share it"),
        ({"rank": (2, 2)}, r"rank is \(2, 2\)"),
        ({"real": None, "epoch_steps": None}, "epoch_steps is not said and there are no real cases to count"),
        ({"devices": ("cuda:7",)}, "device 'cuda:7': .*; give devices="),
        ({"devices": ("gpu",)}, "device 'gpu' is none"),
        ({"masks": "made"}, "masks is 'made'"),
        ({"intensity": "native"}, "prepared cases hold unit intensities"),
        ({"intensity": "unity"}, "intensity is 'unity'; give one of native, unit, zscore"),
        (
            {"policy": Balanced(by=("kidn",))},
            "'kidn' is no attribute of the model that has levels; did you mean 'kind'",
        ),
        ({"foreground": 2.0}, "foreground is 2.0"),
        ({"foreground": "most"}, "foreground is 'most'"),
        ({"reuse": math.nan}, "reuse is nan; give a whole number from 1, or math.inf"),
        ({"reuse": -math.inf}, "reuse is -inf"),
        ({"reuse": "often"}, "reuse is 'often'"),
        ({"reuse": True}, "reuse is True"),
        ({"depth": 0}, "depth is 0; give a whole number, at least 1"),
        ({"batch": 2.0}, "batch is 2.0; give a whole number"),
        ({"batch": "4", "epoch_steps": None}, "batch is '4'"),
        ({"epoch_steps": 0}, "epoch_steps is 0"),
        ({"seed": 1.5}, "seed is 1.5; give a whole number, at least 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": None}, "seed is None"),
        ({"size": (8, 8)}, r"size is \(8, 8\), the model's volumes have 3 axes; give one number each"),
        ({"size": (8, 0, 8)}, r"size\[1\] is 0; give a whole number, at least 1"),
        ({"size": (8, 8.0, 8)}, r"size\[1\] is 8.0"),
        ({"size": 8}, "size is 8; give voxels along each axis"),
        ({"size": ()}, r"size is \(\); give voxels"),
        ({"spacing": (2.0, -2.0, 2.0)}, r"spacing\[1\] is -2.0; give mm above 0"),
        ({"spacing": (2.0, 0.0, 2.0)}, r"spacing\[1\] is 0.0; give mm above 0"),
        ({"spacing": (2.0, math.nan, 2.0)}, r"spacing\[1\] is nan"),
        ({"spacing": (2.0, math.inf, 2.0)}, r"spacing\[1\] is inf"),
        ({"spacing": (2.0, 2.0)}, "the model's volumes have 3 axes"),
        ({"spacing": "2,2,2"}, "spacing is '2,2,2'; give mm along each axis"),
        ({"intensity": 3}, "intensity is 3; give one of native, unit, zscore"),
        ({"labels": ["shell"]}, r"labels is \['shell'\]; give name -> number"),
        ({"labels": {"shell": -1, "core": 2}}, r"labels\['shell'\] is -1"),
        ({"labels": {"shell": 1.5, "core": 2}}, r"labels\['shell'\] is 1.5"),
        ({"policy": "balancd"}, r"policy is 'balancd'; give one of synth.stream, .* \(did you mean 'Balanced'\?\)"),
        ({"policy": None}, "policy is None; give one of synth.stream"),
        ({"policy": Balanced}, "policy is <class .*did you mean 'Balanced'"),
        ({"policy": Balanced(by="kind")}, "policy.by is 'kind'; give names"),  # pyright: ignore[reportArgumentType]
        ({"policy": Plain(attributes=[1])}, r"policy.attributes is \[1\]"),  # pyright: ignore[reportArgumentType]
        ({"policy": Replay(log=5)}, "policy.log is 5"),  # pyright: ignore[reportArgumentType]
        ({"devices": ()}, r"devices is \(\); give some"),
        ({"devices": "cpu"}, "devices is 'cpu'; give some, such as"),
        ({"devices": (1,)}, "device 1 is none"),
        ({"rank": 1}, "rank is 1; give"),
        ({"rank": (0,)}, r"rank is \(0,\)"),
        ({"produce": (2, 2)}, r"produce is \(2, 2\); give True, False, or"),
        ({"produce": "yes"}, "produce is 'yes'"),
        ({"transform": "flip"}, "transform is 'flip'"),
        ({"sampling": 5}, "sampling is 5; give a synth.Sampling"),
        ({"sampling": synth.Sampling(guidance=math.nan)}, "sampling.guidance is nan"),
        ({"generator": None}, "generator is None; give a Generator"),
        ({"buffer": ""}, "buffer is ''; give a folder"),
        ({"buffer": None}, "buffer is None; give a folder"),
        ({"real": {"a": 1}}, "real is a dict; give a folder"),
        ({"real": 5}, "real is a int; give a folder"),
    ],
)
def test_wrong_options_are_one_line(make: Make, tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make(**options)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir()), "nothing is made before all is right"


def test_wrong_data_and_folders_are_one_line(make: Make, dataset: Path, tmp_path: Path) -> None:
    bare, empty = tmp_path / "bare", tmp_path / "empty"
    shutil.copytree(dataset, bare)
    empty.mkdir()
    (tmp_path / "file").write_text("mine")
    found = read(dataset)
    for real, words in (
        ([], "real holds no item"),
        (replace(found, cases=()), "has no case; give a dataset with cases"),
        (replace(found, cases=(replace(found.cases[0], mask=None),)), "case 'c00' has no mask"),
        (str(empty), "has no layout known here"),
        (tmp_path / "absent", "is not a folder"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            make(real=real, intensity="native", epoch_steps=2)
        assert "\n" not in str(caught.value) and not (tmp_path / "buffer").exists()
    for buffer in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is a file; give a folder") as caught:
            make(buffer=buffer)
        assert "\n" not in str(caught.value) and (tmp_path / "file").read_text() == "mine"
    (tmp_path / "others" / "samples").mkdir(parents=True)
    with pytest.raises(OutputError, match="is not empty and no buffer"):
        make(buffer=tmp_path / "others")


def test_options_come_as_lists_and_numpy_too(make: Make) -> None:
    stream = make(size=[8, 8, 8], spacing=np.array([2, 2, 3]), seed=np.int64(3), batch=np.int32(4))
    assert stream.size == (8, 8, 8) and stream.spacing == (2.0, 2.0, 3.0) and type(stream.seed) is int


@pytest.mark.parametrize(
    ("make_one", "words"),
    [
        (lambda: Linear("a", 1.0, 3), "ratio.start is 'a'"),  # pyright: ignore[reportArgumentType]
        (lambda: Cosine(0.0, True, 3), "ratio.end is True"),
        (lambda: Linear(0.0, 1.0, 2.5), "ratio.steps is 2.5; give a whole number"),  # pyright: ignore[reportArgumentType]
        (lambda: Hard(floor="x"), "policy.floor is 'x'; give a number"),  # pyright: ignore[reportArgumentType]
        (lambda: Hard(power=math.nan), "policy.power is nan"),
    ],
)
def test_wrong_schedules_and_policies_are_one_line(make_one: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_one()
