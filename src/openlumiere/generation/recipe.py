"""How a clip was made: what its file carries, the request that makes it again, and the command that does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openlumiere
from openlumiere.errors import LumiereError

from . import options
from .requests import TASKS, ClipRequest, EditRequest, GenerateRequest, Request, UpscaleRequest, request_from_json

# As provenance.marking's, which imports NumPy: the test holds them together.
WATERMARK_KEY, UNMARKED = "watermark", "none"
STICKER_KEY = "sticker"  # of a file's metadata: the options of its sticker, quoted for a shell
_VERSION, _COMMAND = "openlumiere", "command"  # the keys that tell our metadata from others', and our commands apart
_EDIT = "edit"  # the command of all that start from a picture or clip; `task` says which
_ALPHA = {None: "", True: "kept", False: "laid over"}
# What a clip cannot be made again without; whatever else is missing was not yet an option, and has its default.
_NEEDED = ("seed", "model")


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which weights made a clip, and where.

    Attributes:
        name: a bundled model's, an absolute path, a hub id with ``@REVISION`` where one was asked for, or a server's
            address with ``#NAME``; of several parts, joined by ``+``.
        weights: the `bundled.fingerprint` of local ones, the commit of a hub's; "" = not known.
        device, dtype: as the command line's options.
        version: of openlumiere.
        licence: of the weights, see `abilities.Abilities`.
    """

    name: str
    weights: str = ""
    device: str = "auto"
    dtype: str = "auto"
    version: str = openlumiere.__version__
    licence: str = ""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a clip's pixels.

    Attributes:
        request: with every choice made; `transparent` is None where model or clip have no alpha.
        fps: of the clip, in frames per second.
        watermark: what its mark says, see `provenance.marking`; "none" = it was left unmarked, "" = not known.
    """

    request: Request
    model: ModelIdentity
    fps: float
    watermark: str = ""

    def metadata(self) -> dict[str, str | int | float]:
        """Return what `openlumiere.video.write_clip` puts into the file."""
        request = self.request
        data: dict[str, Any] = {
            _VERSION: self.model.version,
            _COMMAND: _EDIT if isinstance(request, EditRequest) else request.task,
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": request.seed,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "fps": self.fps,
            "model": self.model.name,
            "weights": self.model.weights,
            "licence": self.model.licence or None,
            "device": self.model.device,
            "dtype": self.model.dtype,
            "loop": request.loop,
            "alpha": _ALPHA[request.transparent],
            "background": request.background,
            WATERMARK_KEY: self.watermark or None,
        }
        match request:
            case GenerateRequest():
                data |= {"num_frames": request.num_frames}
            case EditRequest():
                arguments = options.arguments_of(request)
                data |= {"task": request.task, "source": request.source, "arguments": arguments}
            case UpscaleRequest():
                data |= {"source": request.source, "noise_level": request.noise_level}
        if isinstance(request, ClipRequest):
            styles, layout = options.styles_of(request), options.layout_of(request)
            data |= {"upscale_steps": request.upscale_steps, "styles": styles, "layout": layout}
            if request.size is not None:
                data["size"] = options.size_text(request.size)
            if request.references:
                data["references"] = options.references_of(request)
        if request.sticker is not None:
            data[STICKER_KEY] = shlex.join(options.sticker_words(request.sticker))
        return {key: value for key, value in data.items() if value is not None}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], output: str = "") -> Recipe | None:
        """Read `metadata` back; None where it is not ours. Options that the clip is older than have their defaults.

        Args:
            output: of the request.

        Raises:
            LumiereError: what the clip cannot be made again without is missing, or is no such thing.
        """
        if _VERSION not in metadata:
            return None
        try:
            missing = [key for key in _NEEDED if key not in metadata]
            if missing:
                raise LumiereError(f"{missing[0]} is missing")
            request = request_from_json({**_request_of(metadata), "output": output})
            names = {"name": "model", **{key: key for key in ("weights", "device", "dtype", "licence")}}
            known = {name: str(metadata[key]) for name, key in names.items() if key in metadata}
            model = ModelIdentity(**known, version=str(metadata[_VERSION]))
            watermark = str(metadata.get(WATERMARK_KEY, ""))
            return cls(request=request, model=model, fps=float(metadata.get("fps", 16.0)), watermark=watermark)
        except ValueError as error:
            raise LumiereError(
                f"the clip's metadata, by openlumiere {metadata[_VERSION]}, can't be read ({error}); "
                "read it with that version"
            ) from error

    def command(self) -> str:
        """Return the command, quoted for a shell, that makes the clip again as the request's `output`."""
        request, model = self.request, self.model
        source = [request.source] if isinstance(request, (EditRequest, UpscaleRequest)) else []
        words = [*source, request.prompt] if request.prompt or not source else source
        alpha: dict[bool | None, list[str]] = {None: [], True: ["--transparent"], False: ["--no-transparent"]}
        every = [
            *("-o", request.output if not request.output.startswith("-") else f"./{request.output}"),
            *options.with_value("--model", model.name),
            *_option("--seed", request.seed),
            *_option("--steps", request.num_inference_steps),
            *_option("--guidance", request.guidance_scale),
            *((f"--negative={request.negative_prompt}",) if request.negative_prompt else ()),
            *(("--loop",) if request.loop else ()),
            *self._own_options(),
            *alpha[request.transparent],
            *(("--background", request.background) if request.background != "white" else ()),
            *("--device", model.device),
            *("--dtype", model.dtype),
            *options.sticker_words(request.sticker),
            *(("--no-mark",) if self.watermark == UNMARKED else ()),
        ]
        if request.sticker is not None and isinstance(request, GenerateRequest) and not request.loop:
            every.append("--no-loop")  # stickers are loops by default
        # A prompt that starts with a dash would pass for an option.
        dashed = any(word.startswith("-") for word in words)
        return shlex.join(["lumiere", request.task, *([*every, "--", *words] if dashed else [*words, *every])])

    def _own_options(self) -> list[str]:
        """Options that not all commands have."""
        request, own = self.request, []
        match request:
            case GenerateRequest():
                own = [*_option("--frames", request.num_frames), *_option("--fps", self.fps)]
            case EditRequest():
                own = shlex.split(options.arguments_of(request))
            case UpscaleRequest():
                own = _option("--noise-level", request.noise_level)
        if isinstance(request, ClipRequest):
            upscale = ["--no-upscale"] if request.upscale_steps == 0 else []
            own += upscale or _option("--upscale-steps", request.upscale_steps)
            own += [] if request.size is None else ["--size", options.size_text(request.size)]
            for words in (options.styles_of(request), options.layout_of(request), options.references_of(request)):
                own += shlex.split(words)
        return own


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Return whether a clip's metadata say that it was made by openlumiere."""
    return _VERSION in metadata


def prompt_of(metadata: Mapping[str, Any]) -> str:
    """Return the prompt that a clip of ours was made of, whatever else its metadata lacks; "" for others' clips."""
    prompt = metadata.get("prompt", "") if _VERSION in metadata else ""
    return prompt if isinstance(prompt, str) else ""


def _request_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The request that metadata tell, as plain JSON."""
    task = metadata.get(_COMMAND, GenerateRequest.task)
    if task == _EDIT:
        task = metadata.get("task")
    if task not in TASKS:
        raise LumiereError(f"{task!r} is no task of this version")
    kind = TASKS[task]
    names = ["prompt", "negative_prompt", "seed", "num_inference_steps", "guidance_scale", "loop", "background"]
    if kind is GenerateRequest:
        names += ["num_frames", "fps"]
    if issubclass(kind, (EditRequest, UpscaleRequest)):
        names += ["source", "noise_level"] if kind is UpscaleRequest else ["source"]
    if issubclass(kind, ClipRequest):
        names += ["upscale_steps"]
    data: dict[str, Any] = {"task": task, **{name: metadata[name] for name in names if name in metadata}}
    data["transparent"] = {text: value for value, text in _ALPHA.items()}.get(metadata.get("alpha", ""))
    data.setdefault("loop", False)
    if issubclass(kind, EditRequest):
        data |= options.read_arguments(kind, str(metadata.get("arguments", "")))
    if issubclass(kind, ClipRequest):
        data.setdefault("upscale_steps", 0)  # clips that tell nothing of a second stage had none
        data["styles"] = options.read_styles(str(metadata.get("styles", "")))
        data |= options.read_layout(str(metadata.get("layout", "")))
        if "size" in metadata:
            data["size"] = options.parse_size(str(metadata["size"]))
        data["references"] = options.read_references(str(metadata.get("references", "")))
    if STICKER_KEY in metadata:
        data["sticker"] = options.read_sticker(str(metadata[STICKER_KEY]))
    return data


def _option(name: str, value: float | None) -> list[str]:
    if value is None:
        return []
    return [name, f"{value:.10g}" if isinstance(value, float) else str(value)]
