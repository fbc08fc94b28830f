"""Values of a training configuration that contradict how batches are made and divided. One function per rule."""

from dataclasses import asdict

from dkl.config.identity import batch_norm_parts, views_together
from dkl.config.schema import AugmentConfig, TrainConfig
from dkl.errors import UserError


def check_batches(config: TrainConfig) -> None:
    """Raise UserError on the first contradiction, with the keys and a fix."""
    _check_accumulation(config)
    _check_batch_norm(config)
    _check_teacher_cache(config)
    _check_semi_supervised(config)


def _check_batch_norm(config: TrainConfig) -> None:
    """The parts of a batch that BatchNorm sees together fit its devices."""
    trainer = config.trainer
    parts, devices = batch_norm_parts(trainer), trainer.devices
    both_views = views_together(config.data.augment.second_view, config.task)
    by_view = both_views and (trainer.batch_norm_share or 1) > 1
    if parts == devices and not by_view:
        return
    if parts % devices:
        raise UserError(
            f"trainer.batch_norm_share={parts} must be a multiple of trainer.devices={devices}, because BatchNorm "
            f"cannot see images of several devices together: use fewer devices, or trainer.batch_norm_share={devices}"
        )
    if by_view and parts // devices % 2:
        raise UserError(
            f"trainer.batch_norm_share={parts} on {devices} devices would show BatchNorm both views together, because "
            "each device has both: use half as many devices or fewer, or trainer.batch_norm_share=null"
        )
    if trainer.sync_batchnorm:
        raise UserError("trainer.sync_batchnorm=true shows BatchNorm whole batches: set trainer.batch_norm_share=null")
    if trainer.accumulate > 1 or trainer.batch_size % parts:
        raise UserError(
            f"trainer.batch_norm_share={parts} on {devices} devices needs trainer.accumulate=1 and a multiple of "
            f"{parts} as trainer.batch_size, not accumulate={trainer.accumulate} and batch_size={trainer.batch_size}; "
            "trainer.batch_norm_share=null lets BatchNorm see whole batches"
        )
    if config.data.labels_per_class is not None:
        raise UserError(
            f"trainer.batch_norm_share={parts} on {devices} devices needs one kind of images in each forward pass, but "
            f"data.labels_per_class adds unlabeled ones: use {parts} devices"
        )


def _check_accumulation(config: TrainConfig) -> None:
    """A batch has an image for each of its parts, and what needs the whole batch gets it."""
    trainer = config.trainer
    parts, size = trainer.accumulate * trainer.devices, trainer.batch_size
    if parts > size:
        raise UserError(
            f"trainer.devices={trainer.devices} and trainer.accumulate={trainer.accumulate} cut a batch of {size} into "
            f"{parts} parts: lower one of them, or raise trainer.batch_size"
        )
    if trainer.accumulate > 1 and (config.task.get("awp") or {}).get("gamma"):
        raise UserError(
            "task.awp perturbs weights by the gradient of a whole batch, which trainer.accumulate cuts: set "
            "trainer.accumulate=1 (and use trainer.devices), or task.awp.gamma=0"
        )
    prototypes = [key for key in ("prototype_weight", "align_weight") if config.task.get(key)]
    if trainer.accumulate > 1 and prototypes:
        raise UserError(
            f"task.{prototypes[0]}={config.task[prototypes[0]]} needs the prototypes of a whole batch, which "
            "trainer.accumulate cuts: set trainer.accumulate=1 (and use trainer.devices), or task.prototype_weight=0 "
            "and task.align_weight=0"
        )


def _check_teacher_cache(config: TrainConfig) -> None:
    """A teacher's logits can be kept only if every epoch shows the same images."""
    if not config.task.get("cache_teacher"):
        return
    plain = asdict(AugmentConfig())
    changing = [f"data.augment.{key}" for key, value in asdict(config.data.augment).items() if value != plain[key]]
    changing += [f"task.{key}" for key in ("mixup", "cutmix") if config.task.get(key)]
    changing += ["data.synthetic.files"] if config.data.synthetic.files else []
    if changing:
        raise UserError(
            f"task.cache_teacher=true keeps one prediction per image, but {', '.join(changing)} change the images: set "
            "task.cache_teacher=false, or turn those off"
        )


def _check_semi_supervised(config: TrainConfig) -> None:
    """Few labels and unlabeled images go together, and with nothing that changes which images a batch has."""
    data, trainer = config.data, config.trainer
    ratio, second = data.unlabeled.ratio, data.unlabeled.second_view
    if data.labels_per_class is None:
        for key, value in (("data.unlabeled.ratio", ratio), ("trainer.steps_per_epoch", trainer.steps_per_epoch)):
            if value:
                raise UserError(f"{key}={value} needs few labels: set data.labels_per_class, such as 25")
        return
    if second not in ("strong", "weak"):
        raise UserError(f"data.unlabeled.second_view={second} must be strong or weak")
    augment = data.augment
    others: dict[str, object] = {
        "data.synthetic.files": data.synthetic.files,
        "data.augment.second_view": augment.second_view,
        "data.augment.randaugment": augment.randaugment,
        "data.augment.repeats": augment.repeats > 1 and augment.repeats,
        "selection.every": config.selection.every,
    }
    for key, other in others.items():
        if other:
            raise UserError(f"{key}={other} does not work with data.labels_per_class: remove one of them")
    parts = trainer.devices * trainer.accumulate
    if ratio and trainer.batch_size % parts:
        raise UserError(
            f"trainer.batch_size={trainer.batch_size} cannot be cut into {parts} equal parts (devices x accumulate): "
            f"choose a multiple of {parts}"
        )
