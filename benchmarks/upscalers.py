"""The second stage beside interpolation and Real-ESRGAN's animevideov3: likeness to real clips, and time.

The protocol is that of `lumiere evaluate upscale`; this adds the peer, whose weights the `bench` extra installs. It was
trained on drawn films with compression and blur to be undone, by adversarial losses: it is to look sharp, not to have
little squared error.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import report

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when PyTorch loads, as `lumiere` sets it

_EXAMPLES = """
examples:
  python benchmarks/upscalers.py --model runs/emoji/ssr/export/pipeline --transparent -o runs/upscalers
  python benchmarks/upscalers.py --data data/emoji --size 128 --clips 8 -o runs/upscalers-nano
"""


def main() -> int:
    """Measure, print, write."""
    args = _arguments()
    import torch

    import realesrgan
    from openlumiere.errors import LumiereError
    from openlumiere.evaluation.protocols.upscaling import evaluate_upscaling, markdown
    from openlumiere.pipelines.load import load_super_resolution

    torch.set_num_threads(args.threads)
    print(report.describe(found := report.machine(args.threads)))
    others = {}
    try:
        stage = load_super_resolution(args.model, device="cpu")
        stage.set_progress_bar_config(disable=True)
        try:
            others = {realesrgan.NAME: realesrgan.load().upscale} if stage.config.scale == realesrgan.SCALE else {}
        except realesrgan.CannotReadError as error:
            print(f"cannot run {realesrgan.NAME}: {error}")
        measured = evaluate_upscaling(
            stage, args.data, args.output, clips=args.clips, num_frames=args.frames, size=args.size,
            steps=sorted(set(args.steps)), transparent=args.transparent, others=others, seed=args.seed,
        )  # fmt: skip
    except LumiereError as error:
        print(f"upscalers.py: error: {error}", file=sys.stderr)
        return 2
    print(f"\n{args.model}: {args.clips} clips of {args.frames} frames, {args.size} x {args.size} pixels")
    print(markdown(measured), end="")
    if args.json:
        report.write_json(args.json, {"machine": found, "model": args.model, "results": measured})
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="emoji", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data/emoji-256"), help="default: %(default)s")
    parser.add_argument("--size", type=int, default=256, help="side of the real clips, default: %(default)s")
    parser.add_argument("--clips", type=int, default=12, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=80, help="of each, default: %(default)s")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2], help="of the second stage, default: 1 2")
    parser.add_argument("--transparent", action="store_true", help="clips without a background")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="default: all cores, %(default)s")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the report and its pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the machine")
    args = parser.parse_args()
    if min(args.clips, args.frames, args.threads, args.size, *args.steps) < 1:
        parser.error("all numbers must be 1 or more")
    return args


if __name__ == "__main__":
    sys.exit(main())
