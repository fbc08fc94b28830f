"""Refuses a last batch of one image if BatchNorm cannot normalize it: it needs two values per channel.

Networks fail only if their last feature maps have one pixel, such as a ResNet-18 on images of 8×8 pixels.
"""

import copy

import torch
from torch import nn

from dkl.config import TrainConfig, batch_norm_parts
from dkl.errors import UserError
from dkl.tasks import Task

REASON = "more than 1 value per channel"
"""In the message of torch's error."""


def check_smallest_batch(task: Task, config: TrainConfig, images: int) -> None:
    """Raise UserError if a network of ``task`` cannot be trained on the smallest part of a batch of ``images``.

    Batches with more than one view of an image are not checked: they never have a single row.
    """
    data, trainer = config.data, config.trainer
    augment = data.augment
    if augment.second_view or augment.repeats > 1 or data.labels_per_class is not None or data.synthetic.files:
        return
    last = 0 if trainer.drop_last else images % trainer.batch_size
    parts = batch_norm_parts(trainer) * trainer.accumulate
    if min(size // parts for size in (trainer.batch_size, last or trainer.batch_size)) > 1:
        return
    for network in task.trained_networks():
        if _fails_on_one(network, list(data.shape)):
            raise UserError(
                f"{type(network).__name__} cannot be trained on one image of {list(data.shape)}, because BatchNorm "
                f"needs two values per channel, but {images} images in batches of {trainer.batch_size} leave a part of "
                "one: "
                "choose another trainer.batch_size, or set trainer.drop_last=true"
            )


def _fails_on_one(network: nn.Module, shape: list[int]) -> bool:
    """Whether BatchNorm in ``network`` fails on one image. Other failures are not about the batch."""
    with torch.device("meta"), torch.no_grad():
        try:
            copy.deepcopy(network).to("meta").train()(torch.empty(1, *shape))
        except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            return REASON in str(error)
    return False
