"""``train(cfg)``: one run from its configuration to the finished checkpoint."""

import copy
import hashlib
import inspect
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dkl.assembly import parts
from dkl.assembly.checks import preflight
from dkl.assembly.data import draw_labeled, load_data, load_synthetic, make_batches, make_batching, overlap_warnings
from dkl.attacks import OwnTrainingAttack
from dkl.config.compose import typed
from dkl.config.identity import batch_norm_parts, hashed, label, loss_name, row_identity, run_folder
from dkl.config.schema import Precision, TrainConfig, TrainerConfig
from dkl.console import say
from dkl.data import Images, ImageSet, Loader, StreamBatches, StrongView, SyntheticImages
from dkl.errors import UserError
from dkl.loggers import LoggerRun
from dkl.models import load_initial_weights
from dkl.runtime import distributed, launched
from dkl.runtime.device import check_processes, pick_device
from dkl.storage.files import digest
from dkl.tasks import Task
from dkl.training.averaging import Average
from dkl.training.fit import Run, fit
from dkl.training.optimizer import make_optimizer, untrained
from dkl.training.selection import held_out
from dkl.training.state import RunState, seed_everything, seed_process
from dkl.validation import fields_of, unusual

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = (_PACKAGE, *(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")))
"""Folders whose files are known by their version."""


class Data(NamedTuple):
    """Images to train on, to test on and held out for selection, synthetic ones, and those without labels.

    ``sha256`` fingerprints all of them but the test images.
    """

    training: ImageSet
    testing: ImageSet
    held_out: ImageSet | None
    synthetic: SyntheticImages | None
    unlabeled: ImageSet | None
    sha256: str


def train(cfg: DictConfig) -> Path:
    """Train the run of ``cfg``, continue it if it was interrupted, or do nothing if it is done.

    Returns the run's folder, which holds ``config.yaml``, ``checkpoint.pt``, ``metrics.jsonl`` and ``metrics.csv``,
    and ``best.pt`` if epochs are selected. Killed at any moment and called again with the same configuration, it ends
    with the same weights (bit for bit on a CPU). ``trainer.devices`` processes share the work; they are started here
    unless torchrun has started them. Raises UserError before any work if the configuration cannot run.
    """
    started = launched()
    cfg = on_launched(cfg)
    preflight(cfg)  # before any process starts, so that a mistake is one message and leaves no folder
    device = pick_device(cfg.trainer.device)
    if started > 1:
        with distributed.process_group(device.type):
            _assemble_and_fit(cfg)
    elif cfg.trainer.devices > 1:
        check_processes(cfg.trainer.devices, device, "trainer.devices")
        # The configuration travels, not the objects: each process assembles its own on its own device.
        distributed.spawn_processes(_assemble_and_fit, (cfg,), processes=cfg.trainer.devices, device=device.type)
    else:
        _assemble_and_fit(cfg)
    return run_folder(cfg)


def on_launched(cfg: DictConfig) -> DictConfig:
    """Return ``cfg`` with the number of processes that torchrun has started as its devices.

    It is unchanged if ``trainer.devices`` is set, or if torchrun has started none. The folder of a run depends on it.
    """
    started = launched()
    if started < 2 or cfg.trainer.devices != 1:
        return cfg
    cfg = cfg.copy()
    cfg.trainer.devices = started
    return cfg


def _assemble_and_fit(cfg: DictConfig) -> None:
    fit(assemble(cfg))


def assemble(cfg: DictConfig) -> Run:
    """Build the objects of one process of a training run. ``cfg`` has passed ``preflight``.

    Raises UserError if the images do not fit the configuration.
    """
    config = typed(cfg, TrainConfig)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    device = distributed.local_device(pick_device(config.trainer.device))
    # The first process before the others: two that download the same file would write over each other.
    data = distributed.first_before_others(partial(_load, config))
    if config.task.get("cache_teacher") and not isinstance(data.training, Images):
        raise UserError(
            "task.cache_teacher=true needs images that never change, but images read from files are cropped at random: "
            "set task.cache_teacher=false"
        )
    in_order = partial(make_batches, config, device=device, training=False)
    folder, plain = run_folder(cfg), OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    content = {str(key): value for key, value in plain.items()}
    if config.attack and config.attack.get("steps") == 0:
        say("warning: attack.steps=0 takes no step: adversarial images are random noise alone; set attack.steps=10")
    state = _new_state(config, device, content, data.sha256)
    _check_smallest_batch(state.task, config, len(data.training))
    if isinstance(own := getattr(state.task, "attack", None), OwnTrainingAttack):  # a trial on two random images
        images = torch.rand(2, *config.data.shape, generator=torch.Generator().manual_seed(0))
        parameter = next(state.model.parameters())
        own(state.model, images.to(parameter), torch.zeros(2, dtype=torch.int64, device=parameter.device), seed=0)
    return Run(
        label=label(cfg),
        seed=config.seed,
        folder=folder,
        device=device,
        state=state,
        schedule=parts.build_schedule(config.schedule),
        peak_lr=config.optimizer.lr,
        trainer=config.trainer,
        batches=_make_training_batches(config, data, device),
        validation=in_order(data.testing),
        plain_batches=partial(in_order, data.training),
        selection=config.selection,
        held_out=in_order(data.held_out) if data.held_out else None,
        logger=parts.build_logger(config.logger),
        about=LoggerRun(
            name=folder.name,
            job_type="train",
            group=f"{label(cfg)}-{row_identity(hashed(cfg))}",
            tags=list(dict.fromkeys([label(cfg), loss_name(cfg), config.data.name, config.budget.name])),
            config=content | {"method": label(cfg), "loss_name": loss_name(cfg)},
            folder=folder,
        ),
        config_yaml=OmegaConf.to_yaml(cfg),
        unusual=unusual_settings(config),
    )


def unusual_settings(config: TrainConfig) -> list[str]:
    """Describe the numbers that are in their range, but outside the values in common use."""
    nodes = {key: node for key, node in vars(config).items() if isinstance(node, Mapping)}
    found = chain(fields_of(config), *(parts.settings_of(node, key) for key, node in nodes.items()))
    copies = tuple(f"task.{key}." for key in ("loss", "attack") if nodes.get(key))
    return unusual(item for item in found if not item.key.startswith(copies))


def _check_smallest_batch(task: Task, config: TrainConfig, images: int) -> None:
    """Raise UserError if a network of ``task`` cannot be trained on the smallest part of a batch of ``images``.

    BatchNorm cannot normalize one value per channel: the only image of a batch, if the last feature maps have one
    pixel, as those of a ResNet-18 on images of 8×8 pixels. Batches with more than one view of an image are not checked:
    they never have a single row.
    """
    data, trainer = config.data, config.trainer
    augment = data.augment
    if augment.second_view or augment.repeats > 1 or data.labels_per_class is not None or data.synthetic.files:
        return
    last = 0 if trainer.drop_last else images % trainer.batch_size
    shares = batch_norm_parts(trainer) * trainer.accumulate
    if min(size // shares for size in (trainer.batch_size, last or trainer.batch_size)) > 1:
        return
    for network in task.trained_networks():
        with torch.device("meta"), torch.no_grad():
            try:
                copy.deepcopy(network).to("meta").train()(torch.empty(1, *data.shape))
            except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
                if "more than 1 value per channel" not in str(error):
                    continue  # a failure that is not about the batch
                raise UserError(
                    f"{type(network).__name__} cannot be trained on one image of {list(data.shape)}, because BatchNorm "
                    f"needs two values per channel, but {images} images in batches of {trainer.batch_size} leave a "
                    "part of one: choose another trainer.batch_size, or set trainer.drop_last=true"
                ) from None


def _load(config: TrainConfig) -> Data:
    training, testing = load_data(config.data)
    if config.budget.name != "smoke" and distributed.rank() == 0:  # a smoke run's few images need not show every class
        masks, classes = config.data.ignore_index is not None, config.data.num_classes
        if not masks and (missing := int((training.per_class(classes) == 0).sum())):
            say(
                f"warning: {missing} of data.num_classes={classes} classes of {config.data.name} have no training image"
            )
        for warning in overlap_warnings(training, testing, config.data):
            say(f"warning: {warning}")
    synthetic, sha = load_synthetic(config.data), training.sha256
    if synthetic:
        sha = digest([sha, synthetic.sha256], length=64)
    count = held_out(config.selection, len(training))
    rest, held = training.holdout(count, balanced=config.selection.balanced) if count else (training, None)
    labeled, unlabeled, positions = draw_labeled(config.data, rest, config.seed)
    if positions:
        sha = digest([sha, positions], length=64)
    return Data(labeled, testing, held, synthetic, unlabeled, sha)


def _make_training_batches(config: TrainConfig, data: Data, device: torch.device) -> Loader:
    """Make the loader of training; semi-supervised training has streams of its own."""
    if config.data.labels_per_class is not None:
        assert isinstance(data.training, Images)
        assert data.unlabeled is None or isinstance(data.unlabeled, Images)
        strong = config.data.unlabeled.second_view == "strong"
        return StreamBatches(
            data.training,
            make_batching(config, device, training=True),
            steps=config.trainer.steps_per_epoch,
            unlabeled=data.unlabeled,
            ratio=config.data.unlabeled.ratio,
            strong=StrongView(**vars(config.data.unlabeled)) if strong else None,
        )
    # An epoch with synthetic images is as long as all real ones, also those held out: selection changes no step count.
    size = len(data.training) + (len(data.held_out) if data.held_out else 0)
    return make_batches(config, data.training, device, training=True, synthetic=data.synthetic, epoch_size=size)


def _prepare_model(model: nn.Module, trainer: TrainerConfig, device: torch.device) -> nn.Module:
    """Move ``model`` to ``device``, in the precision and memory format of ``trainer``."""
    if trainer.precision is Precision.float64:
        model = model.double()
    if trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = _prepare_batch_norm(model, trainer).to(device)
    if trainer.compile:
        _compile(model, None if trainer.compile is True else str(trainer.compile))
    return model


def _prepare_batch_norm(network: nn.Module, trainer: TrainerConfig) -> nn.Module:
    """Let every BatchNorm of ``network`` see the part of a batch that ``trainer`` says."""
    if trainer.sync_batchnorm and distributed.world() > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    distributed.split_batch_norm(network, batch_norm_parts(trainer) // trainer.devices)
    return network


def _compile(model: nn.Module, mode: str | None) -> None:
    """Compile ``model`` in place, so that the names of parameters stay."""
    # Train mode, eval mode and a smaller last batch each need their own graph; the default limit is 8.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
    model.compile(mode=mode)
    if mode == "reduce-overhead":
        # A CUDA graph writes its outputs to the same memory each time, but an attack keeps the natural logits.
        compiled: Any = model._compiled_call_impl
        model._compiled_call_impl = lambda *images: tree_map_only(Tensor, Tensor.clone, compiled(*images))


def _new_state(config: TrainConfig, device: torch.device, content: dict[str, object], sha256: str) -> RunState:
    """Build model, task and optimizer as they are before the first epoch. The seed fixes the initial weights."""
    seed_everything(config.seed)
    # Built on the CPU, in float32, and moved afterwards: the initial weights are the same on every device.
    model = parts.build_model(config.model)
    if config.trainer.initial_weights:
        say(load_initial_weights(model, config.trainer.initial_weights))
    model = _prepare_model(model, config.trainer, device)
    task = parts.build_task(config.task, model)
    for network in task.trained_networks():  # LBGAT's guide, FitNet's layers
        if network is not model:
            _prepare_batch_norm(network, config.trainer)
    trained, faster = [name for name, _ in task.named_parameters()], config.optimizer.faster
    for part in config.optimizer.no_decay:
        if not any(part in name for name in trained):
            say(f"warning: no parameter's name matches {part!r} of optimizer.no_decay")
    # A recipe may list the parts of several networks, of which one matches.
    if faster and not any(name.startswith(tuple(faster)) for name in trained):
        say(f"warning: no parameter's name matches optimizer.faster=[{','.join(faster)}]")
    if names := untrained(task):
        say(
            f"warning: nothing trains {', '.join(names)}: yield them in named_parameters of {type(task).__name__} and "
            "keep them in its state_dict, or freeze them by requires_grad_(False)"
        )
    optimizer = make_optimizer(config.optimizer, task.named_parameters(), model)
    averaging = parts.build_averaging(config.averaging)
    average = Average(averaging, model) if averaging else None
    if average is not None:
        task.use_average(average.model)
    seed_process(config.seed, distributed.rank())
    return RunState(task, model, optimizer, content, sha256, average, sources=_own_sources(content))


def _own_sources(config: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of your own files in a resolved ``config``: code by its ``_target_``, first weights by their key.

    A run's folder is named by their names. It does not continue with other contents.
    """
    sources = {}
    for target in sorted(set(parts.targets(config))):
        with suppress(Exception), parts.quiet():  # a target that cannot be imported is reported when it is made
            path = Path(inspect.getfile(get_object(target))).resolve()
            if not any(path.is_relative_to(folder.resolve()) for folder in _INSTALLED):
                sources[target] = hashlib.sha256(path.read_bytes()).hexdigest()
    for group, key in (("trainer", "initial_weights"), ("task", "encoder_weights")):
        name = config[group].get(key)
        if name and Path(name).is_file():
            sources[f"{group}.{key}"] = hashlib.sha256(Path(name).read_bytes()).hexdigest()
    return sources
