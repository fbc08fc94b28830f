"""Random changes of images.

``augment`` changes batches of tensors (crop, flip, rotation, cutout) and holds all augmentation settings.
``pil_image`` changes one decoded image (random resized crop, center crop, RandAugment).
"""

from dkl.data.transforms.augment import Augment, Draw
from dkl.data.transforms.pil_image import center_crop, randaugment, random_crop

__all__ = ["Augment", "Draw", "center_crop", "randaugment", "random_crop"]
