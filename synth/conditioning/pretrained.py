"""Texts read by a pretrained language model in a local Hugging Face folder. Nothing is ever downloaded.

The folder is named in the recipe with the sha256 of its files; transformers is imported when the first text is read.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synth.conditioning.config import ConditioningConfig
from synth.conditioning.encoders import pad_tokens
from synth.errors import CheckpointError, ConfigError

_FILES = ("*.safetensors", "*.json", "*.model", "vocab.txt", "merges.txt")
"""What decides an embedding: weights, configuration and tokenizer; not the model's card or weights of other kinds."""


class PretrainedText(nn.Module):
    """Sentences -> tokens (batch, length, width) with their mask, and a pooled (batch, width).

    The frozen encoder's last hidden states, projected by a trained linear; no text is one learned null token.
    """

    def __init__(self, config: ConditioningConfig) -> None:
        super().__init__()
        assert config.text_encoder is not None and config.text_features
        self.config = config
        self.project = nn.Linear(config.text_features, config.width)
        self.null = nn.Parameter(torch.randn(config.width) * 0.02)

    def forward(self, texts: Sequence[str | None]) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens, their mask (True where one counts) and the pooled vector."""
        rows = [self._row(text) if text and text.strip() else self.null[None] for text in texts]
        tokens, mask = pad_tokens(rows)
        weight = mask[..., None].to(tokens.dtype)
        return tokens, mask, (tokens * weight).sum(dim=1) / weight.sum(dim=1)

    def _row(self, text: str) -> Tensor:
        assert self.config.text_encoder is not None
        reader = reader_of(self.config.text_encoder, self.config.text_sha256)
        return self.project(reader.read(text, self.config.text_length).to(self.null)).to(self.null.dtype)


@dataclass(frozen=True, eq=False)
class Reader:
    """A frozen language model with its tokenizer; each distinct text is read once."""

    tokenizer: Any
    network: nn.Module
    _cache: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def read(self, text: str, length: int) -> Tensor:
        """Return the last hidden states (tokens, channels), float32 on the CPU, of the first `length` tokens.

        One text at a time and without autocast, so that its numbers do not depend on who else is in the batch, nor
        on whether it is read in training or afterwards.
        """
        key = (text, length)
        if key not in self._cache:
            with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
                entry = self.tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
                known = {name: entry[name] for name in ("input_ids", "attention_mask") if name in entry}
                self._cache[key] = self.network(**known).last_hidden_state[0].float().clone()
        return self._cache[key]


@cache
def reader_of(folder: str, sha256: str) -> Reader:
    """Return the language model of a folder whose files hash to `sha256`; kept, as image and mask part share it.

    Errors: ConfigError where transformers is not installed; CheckpointError for a missing, other or broken folder.
    """
    require(folder, sha256)
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ConfigError(
            "text by a pretrained encoder needs transformers; install it with pip install 'synthvol[text]'"
        ) from error
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        with torch.inference_mode(False):
            tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            model, told = AutoModel.from_pretrained(
                folder, **local, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, ValueError, KeyError) as error:
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CheckpointError(
            f"{folder} holds no tokenizer and safetensors of a text encoder ({said}); save both with save_pretrained"
        ) from error
    network = _text_part(model)
    used = {id(parameter) for parameter in network.parameters()}
    for name, parameter in model.named_parameters():
        # transformers would go on with random numbers; poolers come after what is read here
        if id(parameter) in used and name in told["missing_keys"] and "pooler" not in name:
            raise CheckpointError(f"{folder}: tensor {name} is missing from the weights; copy the whole folder")
    return Reader(tokenizer, network.eval().requires_grad_(False))


def _text_part(model: Any) -> nn.Module:
    """Return what reads text in a model that also writes (T5) or sees (CLIP)."""
    if hasattr(model, "encoder") and hasattr(model, "decoder"):
        return model.encoder
    return getattr(model, "text_model", model)


def completed(config: ConditioningConfig) -> dict[str, Any]:
    """Return the fields of `config` that its text encoder's folder decides: text_sha256 and text_features.

    The encoder is tried on a word: a broken one is told now, not after hours of the codec's training.
    Errors: ConfigError where the folder is none or transformers is not installed; CheckpointError for a broken one.
    """
    if config.text_encoder is None:
        return {"text_sha256": "", "text_features": 0}
    folder = Path(config.text_encoder)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"conditioning.text_encoder: {folder} has no config.json; give a local Hugging Face folder")
    sha256 = folder_sha256(folder)
    word = reader_of(config.text_encoder, sha256).read("a", config.text_length)
    return {"text_sha256": sha256, "text_features": int(word.shape[1])}


def require(folder: str, sha256: str) -> None:
    """Raise CheckpointError where `folder` is missing or is not the text encoder that the model was trained with."""
    mend = "put it there, or give its place as conditioning.text_encoder in the model's recipe.yaml"
    if not Path(folder).is_dir():
        raise CheckpointError(f"the model reads texts with the encoder in {folder}, which is not there; {mend}")
    found = folder_sha256(Path(folder))
    if found != sha256:
        raise CheckpointError(
            f"{folder} is not the text encoder that the model was trained with "
            f"(sha256 {found[:12]}, not {sha256[:12]}); {mend}"
        )


def folder_sha256(folder: Path) -> str:
    """Return the sha256 over names and bytes of the files that decide what a folder's encoder says."""
    whole = hashlib.sha256()
    for path in sorted({path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}):
        with path.open("rb") as file:
            whole.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
