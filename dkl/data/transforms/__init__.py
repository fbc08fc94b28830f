"""Random changes of images.

``augment`` changes batches of tensors (crop, flip, rotation, cutout) and holds all augmentation settings.
``pil_image`` changes one decoded image (random resized crop, center crop, RandAugment). ``strong_view`` is FixMatch's.
"""

from dkl.data.transforms.augment import Augment, Draw
from dkl.data.transforms.pil_image import USUAL_CENTER, Center, center_crop, randaugment, random_crop
from dkl.data.transforms.strong_view import StrongView

__all__ = ["USUAL_CENTER", "Augment", "Center", "Draw", "StrongView", "center_crop", "randaugment", "random_crop"]
