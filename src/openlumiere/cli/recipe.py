"""How a clip was made: what its file carries, and the command that makes it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import openlumiere
from openlumiere.errors import LumiereError

_VERSION = "openlumiere"  # the key that tells our metadata from others'


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that decides a clip's pixels, in diffusers' words; `weights` is the bundled.fingerprint of local ones."""

    prompt: str
    negative_prompt: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    num_frames: int
    fps: float
    model: str
    weights: str
    device: str
    dtype: str
    version: str = openlumiere.__version__

    def metadata(self) -> dict[str, str | int | float]:
        """What `openlumiere.video.write_clip` puts into the file."""
        data = asdict(self)
        return {_VERSION: data.pop("version"), **data}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object]) -> Recipe | None:
        """Read `metadata` back; None where it is not ours.

        Raises:
            LumiereError: metadata of another version, which lacks something.
        """
        if _VERSION not in metadata:
            return None
        data = {**metadata, "version": metadata[_VERSION]}
        kinds = {"str": str, "int": int, "float": float}
        try:
            return cls(**{field.name: kinds[str(field.type)](data[field.name]) for field in fields(cls)})
        except (KeyError, TypeError, ValueError) as error:
            raise LumiereError(
                f"the clip's metadata, by openlumiere {metadata[_VERSION]}, can't be read ({error}); "
                "read it with that version"
            ) from error

    def command(self, output: str) -> str:
        """The command, quoted for a shell, that makes the clip again as `output`."""
        options = [
            *("-o", output if not output.startswith("-") else f"./{output}"),
            *("--model", self.model),
            *("--seed", str(self.seed)),
            *("--frames", str(self.num_frames)),
            *("--fps", f"{self.fps:.10g}"),
            *("--steps", str(self.num_inference_steps)),
            *("--guidance", f"{self.guidance_scale:.10g}"),
            *((f"--negative={self.negative_prompt}",) if self.negative_prompt else ()),
            *("--device", self.device),
            *("--dtype", self.dtype),
        ]
        # A prompt that starts with a dash would pass for an option.
        prompt = ["--", self.prompt] if self.prompt.startswith("-") else [self.prompt]
        words = [*options, *prompt] if len(prompt) > 1 else [*prompt, *options]
        return shlex.join(["lumiere", "generate", *words])
