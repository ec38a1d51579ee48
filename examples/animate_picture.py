"""A picture that moves, and one of which only the middle does.

python examples/animate_picture.py photo.png "a tiger walking to the left" moving.webp cinemagraph.webp
"""

import sys

import numpy as np

from openlumiere.pipelines.load import load_pipeline
from openlumiere.pipelines.tasks import animate, cinemagraph
from openlumiere.video import fit, read_picture, write_clip

source, prompt, moving, still = sys.argv[1:5]
num_frames = int(sys.argv[5]) if len(sys.argv) > 5 else 80

pipe = load_pipeline("emoji")
side = pipe.frame_size[0] * pipe.scale  # of the finished clip: what is given comes back to the pixel
picture = np.asarray(fit(read_picture(source), (side, side), "crop"))

print(write_clip(pipe(prompt, **animate(picture, num_frames).given)[0][0], moving))

middle = np.zeros((side, side), bool)
middle[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
print(write_clip(pipe(prompt, loop=True, **cinemagraph(picture, middle, num_frames).given)[0][0], still))
