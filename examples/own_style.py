"""A clip in a style of one's own: a folder that `lumiere train style` wrote, or any LoRA of the text-to-image model.

python examples/own_style.py runs/mine/export "a tiger walking to the left on a green background" tiger.webp
"""

import sys

import torch

from openlumiere.pipelines.load import load_pipeline
from openlumiere.video import write_clip

style, prompt, path = sys.argv[1:4]
num_frames = int(sys.argv[4]) if len(sys.argv) > 4 else 80

pipe = load_pipeline("emoji")
pipe.set_styles({style: 0.8})  # 0 = the model's own drawing, 1 = the style's; two styles are mixed
print(write_clip(pipe(prompt, num_frames=num_frames, generator=torch.Generator().manual_seed(0))[0][0], path))
