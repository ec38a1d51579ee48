"""A clip changed in a region, made anew after a prompt, and continued.

python examples/change_clip.py walk.mp4 "a fox walking to the left on a green background" out/
"""

import sys
from pathlib import Path

import numpy as np

from openlumiere.pipelines.load import load_pipeline
from openlumiere.pipelines.tasks import Task, extend, inpaint, restyle
from openlumiere.video import read_fitted, write_clip

source, prompt, folder = sys.argv[1:4]
Path(folder).mkdir(parents=True, exist_ok=True)

pipe = load_pipeline("emoji")
side = pipe.frame_size[0] * pipe.scale
clip = read_fitted(source, (side, side), fps=16, max_frames=80).frames
left_half = np.zeros((side, side), bool)
left_half[:, : side // 2] = True


def make(name: str, task: Task, **options: float) -> None:
    """Make what a task asks for, whatever the number of frames, and write it."""
    task = task.filled_up(pipe.enough_frames(len(task.video)))
    print(write_clip(task.finish(pipe(prompt, **task.given, **options)[0][0]), f"{folder}/{name}.webp"))


make("inpainted", inpaint(clip, left_half))
make("restyled", restyle(clip), strength=0.7)
make("extended", extend(clip, num_frames=len(clip), context=40))
