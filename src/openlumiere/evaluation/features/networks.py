"""The networks whose features make a distribution metric, behind one small type.

A score means nothing without the file that it was made with: other I3D weights give other FVDs. So files are known by
their SHA-256, and a metric keeps its plain name only with the file that everyone uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openlumiere import files
from openlumiere.bundled import models_root
from openlumiere.errors import LumiereError

from . import emoji as emoji_features
from .clip_sets import Preparation, Sampling

FEATURES, PROBABILITIES = "features", "probabilities"


@dataclass(frozen=True, kw_only=True)
class FeatureFile:
    """A published network.

    Attributes:
        file: its usual name.
        sha256: of the published file; None where nobody published one.
        get: how to get it, to be read in an error.
        call: how it is called, for the protocol.
        output: FEATURES or PROBABILITIES.
        shortest, longest: numbers of frames that it takes.
    """

    file: str
    sha256: str | None
    get: str
    call: str
    output: str
    shortest: int = 16
    longest: int = 16


PUBLISHED: dict[str, FeatureFile] = {
    # StyleGAN-V's translation of the I3D of the first FVD (Unterthiner et al. 2018), trained on Kinetics-400.
    "i3d": FeatureFile(
        file="i3d_torchscript.pt",
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        get="hf download flateon/FVD-I3D-torchscript i3d_torchscript.pt "
        "(or https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1)",
        call="uint8 (B, 3, F, H, W), rescale=True, resize=True, return_features=True",
        output=FEATURES,
        shortest=10,  # time is halved three times, then averaged over two positions
        longest=512,
    ),
    # StyleGAN-V's translation of TGANv2's C3D (Saito et al. 2020), trained on UCF101.
    "c3d": FeatureFile(
        file="c3d_ucf101.pt",
        sha256=None,
        get="https://www.dropbox.com/s/jxpu7avzdc9n97q/c3d_ucf101.pt?dl=1",
        call="uint8 (B, 3, F, H, W)",
        output=PROBABILITIES,
    ),
}
EMOJI = "emoji"
EMOJI_FOLDER = "emoji-features"  # below the bundled models
NAMES = (*PUBLISHED, EMOJI)


@dataclass(frozen=True, kw_only=True)
class FeatureNet:
    """A feature network that was found, checked by hash, and not yet loaded: small enough to be sent to workers.

    Attributes:
        name: one of NAMES.
        path: its file.
        sha256: of that file.
        device: torch device to run on.
    """

    name: str
    path: Path
    sha256: str
    device: str = "cpu"

    def metric(self, plain: str) -> str:
        """Return the name of a metric made with it: FVD only with the published I3D, else FVD-emoji or FVD-<hash>."""
        if self.name == EMOJI:
            return f"{plain}-emoji"
        known = PUBLISHED[self.name].sha256
        return plain if known in (None, self.sha256) else f"{plain}-{self.sha256[:8]}"

    def preparation(
        self,
        *,
        num_frames: int = 16,
        sampling: Sampling | None = None,
        size: int | None = None,
        fps: float | None = None,
        resize: str = "lanczos",
        seed: int = 0,
    ) -> Preparation:
        """Return what becomes of clips before it.

        What is None is its own: the centre's frames, of their own size and rate, for I3D and C3D, and 16 frames spread
        over the whole clip, at 32 x 32, for the emoji network.

        Raises:
            LumiereError: a number of frames or a size that it does not take.
        """
        if self.name == EMOJI:
            shortest = longest = emoji_features.FRAMES
            if size not in (None, emoji_features.SIDE):
                raise LumiereError(f"--size {size}: the emoji network looks at {emoji_features.SIDE} pixels; leave it")
            size = emoji_features.SIDE
        else:
            shortest, longest = PUBLISHED[self.name].shortest, PUBLISHED[self.name].longest
        if not shortest <= num_frames <= longest:
            takes = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
            raise LumiereError(f"--frames {num_frames}: {self.name} takes {takes}; choose another number")
        sampling = sampling or ("spread" if self.name == EMOJI else "centre")
        return Preparation(num_frames=num_frames, sampling=sampling, size=size, fps=fps, resize=resize, seed=seed)

    def protocol(self) -> dict[str, Any]:
        """Return what a score's protocol says of it."""
        known = None if self.name == EMOJI else PUBLISHED[self.name].sha256
        call = "float (B, 3, 16, 32, 32) in [0, 1]" if self.name == EMOJI else PUBLISHED[self.name].call
        return {
            "network": self.name,
            "file": self.path.name,
            "sha256": self.sha256,
            "published_sha256": known,
            "called_with": call,
        }

    def load(self) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """Return a function of clips, uint8 (B, F, H, W, 3), to float32 arrays (B, ...) by FEATURES and PROBABILITIES.

        Raises:
            LumiereError: a damaged file, or one of another interface.
        """
        if self.name == EMOJI:
            return _emoji(emoji_features.load(self.path.parent).to(self.device), self.device)
        return _torchscript(self.path, PUBLISHED[self.name].output, self.device)


def find_features(
    name: str, *, path: str | Path | None = None, sha256: str | None = None, device: str = "cpu"
) -> FeatureNet:
    """Find a feature network by name: its file as given, or in the Hugging Face cache, or the package's own.

    Args:
        name: one of NAMES.
        path: the file; None = looked for.
        sha256: demand this hash in place of the published one.

    Raises:
        LumiereError: unknown name, no file, or a file of another hash; each says what to do.
    """
    if name not in NAMES:
        raise LumiereError(f"--features {name}: unknown; choose from {', '.join(NAMES)}")
    if name == EMOJI:
        file = Path(path) if path else models_root() / EMOJI_FOLDER / emoji_features.WEIGHTS
        file = file / emoji_features.WEIGHTS if file.is_dir() else file
        remedy = "install openlumiere again, or make it with: lumiere evaluate train-features"
    else:
        published = PUBLISHED[name]
        file = Path(path) if path else _in_hub_cache(published.file)
        remedy = (
            f"get it with {published.get}, and give it with --features-file PATH; "
            f"--features {EMOJI} needs no file (FVD-emoji, IS-emoji)"
        )
    if not file.is_file():
        raise LumiereError(f"the feature network {file} is not there: {remedy}")
    found = files.sha256(file)
    wanted = sha256 or (None if name == EMOJI else PUBLISHED[name].sha256)
    if wanted and found != wanted.lower():
        raise LumiereError(
            f"{file} has the SHA-256 {found}, not {wanted.lower()}: accept this very file, under a name of its own, "
            f"with --features-sha256 {found}; or {remedy}"
        )
    return FeatureNet(name=name, path=file, sha256=found, device=device)


def usable_device(name: str) -> str:
    """Return `name`, or the best device that there is for "auto".

    Raises:
        LumiereError: it cannot be used here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise LumiereError(f"--device {name} cannot be used here; try --device cpu") from error
    return name


def _in_hub_cache(file: str) -> Path:
    """Return where any repository in the Hugging Face cache holds this file; the bare name, here, where none does."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cached = scan_cache_dir(constants.HF_HUB_CACHE)
    except CacheNotFound:
        return Path(file)
    for repository in sorted(cached.repos, key=lambda repository: repository.repo_id):
        for revision in sorted(repository.revisions, key=lambda revision: revision.commit_hash):
            for entry in revision.files:
                if entry.file_name == file:
                    return Path(entry.file_path)
    return Path(file)


def _torchscript(path: Path, output: str, device: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    try:
        network = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = files.one_line(error)
        raise LumiereError(f"{path} is no TorchScript file, or damaged ({reason}); get it again") from error
    options = {"rescale": True, "resize": True, "return_features": True} if output == FEATURES else {}

    @torch.inference_mode()
    def run(clips: np.ndarray) -> dict[str, np.ndarray]:
        batch = torch.from_numpy(np.ascontiguousarray(clips)).permute(0, 4, 1, 2, 3).contiguous().to(device)
        try:
            found = network(batch, **options)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())[-200:]
            raise LumiereError(f"{path} does not take clips as it should ({reason}); get the published file") from error
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != len(clips):
            raise LumiereError(f"{path} gives no vector for each clip; get the published file")
        return {output: found.float().cpu().numpy()}

    return run


def _emoji(network: emoji_features.EmojiFeatures, device: str) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    @torch.inference_mode()
    def run(clips: np.ndarray) -> dict[str, np.ndarray]:
        found = network.features(emoji_features.as_input(clips).to(device))
        probabilities = network.subject(found).double().softmax(1).float()
        return {FEATURES: found.cpu().numpy(), PROBABILITIES: probabilities.cpu().numpy()}

    return run
