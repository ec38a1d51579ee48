"""A clip by the openai package's own client, of a running server.

lumiere serve
python examples/openai_client.py "a tiger walking to the left" tiger.mp4 [http://127.0.0.1:8000 [frames]]

The server's key, if it wants one, is taken from LUMIERE_API_KEY.
"""

import os
import sys

from openai import OpenAI

prompt, output = sys.argv[1:3]
address = sys.argv[3] if len(sys.argv) > 3 else "http://127.0.0.1:8000"
more = {"num_frames": int(sys.argv[4])} if len(sys.argv) > 4 else {}

client = OpenAI(base_url=f"{address.rstrip('/')}/v1", api_key=os.environ.get("LUMIERE_API_KEY", "none"))
# Whatever openai's client has no argument for goes into extra_body.
video = client.videos.create_and_poll(prompt=prompt, extra_body={"seed": 7, "loop": True, **more})
if video.status == "failed":
    sys.exit(f"no clip: {video.error.message if video.error else 'unknown reason'}")
client.videos.download_content(video.id).write_to_file(output)
print(output)

again = client.videos.remix(video.id, prompt=f"{prompt} on a blue background")
print(f"{again.id}, with the same seed, is {again.status}; deleting it stops it")
client.videos.delete(again.id)
