"""How a clip was made: what its file carries, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import ClassVar, Self

import openlumiere
from openlumiere.errors import LumiereError

_VERSION, _COMMAND = "openlumiere", "command"  # the keys that tell our metadata from others', and our commands apart


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a clip's pixels, in diffusers' words.

    Attributes:
        weights: the bundled.fingerprint of local ones.
        alpha: "kept", or "laid over" the background; "" where model or clip have none.
        background: a colour's name or #rrggbb.
    """

    name: ClassVar[str]

    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    fps: float
    model: str
    weights: str
    device: str
    dtype: str
    loop: bool = False
    alpha: str = ""
    background: str = "white"
    version: str = openlumiere.__version__

    def metadata(self) -> dict[str, str | int | float]:
        """What `openlumiere.video.write_clip` puts into the file."""
        data = asdict(self)
        return {_VERSION: data.pop("version"), _COMMAND: self.name, **data}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Recipe | None:
        """Read `metadata` back; None where it is not ours.

        Raises:
            LumiereError: metadata of another version, which lacks something.
        """
        if _VERSION not in metadata:
            return None
        kinds = {kind.name: kind for kind in (GenerateRecipe, UpscaleRecipe, EditRecipe)}
        try:
            return kinds[str(metadata.get(_COMMAND, GenerateRecipe.name))]._read(metadata)
        except (KeyError, TypeError, ValueError) as error:
            raise LumiereError(
                f"the clip's metadata, by openlumiere {metadata[_VERSION]}, can't be read ({error}); "
                "read it with that version"
            ) from error

    @classmethod
    def _read(cls, metadata: Mapping[str, object]) -> Self:
        data = {**metadata, "version": metadata[_VERSION]}
        kinds = {"str": str, "int": int, "float": float, "bool": bool}
        told = [f for f in fields(cls) if f.name in data or f.default is MISSING]  # clips that are older than an option
        return cls(**{f.name: kinds[str(f.type)](data[f.name]) for f in told})

    def command(self, output: str, more: Sequence[str] = ()) -> str:
        """The command, quoted for a shell, that makes the clip again as `output`; `more` are further options."""
        words = self._words()
        options = [
            *("-o", output if not output.startswith("-") else f"./{output}"),
            *("--model", self.model),
            *("--seed", str(self.seed)),
            *("--steps", str(self.num_inference_steps)),
            *("--guidance", f"{self.guidance_scale:.10g}"),
            *((f"--negative={self.negative_prompt}",) if self.negative_prompt else ()),
            *(("--loop",) if self.loop else ()),
            *self._options(),
            *{"": (), "kept": ("--transparent",), "laid over": ("--no-transparent",)}[self.alpha],
            *(("--background", self.background) if self.background != "white" else ()),
            *("--device", self.device),
            *("--dtype", self.dtype),
            *more,
        ]
        # A prompt that starts with a dash would pass for an option.
        dashed = any(word.startswith("-") for word in words)
        return shlex.join(["lumiere", self._command(), *([*options, "--", *words] if dashed else [*words, *options])])

    def _command(self) -> str:
        return self.name

    def _words(self) -> list[str]:
        return [self.prompt]

    def _options(self) -> list[str]:
        return []


@dataclass(frozen=True, kw_only=True)
class GenerateRecipe(Recipe):
    """Of `lumiere generate`.

    Attributes:
        upscale_steps: 0 where the second stage was left out.
        styles: the options that name them, quoted for a shell.
        layout: the options that say where the subject goes, likewise.
    """

    name: ClassVar[str] = "generate"

    num_frames: int
    upscale_steps: int = 0
    styles: str = ""
    layout: str = ""

    def _options(self) -> list[str]:
        return ["--frames", str(self.num_frames), "--fps", f"{self.fps:.10g}", *_making(self)]


@dataclass(frozen=True, kw_only=True)
class UpscaleRecipe(Recipe):
    """Of `lumiere upscale`; `source` is the soft clip's path as it was given."""

    name: ClassVar[str] = "upscale"

    source: str
    noise_level: int

    def _words(self) -> list[str]:
        return [self.source, self.prompt] if self.prompt else [self.source]

    def _options(self) -> list[str]:
        return ["--noise-level", str(self.noise_level)]


@dataclass(frozen=True, kw_only=True)
class EditRecipe(Recipe):
    """Of the commands that start from a picture or clip.

    Attributes:
        task: the command, such as "animate".
        source: the path as it was given.
        arguments: the command's own options, quoted for a shell.
        upscale_steps: 0 where the second stage was left out.
        styles: the options that name them, quoted for a shell.
        layout: the options that say where the subject goes, likewise.
    """

    name: ClassVar[str] = "edit"

    task: str
    source: str
    arguments: str
    upscale_steps: int = 0
    styles: str = ""
    layout: str = ""

    def _command(self) -> str:
        return self.task

    def _words(self) -> list[str]:
        return [self.source, self.prompt] if self.prompt else [self.source]

    def _options(self) -> list[str]:
        return [*shlex.split(self.arguments), *_making(self)]


def _making(recipe: GenerateRecipe | EditRecipe) -> list[str]:
    upscale = ["--upscale-steps", str(recipe.upscale_steps)] if recipe.upscale_steps else ["--no-upscale"]
    return [*upscale, *shlex.split(recipe.styles), *shlex.split(recipe.layout)]
