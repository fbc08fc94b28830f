"""USB's vision transformer for images of 32×32 pixels (Wang et al. 2022): timm's, with patches of 2×2 pixels.

Keys are timm's, so that USB's pretrained file loads by name.
"""

from functools import partial

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from dkl.models.parts import register

SETTINGS = {
    "img_size": 32,
    "patch_size": 2,
    "embed_dim": 384,
    "depth": 12,
    "num_heads": 6,
    "drop_path_rate": 0.2,
    "norm_layer": partial(nn.LayerNorm, eps=1e-6),
}
"""256 patches and a class token; 21.4 M parameters."""

register(__name__, VisionTransformer, {"vit_small_patch2_32": SETTINGS})
