"""A clip from a prompt, in a few lines of Python.

python examples/text_to_clip.py "a red heart growing on a white background" heart.webp
"""

import sys

import torch

from openlumiere.pipelines.load import load_pipeline
from openlumiere.video import write_clip

prompt = sys.argv[1] if len(sys.argv) > 1 else "a tiger walking to the left on a green background"
path = sys.argv[2] if len(sys.argv) > 2 else "clip.webp"

pipe = load_pipeline("emoji")
frames = pipe(prompt, num_frames=80, generator=torch.Generator().manual_seed(0)).frames[0]
print(write_clip(frames, path, fps=16, metadata={"prompt": prompt}))
