"""Second views that are made image by image, in worker processes or in this one.

Each image is cropped, mirrored and rotated first, and then changed by a function of the image and a seed: CIFAR-10's
AutoAugment policy (Cubuk et al. 2019), or a strong view. A seed per image makes the views independent of the workers.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import AutoAugment

from dkl.data.loading.batch_plan import BatchPlan
from dkl.data.seeding import preserved_global_rng, seed_global
from dkl.data.transforms.augment import Augment
from dkl.data.transforms.official_policy import GRAY

Change = Callable[[Tensor, int], Tensor]
"""An image, uint8 [C, H, W], and a seed -> the changed image."""


class AutoAugmentPolicyChange:
    """torchvision's policy draws from torch's global generator, which is seeded for each image."""

    def __init__(self) -> None:
        self.policy = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=list(GRAY))

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Change ``image``, uint8 [3, H, W]."""
        seed_global(seed)
        return self.policy(image)


class _Views(Dataset[Tensor]):
    """Second views, indexed by batch plans."""

    def __init__(self, images: Tensor, augment: Augment, change: Change) -> None:
        self.images, self.augment, self.change = images, augment, change

    def __getitem__(self, plan: BatchPlan) -> Tensor:
        assert plan.second is not None
        assert plan.seeds is not None
        windows = self.augment.windows(self.images[plan.chosen])
        images = self.augment.apply(windows, torch.arange(len(windows)), plan.second)
        with preserved_global_rng():
            return torch.stack([self.change(*pair) for pair in zip(images, plan.seeds.tolist(), strict=True)])


def worker_views(
    images: Tensor, augment: Augment, change: Change, plans: Iterable[BatchPlan], workers: int
) -> Iterator[Tensor]:
    """Yield the second view of each plan, uint8 [n, C, H, W] on the CPU: ``augment`` first, then ``change``.

    ``workers`` processes prepare two batches each and end with the iterator; 0 means this process.
    """
    loader = DataLoader(
        _Views(images, augment, change),
        batch_size=None,
        sampler=plans,
        num_workers=workers,
        generator=torch.Generator(),  # otherwise the loader draws a base seed from the global generator
    )
    yield from loader
