"""The composition root: the only place where a configuration becomes objects.

At the border ``dkl.config.typed(cfg, TrainConfig)`` converts the composed ``DictConfig`` to dataclasses, so that mypy
checks every field. Nodes with a ``_target_`` (model, task, loss, attack, averaging, schedule, logger,
data.source) stay plain mappings and are instantiated here, never elsewhere.

Pieces, for evaluation, estimates and tests:

    build_model(config.model)                       network in float32 on the default device
    build_loss(config.loss)                         loss between two sets of logits
    build_task(config.task, model)                  task around a network, with its loss and attack
    build_averaging(config.averaging)               rule of the weights' average, or None
    build_schedule(config.schedule)                 learning rate over epochs
    build_logger(config.logger)                     logger of the first process; a silent one elsewhere
    load_data(config.data)                          training and test images, cut to size
    overlap_warnings(train, test, config.data)      test images that are training images too
    load_synthetic(config.data)                     synthetic images, or None
    draw_labeled(config.data, images, seed)         images that keep their labels, and the unlabeled ones
    make_batches(config, images, device, ...)       loader of this process's share
    make_streams(config, labeled, unlabeled, ...)   the same for semi-supervised training

Whole runs:

    preflight(cfg)      raises UserError on any mistake found without data, a device or time
    assemble(cfg)       the objects of a training run, built once, as a ``dkl.training.Run``
    on_launched(cfg)    the configuration on the processes that torchrun has started
    train(cfg)          preflight, processes, assemble and fit; returns the run's folder
"""

from dkl.assembly.checks import preflight
from dkl.assembly.data import draw_labeled, load_data, load_synthetic, make_batches, make_streams, overlap_warnings
from dkl.assembly.parts import (
    build_averaging,
    build_logger,
    build_loss,
    build_model,
    build_schedule,
    build_task,
)
from dkl.assembly.training import assemble, on_launched, train

__all__ = [
    "assemble",
    "build_averaging",
    "build_logger",
    "build_loss",
    "build_model",
    "build_schedule",
    "build_task",
    "draw_labeled",
    "load_data",
    "load_synthetic",
    "make_batches",
    "make_streams",
    "on_launched",
    "overlap_warnings",
    "preflight",
    "train",
]
