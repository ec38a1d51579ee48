"""Prompts, or embeddings in their place, to the text conditions of a pipeline's networks."""

from __future__ import annotations

from typing import Any

import torch

from openlumiere.errors import LumiereError

from .planner import PathPlanner
from .text import TextConditions, embed, encode, load_text_encoder


class PromptMixin:
    """Of `ClipPipeline`: encodes prompts with the pipeline's text encoders."""

    unet: Any
    config: Any
    tokenizer: Any
    text_encoder: Any
    tokenizer_2: Any = None  # of Stable Diffusion XL
    text_encoder_2: Any = None
    register_modules: Any
    _execution_device: torch.device

    def _complete_text_encoder(self) -> None:
        """Load the text encoder that `text_encoder_id` names, where the pipeline has none."""
        if getattr(self.text_encoder, "pooler", None) is not None:
            # Prompts are encoded token by token. A BERT saved without its pooling layer comes back with a random one.
            self.text_encoder.pooler = None
        if self.text_encoder is None and self.config.text_encoder_id:
            tokenizer, encoder = load_text_encoder(self.config.text_encoder_id)
            self.register_modules(tokenizer=tokenizer, text_encoder=encoder.to(self._execution_device, self.unet.dtype))

    def encode_prompts(self, prompts: list[str], *, together: bool = False) -> TextConditions:
        """Encode prompts with the family's own text encoders; `together`: see `text.embed`."""
        self._complete_text_encoder()
        tokenizers = [t for t in (self.tokenizer, self.tokenizer_2) if t is not None]
        encoders = [e for e in (self.text_encoder, self.text_encoder_2) if e is not None]
        if not encoders:
            raise LumiereError("the pipeline has no text encoder; pass text_encoder= and tokenizer=")
        return encode(prompts, tokenizers, encoders, max_length=self.config.max_text_length, together=together)

    def _encode(
        self,
        prompts: list[str] | None,
        negative: str | list[str] | None,
        *,
        guided: bool,
        given: TextConditions | None = None,
        negative_given: TextConditions | None = None,
    ) -> TextConditions:
        """Encode prompts, and where `guided` what to keep away from after them.

        Args:
            given, negative_given: embeddings that take the place of prompts.
        """
        text = self.encode_prompts(prompts or []) if given is None else given
        if not guided:
            return text
        count = len(text.hidden_states)
        against = [negative or ""] * count if not isinstance(negative, list) else negative
        if len(against) != count:
            raise LumiereError(f"{len(against)} negative prompts for {count} prompts: give one, or one each")
        if negative_given is not None:
            nothing = negative_given
        elif given is not None and self.text_encoder is None:
            raise LumiereError("guidance needs negative_prompt_embeds too: the pipeline has no text encoder")
        else:
            nothing = self.encode_prompts(against)
            if self.text_encoder_2 is not None and negative is None:
                # Stable Diffusion XL was trained with zeros, not with the empty prompt.
                assert nothing.pooled is not None
                nothing = TextConditions(torch.zeros_like(nothing.hidden_states), torch.zeros_like(nothing.pooled))
        if nothing.hidden_states.shape != text.hidden_states.shape:
            raise LumiereError(
                f"prompt_embeds of shape {tuple(text.hidden_states.shape)} and negative ones of shape "
                f"{tuple(nothing.hidden_states.shape)}: make them equal, or give both"
            )
        return text.concat(nothing)

    def _planner_text(
        self, planner: PathPlanner | None, prompts: list[str] | None, text: TextConditions, clips: int
    ) -> torch.Tensor:
        """Return what a planner reads of B clips' prompts: the layers that it asks for, else what the network reads."""
        layers = planner.config.text_layers if planner is not None else None
        if not layers or not prompts:
            return text.hidden_states[:clips]
        read = embed(
            prompts, self.tokenizer, self.text_encoder, max_length=self.config.max_text_length, layers=list(layers)
        )
        return read.repeat_interleave(clips // len(prompts), dim=0)

    def _given_text(self, name: str, embeds: torch.Tensor | None, pooled: torch.Tensor | None) -> TextConditions | None:
        """Check embeddings that a user passes instead of prompts, (B, L, D), and (B, P) where the family has them.

        Args:
            name: of the argument.
        """
        config = self.unet.spatial.config
        if embeds is None and pooled is None:
            return None
        if embeds is None or (pooled is not None) != (config["addition_embed_type"] == "text_time"):
            wants = "both" if config["addition_embed_type"] == "text_time" else f"{name} alone"
            raise LumiereError(f"{name} and its pooled embeddings: this model takes {wants}")
        width = config["encoder_hid_dim"] or config["cross_attention_dim"]
        if embeds.ndim != 3 or (isinstance(width, int) and embeds.shape[2] != width):
            raise LumiereError(f"{name} of shape {tuple(embeds.shape)}: this model reads (clips, tokens, {width})")
        device = self._execution_device
        return TextConditions(embeds.to(device), None if pooled is None else pooled.to(device))
