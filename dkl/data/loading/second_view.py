"""AutoAugment's policy for CIFAR-10 (Cubuk et al. 2019) on planned batches, in worker processes or in this one.

torchvision's policy draws from torch's global generator, which is preserved_global_rng to it; each image has its own seed.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import AutoAugment

from dkl.data.loading.plan import Plan
from dkl.data.seeding import preserved_global_rng, seed_global
from dkl.data.transforms.augment import Augment

GREY = [128, 128, 128]


class _SecondViews(Dataset[Tensor]):
    """Indexed by plans."""

    def __init__(self, images: Tensor, augment: Augment) -> None:
        self.images, self.augment = images, augment
        self.policy = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=GREY)

    def __getitem__(self, plan: Plan) -> Tensor:
        assert plan.second is not None
        assert plan.seeds is not None
        windows = self.augment.windows(self.images[plan.chosen])
        images = self.augment.apply(windows, torch.arange(len(windows)), plan.second)
        with preserved_global_rng():
            return torch.stack([self._change(*pair) for pair in zip(images, plan.seeds.tolist(), strict=True)])

    def _change(self, image: Tensor, seed: int) -> Tensor:
        seed_global(seed)
        return self.policy(image)


def second_views(images: Tensor, augment: Augment, plans: Iterable[Plan], workers: int) -> Iterator[Tensor]:
    """For each plan its images uint8 [n, 3, H, W] on the CPU, drawn by ``augment`` and changed by the policy.

    ``workers`` processes work ahead by two batches each, 0 is this process; they end with the iterator.
    """
    loader = DataLoader(
        _SecondViews(images, augment),
        batch_size=None,
        sampler=plans,
        num_workers=workers,
        generator=torch.Generator(),  # or the loader draws a seed for workers from the global one
    )
    yield from loader
