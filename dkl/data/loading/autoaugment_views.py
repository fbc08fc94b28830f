"""Second views by CIFAR-10's AutoAugment policy (Cubuk et al. 2019), made in worker processes or in this one.

torchvision's policy draws from torch's global generator. It is seeded for each image and restored afterwards, so that
the views do not depend on the workers.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import AutoAugment

from dkl.data.loading.batch_plan import BatchPlan
from dkl.data.seeding import preserved_global_rng, seed_global
from dkl.data.transforms.augment import Augment

GRAY = [128, 128, 128]  # fills pixels that a transform uncovers


class _AutoAugmentViews(Dataset[Tensor]):
    """Second views, indexed by batch plans."""

    def __init__(self, images: Tensor, augment: Augment) -> None:
        self.images, self.augment = images, augment
        self.policy = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=GRAY)

    def __getitem__(self, plan: BatchPlan) -> Tensor:
        assert plan.second is not None
        assert plan.seeds is not None
        windows = self.augment.windows(self.images[plan.chosen])
        images = self.augment.apply(windows, torch.arange(len(windows)), plan.second)
        with preserved_global_rng():
            return torch.stack([self._change(*pair) for pair in zip(images, plan.seeds.tolist(), strict=True)])

    def _change(self, image: Tensor, seed: int) -> Tensor:
        seed_global(seed)
        return self.policy(image)


def autoaugment_views(images: Tensor, augment: Augment, plans: Iterable[BatchPlan], workers: int) -> Iterator[Tensor]:
    """Yield the second view of each plan, uint8 [n, 3, H, W] on the CPU: ``augment`` first, then the policy.

    ``workers`` processes prepare two batches each and end with the iterator; 0 means this process.
    """
    loader = DataLoader(
        _AutoAugmentViews(images, augment),
        batch_size=None,
        sampler=plans,
        num_workers=workers,
        generator=torch.Generator(),  # otherwise the loader draws a base seed from the global generator
    )
    yield from loader
