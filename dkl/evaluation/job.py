"""Prepares an evaluation: loads the model and the images, and names the record and the state."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from dkl import records
from dkl.assembly import build_logger, draw_labeled, load_data, overlap_warnings
from dkl.config import (
    DataConfig,
    EvaluateConfig,
    EvaluationConfig,
    TrainConfig,
    check_complete,
    check_known,
    check_label,
    check_subject,
    load_config,
    model_name,
    typed,
)
from dkl.data import Corruptions, EncodedImages, ImageSet, SegmentationSet, check_corruptions
from dkl.errors import UserError, visible
from dkl.evaluation.protocol import EvaluationProtocol, choose_protocol
from dkl.evaluation.segmentation import Windows
from dkl.evaluation.subject import (
    Subject,
    check_checkpoint,
    foreign_subject,
    load_network,
    run_subject,
    undescribed,
)
from dkl.loggers import Logger
from dkl.published import IMAGES, PROTOCOL, imagenet_files
from dkl.runtime.device import pick_device
from dkl.runtime.distributed import rank
from dkl.storage.checkpoint import weights_sha256
from dkl.storage.files import check_writable, digest
from dkl.validation import check_fields


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """An evaluation that is ready to run, with the model and the test images on the CPU.

    ``test_images`` counts all test images of the run, or of the dataset; ``test`` may be a part of them. ``layout``
    describes the checkpoint file, ``train_counts[C]`` are the training images per class, ``labeled_sha256`` is the hash
    of the positions of those with labels if only some have them, and ``logger`` is None if nothing is reported or this
    is not the first process.

    ``windows`` say how images with masks are predicted; None for images with one label each. ``corruptions`` are
    classified too if they are given. ``images`` is ``robustbench`` if the test images are those of its
    leaderboard. ``warnings`` are about the images.
    """

    subject: Subject
    protocol: EvaluationProtocol
    model: nn.Module
    layout: str
    test: ImageSet
    test_images: int
    train_counts: Tensor
    weights_sha256: str
    results: Path
    labeled_sha256: str | None = None
    additional_data: bool = False
    logger: Logger | None = None
    windows: Windows | None = None
    corruptions: Corruptions | None = None
    images: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The hash of weights, run or model, images and protocol."""
        # The run is part of it because different runs can have equal weights: averaging does not change the last ones.
        windows = [] if self.windows is None else [dataclasses.asdict(self.windows)]
        corrupted = [] if self.corruptions is None else [self.corruptions.sha256]
        return digest(
            [
                self.weights_sha256,
                self.subject.config_hash,
                self.test.sha256,
                self.protocol.identity,
                *windows,
                *corrupted,
            ]
        )

    @property
    def id(self) -> str:
        """The record's name."""
        return visible(f"{self.subject.data.name}-{model_name(self.subject.model)}-{self.subject.title}-{self.key}")

    @property
    def standard(self) -> "EvaluationJob | None":
        """The evaluation by the standard suite that a bounded one becomes if it must; None for other suites."""
        if self.protocol.tolerance is None:
            return None
        return dataclasses.replace(self, protocol=self.protocol.standard)

    @property
    def record(self) -> Path:
        """The record's file."""
        return self.results / "records" / f"{self.id}.json"

    @property
    def written(self) -> Path:
        """The file of the record that ``evaluate`` writes: the standard suite's if a bounded one has become it."""
        if self.standard and self.standard.record.exists() and not records.why_unusable(self.standard.record):
            return self.standard.record
        return self.record

    @property
    def state(self) -> Path:
        """The folder of the saved progress."""
        return self.results / "runs" / "evaluations" / self.key


def preflight(cfg: DictConfig) -> None:
    """Raise UserError on any mistake in ``cfg``, a configuration of ``dkl evaluate``, found without reading weights."""
    check_known(cfg, EvaluateConfig)
    check_subject(cfg.run, cfg.checkpoint, cfg.network)
    if not cfg.run and not cfg.data:  # before the network's values that refer to the data are resolved
        raise undescribed(cfg.checkpoint, cfg.network)
    if cfg.data:
        check_complete(cfg.data, "data.")
    config = typed(cfg, EvaluateConfig)
    check_label(config.label)
    check_fields(config)
    if config.corruptions:
        check_corruptions(Path(config.corruptions))
    pick_device(config.device)
    build_logger(config.logger)
    if config.run:
        trained = typed(load_config(Path(config.run)), TrainConfig)
        data, defaults = trained.data, trained.evaluation
        file: str | None = f"{config.run}/checkpoint.pt"
    else:
        subject = foreign_subject(config)
        data, defaults, file = subject.data, subject.defaults, config.checkpoint
    _refuse_ignored(config, data)
    choose_protocol(config, defaults)
    if file:
        check_checkpoint(Path(file))
    for folder in ("records", "runs"):
        check_writable(Path(config.paths.results) / folder)


def _refuse_ignored(asked: EvaluateConfig, data: DataConfig) -> None:
    """Raise UserError on a value that an evaluation of this kind, on ``data``, would ignore."""
    for key in ("arguments", "mean", "std", "architecture"):
        if asked.run and (value := getattr(asked, key)):
            given = f"arguments.{next(iter(value))}" if key == "arguments" else key
            raise UserError(f"{given} is for networks of others; a run has its own: leave it out")
    if asked.protocol not in (None, PROTOCOL):
        raise UserError(f"protocol={asked.protocol} is not known: give protocol={PROTOCOL}, or leave it out")
    if asked.protocol is not None and data.name not in IMAGES:
        raise UserError(f"protocol={PROTOCOL} has images of {', '.join(IMAGES)}, not of {data.name}: leave it out")
    if asked.protocol is not None and asked.n is not None and asked.n > IMAGES[data.name]:
        raise UserError(f"n={asked.n} is above {IMAGES[data.name]}, the images of protocol={PROTOCOL}: lower it")
    for key in ("mirrored", "long_side"):
        if data.ignore_index is None and (value := getattr(asked, key)) is not None:
            raise UserError(
                f"{key}={str(value).lower()} is for images with masks, which {data.name} does not have: leave it out"
            )


def prepare(config: EvaluateConfig) -> EvaluationJob:
    """Load everything that ``config`` names. Raises UserError on any mistake that can be found without attacking."""
    check_subject(config.run, config.checkpoint, config.network)
    subject = run_subject(config) if config.run else foreign_subject(config)
    run, data = subject.run, subject.data
    _refuse_ignored(config, data)
    protocol = choose_protocol(config, subject.defaults)
    protocol.check(data.shape, data.num_classes)
    corruptions = _choose_corruptions(config, data)
    logger = config.logger if config.logger is not None or run is None else run.config.logger
    model, layout = load_network(subject)
    # A run says how large its test set is; for anyone's weights a smaller one is a part of the dataset's.
    training, test = load_data(data if run else dataclasses.replace(data, test_size=None))
    cut = test if run else test.balanced(data.test_size)
    if config.protocol is not None:
        test = robustbench_images(cut, data)
    chosen = test.select(torch.arange(protocol.n or len(test))) if config.protocol else cut.balanced(protocol.n)
    # Without training images, the source has given the test images twice.
    overlaps = overlap_warnings(training, chosen, data) if data.source.get("train", "") is not None else ()
    positions = draw_labeled(data, training, run.config.seed)[2] if run else None
    return EvaluationJob(
        subject=subject,
        protocol=protocol,
        model=model,
        layout=layout,
        test=chosen,
        test_images=len(test),
        train_counts=training.per_class(data.num_classes),
        weights_sha256=weights_sha256(model.state_dict()),
        results=Path(config.paths.results),
        labeled_sha256=positions,
        additional_data=config.additional_data or bool(subject.source and subject.source.additional_data),
        logger=build_logger(logger) if logger else None,
        windows=_choose_windows(config, subject.defaults, test, protocol)
        if isinstance(test, SegmentationSet)
        else None,
        corruptions=corruptions,
        images=config.protocol,
        # Only the first process writes the record.
        warnings=tuple(overlaps) if rank() == 0 else (),
    )


def robustbench_images(test: ImageSet, data: DataConfig) -> ImageSet:
    """The images on which RobustBench evaluates, in its order. Raises UserError if ``test`` does not have them."""
    if data.name != "imagenet":
        return test.select(torch.arange(min(IMAGES[data.name], len(test))))
    if not isinstance(test, EncodedImages):
        raise UserError(f"protocol={PROTOCOL} needs ImageNet's images in files or shards: data=imagenet")
    places = {Path(name).stem: place for place, name in enumerate(map(os.fsdecode, test.names))}
    files = imagenet_files()
    if missing := [name for name in files if Path(name).stem not in places]:
        raise UserError(
            f"protocol={PROTOCOL}: {len(missing)} of its {len(files)} images are not among the test images, such as "
            f"{missing[0]}: complete the validation set"
        )
    return test.select(torch.tensor([places[Path(name).stem] for name in files]))


def _choose_corruptions(asked: EvaluateConfig, data: DataConfig) -> Corruptions | None:
    """The corrupted images, if any are asked for. Raises UserError if they are not usable with ``data``."""
    if asked.corruptions is None:
        return None
    if data.ignore_index is not None:
        raise UserError(
            f"corruptions={asked.corruptions} needs one label per image, but {data.name} has masks: leave it out"
        )
    found = Corruptions(Path(asked.corruptions), tuple(data.shape))
    if found.num_classes > data.num_classes:
        raise UserError(
            f"corruptions={asked.corruptions} has {found.num_classes} classes, {data.name} has {data.num_classes}: "
            "give the folder of this dataset"
        )
    return found


def _choose_windows(
    asked: EvaluateConfig, defaults: EvaluationConfig, test: SegmentationSet, protocol: EvaluationProtocol
) -> Windows:
    """How the images of ``test`` are predicted. Raises UserError if they are to be attacked."""
    if protocol.attacks:
        raise UserError(f"attacks={','.join(protocol.attacks)} cannot attack images with masks: give attacks=none")
    red, green, blue = (value / 255 for value in test.pixels.fill)
    return Windows(
        size=test.size,
        mirrored=defaults.mirrored if asked.mirrored is None else asked.mirrored,
        long_side=defaults.long_side if asked.long_side is None else asked.long_side,
        fill=(red, green, blue),
        batch_size=protocol.batch_size,
    )
