"""Laws of the stream: what item (seed, epoch, index) is does not depend on workers, ranks, restarts or speed."""

import math
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

import synth
from synth.data.prepared import Prepared
from synth.errors import ConfigError, OutputError
from synth.stream import Balanced, Linear, Stream
from tests.stream.conftest import fill, told

Make = Callable[..., Stream]


def _epochs(stream: Stream, model: Path, count: int = 2, workers: int = 0) -> list[list[tuple]]:
    loader, out = stream.loader(workers), []
    for epoch in range(count):
        stream.set_epoch(epoch)
        fill(stream, model)
        out.append(told(loader))
    return out


def test_workers_change_nothing(make: Make, tiny: Path) -> None:
    alone = _epochs(make(size=(8, 8, 8)), tiny)
    for workers in (1, 2):
        assert _epochs(make(size=(8, 8, 8)), tiny, workers=workers) == alone
    assert alone[0] != alone[1]
    assert [item[1] for item in alone[0]] == list(range(24))


def test_ranks_share_the_items_of_each_step(make: Make, tiny: Path) -> None:
    alone = _epochs(make(), tiny)[0]
    parts = [_epochs(make(rank=(rank, 2), produce=True), tiny)[0] for rank in range(2)]
    for step in range(6):
        mine = [item for part in parts for item in part[2 * step : 2 * step + 2]]
        assert mine == alone[4 * step : 4 * step + 4]
    assert len(make(rank=(1, 2))) == 12


def test_a_stopped_loop_goes_on_as_if_it_was_not(make: Make, tiny: Path) -> None:
    whole = [item for epoch in _epochs(make(policy=Balanced()), tiny, 3) for item in epoch]
    for workers in (0, 2):
        stream = make(policy=Balanced())
        stream.set_epoch(1)
        fill(stream, tiny)
        for step, _ in enumerate(stream.loader(workers), start=1):
            if step == 4:
                break
        state = stream.state_dict()
        assert (state["epoch"], state["step"]) == (1, 4)
        again = make(policy=Balanced())
        again.load_state_dict(torch.load(_saved(state, tiny.parent / "state.pt"), weights_only=True))
        seen = []
        for epoch in (1, 2):
            again.set_epoch(epoch)
            fill(again, tiny)
            seen += told(again.loader(workers))
        assert seen == whole[24 + 16 :]


def _saved(state: dict, path: Path) -> Path:
    torch.save(state, path)
    return path


def test_a_state_of_another_stream_is_refused(make: Make) -> None:
    state = make().state_dict()
    with pytest.raises(ConfigError, match="the state is of a stream with epoch_steps = 6, this one has 7"):
        make(epoch_steps=7).load_state_dict(state)


def _without(state: dict, name: str) -> dict:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: None, "this is no state of a stream"),
        (lambda state: [1, 2], "this is no state of a stream"),
        (lambda state: {}, "this is no state of a stream"),
        (lambda state: {"model": {"weight": torch.zeros(2)}, "epoch": 3}, "this is no state of a stream"),
        (lambda state: {**state, "plan": _without(state["plan"], "seed")}, "its plan has no seed"),
        (lambda state: {**state, "plan": {**state["plan"], "model": "00"}}, "a stream with model = 00, this one has"),
        (lambda state: {**state, "plan": {**state["plan"], "seed": "0"}}, "a stream with seed = 0, this one has"),
        (lambda state: {**state, "plan": {**state["plan"], "shape": 3}}, "a stream with shape = 3, this one has None"),
        *((lambda state, name=name: _without(state, name), f"it has no {name}") for name in ("epoch", "step", "rows")),
        *((lambda state, name=name: _without(state, name), f"it has no {name}") for name in ("losses", "counts")),
        (lambda state: {**state, "epoch": -1}, "epoch of the state is -1"),
        (lambda state: {**state, "epoch": 1}, "has 2 rows of weights, epoch 1 needs 3"),
        (lambda state: {**state, "step": 7}, "step of the state is 7, an epoch has 6"),
        (lambda state: {**state, "step": 1.5}, "step of the state is 1.5"),
        (lambda state: {**state, "rows": state["rows"][:1]}, "has 1 rows of weights, epoch 0 needs 2"),
        (lambda state: {**state, "rows": "ab"}, "rows of the state is ab, not a list"),
        (lambda state: {**state, "rows": [[1.0], [1.0]]}, "not 2 weights whose sum is 1"),
        (lambda state: {**state, "rows": [[math.nan, 1.0]] * 2}, "not 2 weights whose sum is 1"),
        (lambda state: {**state, "rows": [[0.9, 0.9]] * 2}, "not 2 weights whose sum is 1"),
        (lambda state: {**state, "losses": [0.5, 1]}, "losses of the state is .* not 2 whole numbers"),
        (lambda state: {**state, "counts": [0, -1]}, "counts of the state is .* not 2 whole numbers"),
        (lambda state: {**state, "counts": None}, "counts of the state is None, not a list"),
    ],
)
def test_a_damaged_state_is_refused_in_one_line_and_changes_nothing(
    make: Make, spoil: Callable[[dict], object], said: str
) -> None:
    stream = make(policy=Balanced())
    before = stream.state_dict()
    with pytest.raises(ConfigError, match=said) as caught:
        stream.load_state_dict(spoil(stream.state_dict(step=3)))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(caught.value)
    assert stream.state_dict() == before
    stream.load_state_dict(stream.state_dict(step=3))
    assert stream.state_dict()["step"] == 3


def test_a_state_beyond_the_epoch_is_not_given(make: Make) -> None:
    stream = make()
    for step in (7, -1, 1.5):
        with pytest.raises(ConfigError, match=f"step is {step}"):
            stream.state_dict(step=step)  # pyright: ignore[reportArgumentType]


def test_refresh_counts_steps_not_time(make: Make, tiny: Path) -> None:
    """Two synthetic items a step, four side by side, each shown twice: two new samples after every second step."""
    stream = make()
    windows = [stream.plan.window(stream.plan.drawn(step)) for step in range(7)]
    assert [window.start for window in windows] == [0, 0, 2, 2, 4, 4, 6]
    assert all(len(window) == 4 for window in windows)
    for epoch in range(2):
        stream.set_epoch(epoch)
        fill(stream, tiny)
        for item in stream:
            if item["synthetic"]:
                step = epoch * 6 + item["index"] // 4
                assert int(item["case"][4:]) in stream.plan.window(stream.plan.drawn(step))


def test_what_is_no_longer_shown_leaves_the_disk(make: Make, tiny: Path) -> None:
    stream = make()
    for epoch in range(4):
        stream.set_epoch(epoch)
        fill(stream, tiny)
    numbers = sorted(int(name[:8]) for name in stream.store.have())
    shown = stream.plan.needed(2 * 6, 5 * 6)
    assert numbers == list(shown) and shown.start > 0


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, Linear(0.0, 1.0, 12)])
def test_the_ratio_is_exact_in_counts(make: Make, tiny: Path, ratio: float | Linear) -> None:
    stream = make(ratio=ratio, batch=5)
    share, seen = (stream.plan.ratio.total, 0)
    for epoch in range(2):
        stream.set_epoch(epoch)
        fill(stream, tiny)
        for step, batch in enumerate(stream.loader(), start=1):
            seen += int(batch["synthetic"].sum())
            assert seen == math.floor(5 * share(6 * epoch + step) + 1e-6)


def test_every_sample_is_shown_reuse_times_and_real_cases_in_turn(make: Make, tiny: Path, prepared: Prepared) -> None:
    stream = make(reuse=2, depth=4)
    shown: Counter[str] = Counter()
    for epoch in range(6):
        stream.set_epoch(epoch)
        fill(stream, tiny)
        shown.update(item["case"] for item in stream)
    samples = {name: count for name, count in shown.items() if name.startswith("syn_")}
    names = sorted(samples)
    assert {samples[name] for name in names[4:-4]} == {2}
    real = [count for name, count in shown.items() if not name.startswith("syn_")]
    assert len(real) == len(prepared.split("train")) and max(real) - min(real) <= 1


def test_a_frozen_buffer_keeps_its_samples(make: Make, tiny: Path) -> None:
    stream = make(reuse=math.inf, depth=3)
    seen: set[str] = set()
    for epoch in range(4):
        stream.set_epoch(epoch)
        fill(stream, tiny)
        seen |= {item["case"] for item in stream if item["synthetic"]}
    assert seen == {"syn_00000", "syn_00001", "syn_00002"} == {f"syn_{int(n[:8]):05d}" for n in stream.store.have()}


def test_real_and_synthetic_items_share_space_and_numbers(make: Make, tiny: Path, prepared: Prepared) -> None:
    stream = make(ratio=0.5)
    fill(stream, tiny)
    items = {bool(item["synthetic"]): item for item in stream}
    for item in items.values():
        assert item["image"].shape == (1, *prepared.schema.grid) and item["image"].dtype == torch.float32
        assert item["mask"].shape == item["image"].shape and item["mask"].dtype == torch.uint8
        assert set(torch.unique(item["mask"]).tolist()) == {0, 1, 2}
        core = item["image"][item["mask"] == 2].mean()
        assert 0.8 < float(core) < 1.1
    case = prepared.case(items[False]["case"])
    assert np.array_equal(items[False]["image"].numpy(), prepared.image(case))
    assert np.array_equal(items[False]["mask"][0].numpy(), prepared.mask(case))


def test_spacing_and_size_are_those_of_the_loop(make: Make, tiny: Path, prepared: Prepared) -> None:
    spacing = tuple(2 * step for step in prepared.schema.spacing_mm)
    stream = make(spacing=spacing, intensity="zscore", size=(4, 9, 5))
    fill(stream, tiny)
    for item in stream:
        assert item["image"].shape == (1, 4, 9, 5)
        assert float(item["image"].abs().max()) < 10
    whole = make(spacing=spacing, intensity="zscore", buffer=stream.store.folder)
    for item in whole:
        assert item["image"].shape == (1, *(n // 2 for n in prepared.schema.grid))
        assert abs(float(item["image"].mean())) < 1e-4 and abs(float(item["image"].std()) - 1) < 1e-2


def test_patches_on_labels_hold_labels(make: Make, tiny: Path) -> None:
    stream = make(size=(3, 3, 3), foreground=1.0)
    fill(stream, tiny)
    assert all(int(item["mask"][0, 1, 1, 1]) > 0 for item in stream)


def test_a_dataset_folder_and_an_own_dataset_feed_it_too(make: Make, tiny: Path, dataset: Path, tmp_path: Path) -> None:
    folder = make(real=str(dataset), intensity="unit", size=(12, 12, 12), buffer=tmp_path / "one")
    fill(folder, tiny)
    items = list(folder)
    assert {int(v) for item in items for v in torch.unique(item["mask"])} == {0, 3, 200}
    assert {tuple(item["image"].shape) for item in items} == {(1, 12, 12, 12)}

    own = [{"image": np.full((1, 14, 12, 10), n, dtype=np.float64), "label": np.zeros((14, 12, 10))} for n in range(3)]
    with pytest.raises(ConfigError, match="intensity is not said"):
        make(real=own, buffer=tmp_path / "two")
    numbers = {"shell": 1, "core": 2}
    stream = make(real=own, intensity="unit", labels=numbers, size=(12, 12, 12), buffer=tmp_path / "two")
    fill(stream, tiny)
    seen = {float(item["image"].max()) for item in stream if not item["synthetic"]}
    assert seen == {0.0, 1.0, 2.0}
    with pytest.raises(ConfigError, match="label 'shell' of the model has no number in real"):
        make(real=own, intensity="unit", labels={"shel": 1, "core": 2}, buffer=tmp_path / "three")


def test_transforms_draw_by_item_not_by_worker(make: Make, tiny: Path) -> None:
    def noisy(item: dict) -> dict:
        return {**item, "image": item["image"] + torch.randn(item["image"].shape)}

    state = torch.get_rng_state()
    alone = _epochs(make(transform=noisy), tiny, 1)
    assert _epochs(make(transform=noisy), tiny, 1, workers=2) == alone
    assert torch.equal(torch.get_rng_state(), state)


def test_monai_transforms_draw_by_item_not_by_worker(make: Make, tiny: Path) -> None:
    monai = pytest.importorskip("monai.transforms")
    noise = monai.Compose([monai.RandGaussianNoised(keys="image", prob=1.0), monai.RandFlipd(keys=["image", "mask"])])
    assert _epochs(make(transform=noise), tiny, 1) == _epochs(make(transform=noise), tiny, 1, workers=2)


def test_a_worker_carries_neither_network_nor_process(make: Make) -> None:
    stream = make(generator=synth.load("brain-tiny"), real=None, ratio=1.0, masks="generated")
    assert stream.generator is None
    assert len(pickle.dumps(stream)) < 20_000


def test_a_spawned_worker_reads_the_same(make: Make, tiny: Path, dataset: Path, tmp_path: Path) -> None:
    """What spawn does to a dataset: pickled and opened elsewhere."""
    for number, real in enumerate((None, str(dataset))):
        options = {} if real is None else {"real": real, "intensity": "unit"}
        stream = make(size=(8, 8, 8), buffer=tmp_path / str(number), **options)
        fill(stream, tiny)
        again = pickle.loads(pickle.dumps(stream))
        for index in range(8):
            one, two = stream.item(0, index), again.item(0, index)
            assert one["case"] == two["case"] and torch.equal(one["image"], two["image"])


def test_an_epoch_is_not_shown_twice_unasked(make: Make, tiny: Path) -> None:
    stream = make()
    fill(stream, tiny)
    for loader in (stream, stream.loader(), stream.loader(1)):
        stream.set_epoch(0)
        assert len(list(loader)) in (6, 24)
        with pytest.raises(ConfigError, match=r"^epoch 0 was already shown; call stream.set_epoch\(1\)"):
            list(loader)


def test_sharing_out_twice_is_refused(make: Make, tiny: Path) -> None:
    stream = make(rank=(0, 2), produce=True)
    fill(stream, tiny)
    with pytest.raises(ValueError, match="expected unspecified sampler"):
        DataLoader(stream, sampler=DistributedSampler(stream, num_replicas=2, rank=0))
    accelerated = pytest.importorskip("accelerate.data_loader")
    with pytest.raises(ConfigError, match="accelerate.prepare would deal its items out again"):
        list(accelerated.IterableDatasetShard(stream, batch_size=2, num_processes=2))
    for dispatch in (False, None):
        prepared = accelerated.prepare_data_loader(DataLoader(stream, batch_size=2), dispatch_batches=dispatch)
        with pytest.raises(ConfigError, match="leave its loader out of prepare"):
            next(iter(prepared))
    monai = pytest.importorskip("monai.data")
    with pytest.raises(ConfigError, match="monai.data.IterableDataset would drop items"):
        next(iter(monai.IterableDataset(stream)))


def test_accelerate_leaves_the_loader_as_it_is(make: Make) -> None:
    accelerate = pytest.importorskip("accelerate")
    loader = make().loader()
    assert accelerate.Accelerator(cpu=True).prepare(loader) is loader


def test_a_foreign_loader_with_workers_must_say_where_it_is(make: Make, tiny: Path) -> None:
    stream = make()
    fill(stream, tiny)
    next(iter(DataLoader(stream, batch_size=4, num_workers=1)))
    with pytest.raises(ConfigError, match="take stream.loader, or give step="):
        stream.state_dict()
    assert stream.state_dict(step=3)["step"] == 3


def test_a_file_in_the_buffers_place_is_one_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for options in ({}, {"produce": False}):
        with pytest.raises(OutputError, match=f"^buffer {tmp_path / 'file'}: .*file is a file; give a folder$"):
            make(buffer=tmp_path / "file", **options)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_buffer_of_another_ask_and_a_folder_of_others_are_refused(make: Make, tmp_path: Path) -> None:
    make()
    with pytest.raises(OutputError, match="was begun with seed = 0, now it is 1; give another folder"):
        make(seed=1)
    with pytest.raises(OutputError, match="was begun with seed = 0, now it is 2"):
        make(seed=2, rank=(1, 2))
    make(ratio=0.25, reuse=1)  # shows the same samples
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and no buffer"):
        make(buffer=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
