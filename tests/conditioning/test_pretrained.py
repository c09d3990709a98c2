"""Texts by a pretrained encoder in a local folder: read once, the same in every batch, and never another folder's."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import synth
from pipelines.cli import run
from synth import config
from synth.conditioning import pretrained
from synth.conditioning.conditioner import Conditioner
from synth.conditioning.config import ConditioningConfig
from synth.conditioning.pretrained import completed, folder_sha256, reader_of
from synth.data.prepared import Prepared
from synth.errors import CheckpointError, ConfigError
from synth.ports import Window
from synth.recipe import Part, Recipe
from synth.sample import Condition
from synth.training.experiment import complete
from tests.conftest import tiny_recipe

pytest.importorskip("transformers")

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "round", "long", "thing")


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", pair=None, special_tokens=ends
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)


def _encoder(kind: str, folder: Path) -> Path:
    """Write a tiny encoder with random weights, as save_pretrained does."""
    from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(3)
    sizes: dict[str, Any] = {"vocab_size": len(WORDS), "num_hidden_layers": 1, "num_attention_heads": 2}
    match kind:
        case "bert":
            network: Any = BertModel(BertConfig(hidden_size=12, intermediate_size=16, **sizes))
        case "clip":
            ends = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
            network = CLIPTextModel(CLIPTextConfig(hidden_size=12, intermediate_size=16, **sizes, **ends))
        case _:
            t5 = T5Config(vocab_size=len(WORDS), d_model=12, d_kv=6, d_ff=16, num_layers=1, num_heads=2)
            network = T5EncoderModel(t5)
    network.save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _encoder("bert", tmp_path_factory.mktemp("encoder") / "bert")


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    reader_of.cache_clear()
    yield
    reader_of.cache_clear()


def _config(folder: Path) -> ConditioningConfig:
    config = ConditioningConfig(vocabulary=("thing",), text_encoder=str(folder), width=8, position=False)
    return replace(config, **completed(config))


def _ports(conditioner: Conditioner, *texts: str | None):  # noqa: ANN202 - Ports
    return conditioner([Condition(text=text) for text in texts], window=Window.whole((2, 2), len(texts)))


@pytest.mark.parametrize("kind", ["bert", "clip", "t5"])
def test_tokens_are_the_encoders_states_projected(kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertModel, CLIPTextModel, T5EncoderModel

    folder = _encoder(kind, tmp_path / kind)
    conditioner = Conditioner(_config(folder), spatial_dims=2)
    with torch.no_grad():
        tokens, mask = _ports(conditioner, "a round thing", None).tokens or (None, None)
        own: Any = {"bert": BertModel, "clip": CLIPTextModel, "t5": T5EncoderModel}[kind]
        ids = AutoTokenizer.from_pretrained(folder)("a round thing", return_tensors="pt")["input_ids"]
        states = own.from_pretrained(folder).eval()(input_ids=ids).last_hidden_state[0]
        wanted = conditioner.text.project(states)  # pyright: ignore[reportCallIssue]
    assert tokens is not None and mask is not None and mask.sum(dim=1).tolist() == [5, 1]
    assert torch.allclose(tokens[0], wanted, atol=1e-6)
    assert torch.equal(tokens[1, 0], conditioner.text.null)


@torch.no_grad()
def test_a_text_is_read_once_and_does_not_know_its_batch(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(bert)
    conditioner = Conditioner(config, spatial_dims=2)
    reader = reader_of(str(bert), config.text_sha256)
    calls: list[int] = []
    reader.network.register_forward_hook(lambda *_: calls.append(1))
    alone = _ports(conditioner, "a long thing")
    many = _ports(conditioner, "thing", "a long thing", None, "thing", "a round long thing")
    assert len(calls) == 3
    assert alone.tokens is not None and many.tokens is not None
    assert torch.equal(alone.tokens[0][0], many.tokens[0][1, :5])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fresh = reader.read("a long round thing", config.text_length)
    assert fresh.dtype == torch.float32
    reader._cache.clear()
    assert torch.equal(reader.read("a long round thing", config.text_length), fresh)


def test_states_read_while_sampling_can_be_trained_on(bert: Path) -> None:
    conditioner = Conditioner(_config(bert), spatial_dims=2)
    reader_of.cache_clear()
    with torch.inference_mode():
        _ports(conditioner, "a thing")
    ports = _ports(conditioner, "a thing", None)
    (ports.vector["text"].sum() + (ports.tokens or (torch.zeros(1),))[0].square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in conditioner.parameters())
    assert {name for name, _ in conditioner.named_parameters()} == {
        "text.null",
        "text.project.weight",
        "text.project.bias",
    }


@pytest.fixture(scope="module")
def trained(prepared: Prepared, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe, its image part with the pretrained encoder, a few steps."""
    home = tmp_path_factory.mktemp("text")
    text = tiny_recipe(3).replace("{mask_width: 8, width: 8}", f"{{mask_width: 8, width: 8, text_encoder: {bert}}}")
    (home / "recipe.yaml").write_text(text)
    options = ["--data", str(prepared.folder), "--out", str(home / "run")]
    for part in ("image", "mask"):
        options += ["--set", f"{part}.codec_training.fit.steps=2", "--set", f"{part}.training.fit.steps=2"]
    assert run("train", [str(home / "recipe.yaml"), *options]) == 0
    return home / "run" / "model"


def test_the_model_names_its_encoder_and_says_the_same_after_a_journey(
    trained: Path, bert: Path, tmp_path: Path
) -> None:
    generator = synth.load(trained)
    config = generator.model.recipe.image.conditioning
    assert (config.text_encoder, config.text_sha256, config.text_features) == (str(bert), folder_sha256(bert), 12)
    assert not any("bert" in name for name in generator.model.image.tensors())
    synth.save(generator, tmp_path / "copy")
    ask = [Condition(text="a word never trained on")]
    first = next(generator.generate(ask, seeds=[1]))
    reader_of.cache_clear()
    second = next(synth.load(tmp_path / "copy").generate(ask, seeds=[1]))
    assert first.image.data.tobytes() == second.image.data.tobytes()
    out = ["--out", str(tmp_path / "out"), "--count", "1", "--workers", "1"]
    assert run("generate", [str(trained), *out, "--text", "strange words"]) == 0


def test_without_a_text_the_library_is_not_needed(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    generator = synth.load(trained)
    next(generator.generate([Condition(attributes={"kind": "a"})], seeds=[0]))
    with pytest.raises(ConfigError, match=r"pip install 'synthvol\[text\]'"):
        next(generator.generate([Condition(text="a thing")], seeds=[0]))


def test_a_missing_or_another_encoder_is_refused(
    trained: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, encoder = tmp_path / "model", tmp_path / "encoder"
    shutil.copytree(trained, folder)
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace(str(bert), str(encoder)))
    with pytest.raises(CheckpointError, match="which is not there; put it there, or give its place as conditioning"):
        synth.load(folder)
    shutil.copytree(bert, encoder)
    (encoder / "README.md").write_text("a card decides nothing")
    synth.load(folder)
    weights = bytearray((encoder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (encoder / "model.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="not the text encoder that the model was trained with"):
        synth.load(folder)
    assert run("generate", [str(folder), "--out", str(tmp_path / "out"), "--count", "1"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_folders_that_hold_no_encoder_are_refused(bert: Path, tmp_path: Path, prepared: Prepared) -> None:
    def ask(folder: Path) -> dict[str, Any]:
        return completed(ConditioningConfig(text_encoder=str(folder)))

    with pytest.raises(ConfigError, match=r"has no config\.json; give a local Hugging Face folder"):
        ask(tmp_path / "nowhere")
    folder = tmp_path / "encoder"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer and safetensors"):
        ask(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="holds no tokenizer and safetensors"):
        ask(folder)
    silent = replace(prepared, cases=tuple(replace(case, text=None) for case in prepared.cases))
    recipe = Recipe(name="r", image=Part(conditioning=ConditioningConfig(text_encoder=str(bert))))
    with pytest.raises(ConfigError, match="the data has no texts"):
        complete(recipe, silent)


def test_weights_that_lack_a_tensor_are_refused(bert: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "encoder"
    shutil.copytree(bert, folder)
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in sorted(tensors) if "query.weight" in name)
    kept = {name: tensor for name, tensor in tensors.items() if name != lost and "pooler" not in name}
    save_file({**kept, lost: tensors[lost]}, folder / "model.safetensors", metadata={"format": "pt"})
    pretrained.reader_of(str(folder), folder_sha256(folder))  # a pooler may lack: it comes after what is read
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="query.weight is missing"):
        pretrained.reader_of(str(folder), folder_sha256(folder))


def test_reports_in_any_script_reach_the_encoder(bert: Path, prepared: Prepared) -> None:
    chinese = replace(prepared, cases=tuple(replace(case, text="左肺结节") for case in prepared.cases))
    recipe = config.load(Recipe, tiny_recipe(3), overrides=[f"image.conditioning.text_encoder={bert}"])
    conditioner = Conditioner(complete(recipe, chinese).image.conditioning, spatial_dims=3)
    assert "text" in conditioner.groups and isinstance(conditioner.text, pretrained.PretrainedText)
