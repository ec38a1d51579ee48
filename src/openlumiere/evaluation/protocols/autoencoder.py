"""`lumiere evaluate autoencoder`: does a picture with transparency survive being encoded and decoded?

Animations of the test split are drawn without a background and over a plain colour, then pictures of kinds that were
never trained on; what comes back is compared with what went in, as 8-bit pictures of premultiplied RGBA. Noise on the
latents says what the decoder forgives a diffusion model. Each gate is the least that a bundled model has to reach.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from openlumiere import files
from openlumiere.data.emoji.shards import FPS
from openlumiere.errors import LumiereError
from openlumiere.evaluation import cache
from openlumiere.evaluation.metrics.fidelity import psnr
from openlumiere.evaluation.metrics.temporal import flicker
from openlumiere.evaluation.real_pictures import (
    NEAR,
    PLAIN,
    TRANSPARENT,
    draw_test_animations,
    list_test_keys,
    picture_files,
    read_square,
    unseen_kinds,
)
from openlumiere.evaluation.scores import versions
from openlumiere.tables import plain_table, table

NOISE = (0.0, 0.05, 0.1, 0.15, 0.3)
# The least that a bundled autoencoder has to reach, in dB, %, 1/255, share, dB.
PSNR, ALPHA_ERROR, GROUND_ERROR, FLICKER, UNSEEN_PSNR = 34.0, 1.0, 1, 0.05, 28.0

_NOISY_EVERY = 4  # frames: noise is tried on fewer, for it is tried often
_BATCH = 16
_EMPTY = 1.0  # mean alpha, of 255, below which there is nothing to get wrong: such pictures would raise the mean
_SHOWN = 10  # columns of the sheet

Report = dict[str, Any]


class _Clip(NamedTuple):
    """What went in and what came back, uint8 (F, 4, H, W), and where the ground is plain, bool (F, H, W)."""

    real: np.ndarray
    made: np.ndarray
    ground: np.ndarray


def evaluate_autoencoder(
    autoencoder: Path,
    data: Path,
    artwork: Path,
    output: Path,
    *,
    pictures: Sequence[Path] = (),
    clips: int = 24,
    num_frames: int = 12,
    count: int = 48,
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> Report:
    """Measure an autoencoder of RGBA, and write ``autoencoder.json``, ``autoencoder.md`` and ``autoencoder.png``.

    Args:
        autoencoder: folder of an RGBAAutoencoder, or of any diffusers VAE with four channels.
        data: folder that `lumiere data emoji` wrote: animations, of which those of the test split are used.
        artwork: folder that `lumiere data artwork` wrote, for the kinds of pictures that are never trained on.
        pictures: folders of PNG and JPEG files of further kinds.
        clips: animations, spread evenly over those of the test split; fewer where there are not so many.
        num_frames: of each, at 16 fps.
        count: pictures of each kind at most.

    Returns:
        The report, as in ``autoencoder.json``: `gates` say what holds, `animations`, `kinds` and `noise` how far.

    Raises:
        LumiereError: no such autoencoder, missing data, or bad counts.
    """
    from openlumiere.pipelines.load import resolve_device

    if clips < 1 or num_frames < 3 or count < 1:
        raise LumiereError(f"clips ({clips}) and pictures ({count}) must be at least 1, frames ({num_frames}) 3")
    vae = load_vae(autoencoder).to(resolve_device(device))
    size = int(vae.config.sample_size)
    kinds: dict[str, Sequence[Any]] = dict(unseen_kinds(artwork))
    kinds |= {folder.name: picture_files(folder) for folder in pictures}

    generator = torch.Generator().manual_seed(seed)
    measured: dict[str, list[Report]] = {TRANSPARENT: [], PLAIN: []}
    noisy: dict[float, list[float]] = {level: [] for level in NOISE}
    shown: dict[str, list[_Clip]] = {TRANSPARENT: [], PLAIN: []}
    keys = list_test_keys(data)
    keys = [keys[n] for n in np.linspace(0, len(keys) - 1, min(clips, len(keys))).round().astype(int)]
    drawn = draw_test_animations(data, keys, size=size, num_frames=num_frames, seed=seed)
    for key, grounds in tqdm(drawn, "animations", len(keys), unit="clip", disable=not progress):
        for name, (real, ground) in grounds.items():
            latents = encode(vae, real)
            clip = _Clip(real, decode(vae, latents), ground)
            measured[name].append({"emoji": key, **compare(clip)})
            shown[name].append(_Clip(*(part[num_frames // 2][None] for part in clip)))
            noised, reference = latents[::_NOISY_EVERY], real[::_NOISY_EVERY]
            for level in NOISE:
                noise = torch.randn(noised.shape, generator=generator).to(noised)
                noisy[level].append(_psnr(decode(vae, noised + level * noise), reference))

    found: dict[str, Report] = {}
    for name, listed in tqdm(kinds.items(), "kinds of pictures", unit="kind", disable=not progress):
        chosen = np.unique(np.linspace(0, len(listed) - 1, min(count, len(listed))).round().astype(int))
        each = []
        for index in chosen:
            real = read_square(listed[index], size)
            if real[3].mean() < _EMPTY:
                continue
            made = decode(vae, encode(vae, real[None]))
            each.append(_psnr(made, real[None]))
            shown.setdefault(name, []).append(_Clip(real[None], made, np.zeros((1, size, size), bool)))
        if not each:
            raise LumiereError(f"the pictures of {name} are all empty; give others")
        found[name] = {
            "pictures": len(each),
            "empty": len(chosen) - len(each),
            "psnr": float(np.mean(each)),
            "worst_psnr": min(each),
            "each": each,
        }

    report: Report = {
        "autoencoder": str(autoencoder), "weights_sha256": cache.weights_hash(vae),
        "config": {key: value for key, value in vae.config.items() if not key.startswith("_")},
        "clips": len(keys), "num_frames": num_frames, "fps": FPS, "size": size, "seed": seed, "versions": versions(),
        "animations": {name: _means(each) for name, each in measured.items()},
        "kinds": found,
        "noise": {str(level): float(np.mean(each)) for level, each in noisy.items()},
    }  # fmt: skip
    report["gates"] = gates(report)
    report["passed"] = all(gate["passed"] for gate in report["gates"])
    output.mkdir(parents=True, exist_ok=True)
    files.write_json(output / "autoencoder.json", report, indent=1)
    files.write_text(output / "autoencoder.md", markdown(report))
    sheet(shown, output / "autoencoder.png")
    return report


def load_vae(folder: Path) -> Any:
    """Load an RGBAAutoencoder or a diffusers VAE with four channels, in inference mode.

    Raises:
        LumiereError: the folder holds none, or one of other channels.
    """
    import diffusers

    from openlumiere.autoencoder import RGBAAutoencoder

    try:
        name = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", "")
    except (OSError, ValueError, AttributeError) as error:
        raise LumiereError(f"{folder} holds no autoencoder: config.json is missing or damaged") from error
    kind = RGBAAutoencoder if name == RGBAAutoencoder.__name__ else getattr(diffusers, name, None)
    if not name.startswith(("RGBA", "Autoencoder", "VQ")) or kind is None:
        raise LumiereError(f"{folder} holds a {name or 'model of no kind'}, not an autoencoder; give its folder vae")
    try:
        vae = kind.from_pretrained(folder)
    except Exception as error:
        raise LumiereError(f"{folder} is damaged: {' '.join(str(error).split())[:200]}") from error
    if vae.config.in_channels != 4:
        raise LumiereError(f"{folder} takes {vae.config.in_channels} channels; an RGBA autoencoder takes 4")
    return vae.eval()


@torch.inference_mode()
def encode(vae: Any, frames: np.ndarray) -> torch.Tensor:
    """Encode frames, uint8 premultiplied RGBA (F, 4, H, W), to latents as a diffusion model sees them, (F, C, h, w)."""
    pixels = (torch.from_numpy(frames).float() / 127.5 - 1).to(vae.device)
    latents = torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(_BATCH)])
    return (latents - (vae.config.get("shift_factor") or 0.0)) * vae.config.scaling_factor


@torch.inference_mode()
def decode(vae: Any, latents: torch.Tensor) -> np.ndarray:
    """Decode what `encode` gave to frames, as a file would hold them."""
    raw = latents / vae.config.scaling_factor + (vae.config.get("shift_factor") or 0.0)
    pixels = torch.cat([vae.decode(part).sample for part in raw.split(_BATCH)]).cpu()
    return cache.eight_bit((pixels.numpy() + 1) / 2)


_psnr = partial(psnr, peak=255.0, highest=99.0)  # of uint8


def compare(clip: _Clip) -> dict[str, float]:
    """Return what a clip lost, see `markdown`; ground in 1/255, flicker as a ratio to the real clip's."""
    error = np.abs(clip.made.astype(np.int16) - clip.real)
    off = error.max(1)[clip.ground]  # of the worst channel
    # Nothing flickers where nothing moves: 1 then, unless something does in what came back.
    before, after = (flicker(part / 255) for part in (clip.real, clip.made))
    return {
        "psnr": _psnr(clip.made, clip.real),
        "alpha_error": float(error[:, 3].mean() / 255 * 100),
        "ground_exact": float((off <= GROUND_ERROR).mean()) if off.size else 1.0,
        "ground_error": float(off.max(initial=0)),
        "flicker": after / before if before else 1.0 + after,
    }


def _means(each: Sequence[Report]) -> Report:
    """Return the means over clips, the worst, and each."""
    keys = [key for key in each[0] if key != "emoji"]
    means: Report = {key: float(np.mean([one[key] for one in each])) for key in keys}
    means["ground_error"] = max(one["ground_error"] for one in each)
    worst = min(each, key=lambda one: one["psnr"])
    return {**means, "worst_psnr": worst["psnr"], "worst": worst["emoji"], "each": list(each)}


def gates(report: Report) -> list[Report]:
    """Return each gate with its worst value: over both grounds, or over all kinds of pictures."""
    both = report["animations"].values()
    flickers = [one["flicker"] for one in both]
    furthest = max(flickers, key=lambda ratio: abs(ratio - 1))
    quality, alpha = min(one["psnr"] for one in both), max(one["alpha_error"] for one in both)
    ground = max(one["ground_error"] for one in both)
    listed = [
        ("PSNR of test animations, dB", f">= {PSNR:.0f}", quality, quality >= PSNR),
        ("error of alpha, %", f"<= {ALPHA_ERROR:.0f}", alpha, alpha <= ALPHA_ERROR),
        ("largest error of plain ground, 1/255", f"<= {GROUND_ERROR}", ground, ground <= GROUND_ERROR),
        ("flicker, of the real clips'", f"1 +- {FLICKER}", furthest, abs(furthest - 1) <= FLICKER),
    ]
    for name, kind in report["kinds"].items():
        heading = f"PSNR of a kind never trained on, {name}, dB"
        listed.append((heading, f">= {UNSEEN_PSNR:.0f}", kind["psnr"], kind["psnr"] >= UNSEEN_PSNR))
    return [{"gate": gate, "aim": aim, "value": value, "passed": bool(right)} for gate, aim, value, right in listed]


def markdown(report: Report) -> str:
    """Return the report to read."""
    rows = _rows(report, missed="**missed**")
    grounds = [
        [name, f"{one['psnr']:.2f}", f"{one['worst_psnr']:.2f} ({one['worst']})", f"{one['alpha_error']:.3f}",
         f"{one['ground_exact']:.3%}", f"{one['ground_error']:.0f}", f"{one['flicker']:.3f}"]
        for name, one in report["animations"].items()
    ]  # fmt: skip
    kinds = [
        [name, str(one["pictures"]), str(one["empty"]), f"{one['psnr']:.2f}", f"{one['worst_psnr']:.2f}"]
        for name, one in report["kinds"].items()
    ]
    shape = f"{report['size']} x {report['size']}"
    parts = [
        f"# Autoencoder `{report['autoencoder']}`",
        table(["gate", "aim", "measured", ""], rows),
        "## Animations of the test split",
        f"{report['clips']} animations that were never trained on, {report['num_frames']} frames each of {shape} at "
        f"{report['fps']} fps, moving slowly, 8-bit premultiplied RGBA. PSNR: mean over clips, and the worst. Ground: "
        f"pixels further than {NEAR} from the subject; exact to {GROUND_ERROR}/255 in every channel, and the largest "
        "error in 1/255. Flicker: mean absolute second difference in time, against the real clip's.",
        table(["ground", "PSNR, dB", "worst", "alpha error, %", "ground exact", "largest", "flicker"], grounds),
        "## Kinds of pictures that were never trained on",
        table(["kind", "pictures", "left out, being empty", "PSNR, dB", "worst"], kinds),
        "## Noise on the latents",
        "Deviation of the noise, where the latents' own is 1, and the PSNR in dB of what is decoded.",
        table(list(report["noise"]), [[f"{value:.2f}" for value in report["noise"].values()]]),
        f"weights {report['weights_sha256'][:12]}, seed {report['seed']}",
    ]
    return "\n\n".join(parts) + "\n"


def summary(report: Report) -> str:
    """Return the gates as plain text, for the terminal."""
    return plain_table(_rows(report, missed="MISSED"))


def _rows(report: Report, *, missed: str) -> list[list[str]]:
    return [
        [gate["gate"], gate["aim"], f"{gate['value']:.4g}", "passed" if gate["passed"] else missed]
        for gate in report["gates"]
    ]


def sheet(shown: Mapping[str, Sequence[_Clip]], path: Path) -> None:
    """Draw for each kind a row of real pictures, beneath it what came back, and eight times the difference."""
    size = next(iter(shown.values()))[0].real.shape[-1]
    columns = min(max(map(len, shown.values())), _SHOWN)
    page = np.full((3 * size * len(shown), columns * size, 3), 255, np.uint8)
    for row, clips in enumerate(shown.values()):
        for column, index in enumerate(np.linspace(0, len(clips) - 1, min(columns, len(clips))).round().astype(int)):
            real, made = (_on_checkers(part[0]) for part in clips[index][:2])
            error = (8.0 * np.abs(made.astype(float) - real)).clip(0, 255)
            for line, picture in enumerate((real, made, error)):
                top, left = (3 * row + line) * size, column * size
                page[top : top + size, left : left + size] = picture.round()
    with files.replacing(path) as partial:
        Image.fromarray(page).save(partial, "PNG")


def _on_checkers(rgba: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA, uint8 (4, H, W), laid over a checkerboard: (H, W, 3)."""
    row, column = np.indices(rgba.shape[1:]) // 8
    board = np.where((row + column) % 2, 242, 191)
    over = rgba[:3] + (255 - rgba[3].astype(int)) * board / 255
    return over.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0)
