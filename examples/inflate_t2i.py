"""Inflate a text-to-image U-Net of diffusers, and see what it is made of.

    python examples/inflate_t2i.py

The U-Net here is small and random; `UNet2DConditionModel.from_pretrained(HUB_ID, subfolder="unet")` gives a real one.
"""

import torch
from diffusers import UNet2DConditionModel

from openlumiere import STUNet
from openlumiere.stunet.summary import table

unet = UNet2DConditionModel(
    sample_size=32, block_out_channels=(32, 64, 64, 64), layers_per_block=1, cross_attention_dim=32, norm_num_groups=8
)
net = STUNet.from_unet(unet)
print(table(net, num_frames=80))

# Freshly inflated, it sees a clip of equal frames exactly as the T2I sees the frame.
picture, text = torch.randn(1, 4, 32, 32), torch.randn(1, 8, 32)
with torch.no_grad():
    clip = net(picture[:, :, None].expand(-1, -1, 16, -1, -1), 500, encoder_hidden_states=text).sample
    frame = unet(picture, 500, encoder_hidden_states=text).sample
print(f"largest difference from the T2I: {(clip - frame[:, :, None]).abs().max():.1e}")
