"""Robust distillation: a step of every method is that of its authors' code, and the identities of its losses hold."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from dkl.assembly import build_schedule, build_task, preflight
from dkl.attacks import TrainingAttack
from dkl.config import compose_config
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import DIST, DKD, DKL, GKL, IKL, JSD, KD, KL, PairLoss, gap_mse
from dkl.models import create_model, create_teacher, fingerprint
from dkl.models.teacher import untrained_teacher
from dkl.published import PublishedNetwork
from dkl.tasks import AWP, PGDTraining, Progress, RobustDistillation, Task, Term, TradesTraining
from dkl.training.averaging import Average, Averaging
from tests.official import robust_distillation as official
from tests.tasks.common import CLASSES, Spy, make_attack, make_batch, make_net

HOW = {"eps": 0.05, "step_size": 0.025, "steps": 3}
ATTACK = ["attack.eps=0.05", "attack.steps=3", "attack.relative_step=0.5"]
NET = {"_target_": "tests.tasks.common.make_net"}
METHODS = sorted(official.METHODS)


def double(size: int = 9) -> Batch:
    batch = make_batch(size)
    return batch._replace(images=batch.images.double())


def composed(method: str, model: nn.Module, *overrides: str) -> RobustDistillation:
    """The task of ``configs/task/METHOD.yaml`` with tiny random teachers."""
    teachers = [f"task.{key}.name=small_cnn" for key in ("teacher", "natural_teacher")]
    needed = teachers if method in ("akd2", "iad2", "mtard") else teachers[:1]
    cfg = compose_config("train", [f"task={method}", *needed, *ATTACK, "trainer.epochs=200", *overrides])
    node: Any = OmegaConf.to_container(cfg.task, resolve=True)
    node |= {"num_classes": CLASSES} | {key: NET for key in ("teacher", "natural_teacher") if key in node}
    task = build_task(node, model)
    assert isinstance(task, RobustDistillation)
    return task


def take(task: Task, batch: Batch, epoch: int = 1, epochs: int = 200) -> float:
    """One step of the official optimizer; returns the loss."""
    task.model.train()
    optimizer = torch.optim.SGD(task.model.parameters(), lr=official.LR, weight_decay=official.DECAY)
    with task.step(batch, Progress(epoch, epochs)) as out:
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    return out.loss.item()


def difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("epoch", [30, 150])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_of_the_official_code(method: str, epoch: int) -> None:
    torch.manual_seed(0)
    model, batch = make_net().double(), double()
    task, before = composed(method, model), copy.deepcopy(model)
    spy = Spy(model)
    loss = take(task, batch, epoch)
    networks = {"s": before, "t": task.teachers["teacher"], "u": task.teachers.get("natural_teacher", nn.Identity())}
    attacked = next(call.images for call in spy.calls if call.training)
    start = spy.calls[0].images
    expected = official.attacked(networks, batch.images, batch.labels, start, official.METHODS[method][1], **HOW)
    torch.testing.assert_close(attacked, expected, rtol=0, atol=1e-12)
    assert loss == pytest.approx(
        official.step(method, networks, batch.images, expected, batch.labels, epoch), rel=1e-9, abs=1e-14
    )
    assert difference(model, before) < 1e-10


def test_the_weights_of_mtard_follow_the_losses_and_are_resumed() -> None:
    task, batch = composed("mtard", make_net().double()), double()
    losses: list[tuple[float, float]] = []
    values = task._values
    task._values = lambda *arguments: (
        losses.append([v.item() for v in values(*arguments).values()]) or values(*arguments)
    )  # type: ignore[method-assign]
    for _ in range(3):
        take(task, batch)
    expected = official.balanced(losses, 0.025)
    torch.testing.assert_close(task.balance.tolist(), [1 - expected, expected])
    resumed = composed("mtard", make_net().double())
    with pytest.raises(UserError, match=r"task\.teacher is now .*give the same weights"):
        resumed.load_state_dict(task.state_dict())
    resumed.fingerprints = task.fingerprints
    resumed.load_state_dict(task.state_dict())
    assert torch.equal(resumed.balance, task.balance)
    assert torch.equal(resumed.first_losses, task.first_losses)  # type: ignore[arg-type]


def test_the_weights_of_mtard_move_as_far_by_a_batch_in_parts() -> None:
    moved = []
    for parts in (1, 4):
        task = composed("mtard", make_net().double())
        task._rebalance(torch.ones(2), 1.0)
        for _ in range(parts):
            task._rebalance(torch.tensor([3.0, 1.0]), 1 / parts)
        moved.append(task.balance[0].item() - 0.5)
    assert moved[1] == pytest.approx(moved[0], rel=0.01)


def same_steps(first: Task, second: Task) -> None:
    """Two epochs of two steps leave the same weights and buffers, bit for bit."""
    torch.manual_seed(1)
    batches = [double() for _ in range(2)]
    for epoch in (1, 2):
        for batch in batches:
            assert take(first, batch, epoch, 2) == take(second, batch, epoch, 2)
        first.end_epoch()
        second.end_epoch()
    assert difference(first.model, second.model) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_pgd_at_written_in_it_is_the_same_bit_for_bit(gamma: float) -> None:
    model, awp, attack = make_net().double(), AWP(gamma=gamma, start=1), make_attack(sigma=None)
    terms = {"labels": Term(target="labels", student="adversarial")}
    other = RobustDistillation(copy.deepcopy(model), attack, terms, num_classes=CLASSES, awp=awp)
    same_steps(PGDTraining(model, attack, awp=awp), other)


@pytest.mark.parametrize("loss", [KL(), IKL(wmse_weight=3.0, ce_weight=2.0), GKL(gamma=0.5), DKD(), DIST(), JSD()])
@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_trades_written_in_it_is_the_same_bit_for_bit(loss: PairLoss, gamma: float) -> None:
    """Any pair loss, with the class prior of its target if it asks for one; KL has the weight 6 outside."""
    model, awp, attack = make_net().double(), AWP(gamma=gamma, start=1), make_attack(objective=KL())
    weight = 6.0 if isinstance(loss, KL) else 1.0
    terms = {
        "labels": Term(target="labels", student="natural"),
        "robust": Term(target="student.natural", student="adversarial", weight=weight),
    }
    other = RobustDistillation(copy.deepcopy(model), attack, terms, num_classes=CLASSES, loss=loss, awp=awp)
    trades = KL(weight=6.0) if isinstance(loss, KL) else loss
    same_steps(TradesTraining(model, trades, attack, num_classes=CLASSES, awp=awp), other)


def test_priors_are_of_the_targets() -> None:
    model, teacher, batch = make_net().double(), make_net().double(), double(8)
    terms = {
        "natural": Term(target="teacher.natural", student="natural"),
        "adversarial": Term(target="teacher.adversarial", student="adversarial", sample_weight="trust"),
    }
    attack, loss = make_attack(objective=KL()), IKL(wmse_weight=1.0, ce_weight=1.0)
    task = RobustDistillation(
        model, attack, terms, num_classes=CLASSES, teacher=teacher, loss=loss, prior_temperature=1
    )
    spy = Spy(task.teachers["teacher"])
    take(task, batch)
    task.end_epoch()
    seen = {torch.equal(call.images, batch.images): call.logits.softmax(-1) for call in spy.calls}
    for place, kind in enumerate(["teacher.adversarial", "teacher.natural"]):
        assert task.prior_targets[place] == kind
        for label in range(CLASSES):
            mean = seen[kind == "teacher.natural"][batch.labels == label].mean(0)
            torch.testing.assert_close(task.prior.table[place * CLASSES + label], mean)  # type: ignore[union-attr]


def test_a_student_equal_to_its_teacher_has_nothing_to_learn() -> None:
    model, batch = make_net().double(), double()
    task = composed("adaad_igdm", model)
    task.teachers["teacher"].load_state_dict(model.state_dict())
    task.model.eval()
    spy = Spy(model)
    moved = task.perturb(batch, Progress(1, 200))
    # Gradients at a minimum are rounding, whose signs are kept: they are compared with those of another teacher.
    pair = (model(batch.images), task.teachers["teacher"](batch.images))
    x = batch.images.clone().requires_grad_()
    objective = task._objective(batch)
    (gradient,) = torch.autograd.grad(objective((model(x), task.teachers["teacher"](x))), x)
    assert gradient.abs().max() < 1e-15
    assert torch.equal(*pair)
    assert len(spy.calls) > 3
    logits = {
        f"{network}.difference": model(moved) - model(2 * batch.images - moved) for network in ("student", "teacher")
    }
    assert task._value("difference", logits, batch).abs() < 1e-15


def test_ard_at_temperature_30_is_the_gap_mse_with_equal_weights() -> None:
    teacher, student = torch.randn(2, 64, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kd = KD(weight=1.0, logit_temperature=30.0)(teacher, student)
    assert float(kd) == pytest.approx(float(gap_mse(teacher, student, torch.full_like(teacher, 0.1))), rel=2e-3)


def test_dkl_trains_like_kl() -> None:
    torch.manual_seed(0)
    model, batch = make_net().double(), double()
    tasks = []
    for loss in (KL(), DKL()):
        task = composed("iad1", copy.deepcopy(model))
        task.losses = dict.fromkeys(task.losses, loss) | {"self": KL()}
        task.teachers["teacher"].load_state_dict(model.state_dict() | {"4.bias": torch.ones(CLASSES)})
        take(task, batch, 10)
        tasks.append(task.model)
    assert difference(*tasks) < 1e-12


@pytest.mark.parametrize("loss", [KL(), KD(), DKD(), IKL(weighting="sample"), GKL(), GKL(weighting="sample"), IKL()])
def test_sample_weights_of_one_change_nothing(loss: PairLoss) -> None:
    """Losses with rows take weights per sample: power 0 makes the trust 1."""
    model, teacher, batch = make_net().double(), make_net().double(), double()
    after = []
    for sample_weight in (None, "trust"):
        terms = {"one": Term(target="teacher.natural", student="adversarial", sample_weight=sample_weight)}
        torch.manual_seed(0)
        task = RobustDistillation(
            copy.deepcopy(model),
            make_attack(),
            terms,
            num_classes=CLASSES,
            teacher=copy.deepcopy(teacher),
            loss=loss,
            trust_power=0.0,
        )
        take(task, batch)
        after.append(task.model)
    assert difference(*after) < 1e-12


@pytest.mark.parametrize("loss", [KD(), DKD()])
def test_rows_are_the_losses_of_single_samples(loss: KD | DKD) -> None:
    teacher, student = torch.randn(2, 5, CLASSES, dtype=torch.float64)
    labels = torch.arange(5) % CLASSES
    wanted = [{"labels": labels[i : i + 1]} if isinstance(loss, DKD) else {} for i in range(5)]
    alone = [loss(teacher[i : i + 1], student[i : i + 1], **wanted[i]) for i in range(5)]  # type: ignore[arg-type]
    rows = loss.rows(teacher, student, **({"labels": labels} if isinstance(loss, DKD) else {}))  # type: ignore[arg-type]
    torch.testing.assert_close(rows, torch.stack(alone))


def test_an_equal_average_is_the_mean_of_the_last_epochs() -> None:
    rule, model = Averaging(start=0.475, buffers="copy", equal=True), nn.Linear(1, 1)
    average = Average(rule, model)
    for epoch in range(1, 201):
        nn.init.constant_(model.weight, epoch)
        average.update(model, epoch, 200)
    assert average.model.weight.item() == pytest.approx((95 + 200) / 2)


def test_official_behavior_has_switches() -> None:
    torch.manual_seed(0)
    model, batch = make_net().double(), double()
    spy = Spy(model)
    task = composed("ard", model, "+attack.batch_norm=train", "task.natural_forward=true")
    loss = take(task, batch)
    assert [call.training for call in spy.calls] == [True] * 5
    assert model[1].num_batches_tracked == 5
    assert torch.equal(spy.calls[-1].images, batch.images)
    assert not any(module.training for module in task.teachers["teacher"].modules())
    per_class = composed("ard", make_net().double(), "+task.terms.adversarial.mean_over_classes=true")
    assert per_class._total({"adversarial": torch.tensor(loss)}).item() == pytest.approx(loss / CLASSES)


def make(**changes: Any) -> RobustDistillation:
    """RSLAD's terms with ``changes`` of the adversarial one, of the task or of the attack."""
    term: dict[str, Any] = {"target": "teacher.natural", "student": "adversarial"}
    known = set(Term.__dataclass_fields__)
    term |= {key: value for key, value in changes.items() if key in known}
    attack: TrainingAttack = changes.pop("attack", make_attack(objective=KL()))
    settings = {"teacher": make_net(), "loss": KL()} | {key: changes[key] for key in changes if key not in known}
    return RobustDistillation(make_net(), attack, {"one": Term(**term)}, num_classes=CLASSES, **settings)


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"target": "labels", "loss": KD()}, "the labels have the cross-entropy: set it to null"),
        ({"attack": make_attack(objective=KL(), relative_step=4.0)}, "set attack.relative_step to at most 2"),
        ({"loss": DIST(), "sample_weight": "trust"}, "choose a loss with rows, such as KL"),
        ({"teacher": None}, r"one needs task.teacher: set task.teacher.name=NETWORK"),
        ({"target": "natural_teacher.natural"}, "one needs task.natural_teacher: set"),
        ({"target": "teacher.naturl"}, "did you mean teacher.natural"),
        ({"student": "difference"}, "a difference is compared with a difference"),
        ({"target": "teacher.difference", "student": "difference", "loss": DKD()}, "set task.terms.one.loss._target_"),
        ({"attack_target": "teacher"}, "task.attack_target=teacher"),
        ({"attack_target": "teacher.natural", "attack": make_attack()}, "or set task.attack_target=student.natural"),
        ({"attack": make_attack(objective=IKL())}, "attack.objective.weighting=sample"),
        ({"weight": 0.0}, "no term is active in epoch 1: set task.terms.one.weight=1"),
        ({"before_epoch": 3}, "no term is active in epoch 3"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], fix: str) -> None:
    with pytest.raises(UserError, match=fix) as error:
        make(**changes)
    assert "\n" not in str(error.value)


class Growing(KL):
    def at(self, share: float) -> KL:
        return KL(weight=share)


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        ("task=ard loss=ikl", r"no term takes this IKL, .*'task.terms.adversarial.loss=\$\{loss\}'"),
        ("task=ard loss.weight=6", "no term takes this KL"),
        (
            "task=rslad loss=wkd",
            "WKD compares classes by a teacher's distances, .* choose task=distillation, or another loss",
        ),
        (
            "task=rslad attack.objective._target_=dkl.losses.WKD",
            "WKD compares .* another attack.objective",
        ),
        ("task=rslad loss._target_=tests.tasks.adversarial.test_robust_distillation.Growing", "Growing changes during"),
        ("task=rslad +task.terms.natural.from_epoch=31", r"lower task\.terms\.natural\.from_epoch"),
        ("task=mtard task.natural_teacher.name=small_cnn", r"set task\.natural_teacher\.checkpoint=FILE"),
        ("task=rslad +task.terms.natural.wieght=1", r"drop it with '~task\.terms\.natural\.wieght'"),
    ],
)
def test_what_no_term_takes_is_refused_before_any_work(overrides: str, fix: str, tmp_path: Path) -> None:
    torch.save(create_model("small_cnn", 10, 1).state_dict(), tmp_path / "teacher.pt")
    teacher = ["task.teacher.name=small_cnn", f"task.teacher.checkpoint={tmp_path / 'teacher.pt'}"]
    with pytest.raises(UserError, match=fix):
        preflight(compose_config("train", [f"paths.results={tmp_path}", *teacher, *overrides.split(" ")]))


def test_a_loss_that_a_term_takes_is_no_mistake() -> None:
    composed("ard", make_net().double(), "loss=ikl", "task.terms.adversarial.loss=${loss}")
    composed("ard", make_net().double())
    composed("adaiad", make_net().double(), "loss=ikl")  # of its self term


def test_a_teacher_that_is_not_robust_is_reported_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    task, batch = make(), make_batch(20)
    labels = task.teachers["teacher"](batch.images).argmax(
        -1
    )  # a perfect teacher, whose predictions change in the ball
    task.attack = make_attack(objective=KL(), eps=1.0)
    task.before_training([batch._replace(labels=labels)])
    printed = capsys.readouterr().err
    assert "100.00% on 20 test images" in printed
    assert "warning: the teacher is not robust, PGD-10 accuracy" in printed
    assert task.accuracies["teacher_accuracy"] == 1
    resumed = make()
    resumed.fingerprints = task.fingerprints
    resumed.load_state_dict(task.state_dict())
    resumed.before_training([batch])
    assert not capsys.readouterr().err
    assert resumed.test(resumed.model, [batch])["teacher_pgd10_accuracy"] < 1 / 3


def test_a_teacher_may_be_a_network_of_anyone(tmp_path: Path) -> None:
    network = create_model("cifar_resnet8", 10, 3)
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    teacher = create_teacher("timm:cifar_resnet8", 10, checkpoint=str(tmp_path / "teacher.pt"), size=[32, 32])
    assert fingerprint(teacher) == fingerprint(network)
    with pytest.raises(UserError, match="cifar100"):
        create_teacher("robustbench:Zhang2019Theoretically", 100, size=[32, 32])
    for teacher in (create_teacher, untrained_teacher):  # before anything is downloaded
        with pytest.raises(UserError, match=r"needs size=\[64, 64\], but robustbench:Wang2023Better_WRN-28-10 has"):
            teacher("robustbench:Wang2023Better_WRN-28-10", 100, size=[64, 64])

    with torch.device("meta"):
        ltd = untrained_teacher("robustbench:Chen2021LTD_WRN34_10", 10)
    assert sum(weight.numel() for weight in ltd.parameters()) == 46_160_474


def test_mistakes_are_found_before_a_teacher_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(network: PublishedNetwork) -> Path:
        raise UserError(f"downloads {network.id}")

    monkeypatch.setattr("dkl.models.sources.named.published_weights", download)
    cfg = ["task=rslad", "data=cifar10", f"paths.results={tmp_path}"]
    cfg += ["task.teacher.name=robustbench:Zhang2019Theoretically"]
    with pytest.raises(UserError, match="drop it with"):
        preflight(compose_config("train", [*cfg, "+task.terms.natural.wieght=1"]))
    with pytest.raises(UserError, match="downloads Zhang2019Theoretically"):
        preflight(compose_config("train", cfg))


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("cifar_resnet18", 10, 11_173_962),
        ("cifar_resnet18", 100, 11_220_132),
        ("cifar_mobilenetv2_wide", 10, 2_296_922),
        ("cifar_mobilenetv2_wide", 100, 2_412_212),
    ],
)
def test_students_have_the_papers_parameters(name: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        model = create_model(name, classes, 3)
    assert sum(weight.numel() for weight in model.parameters()) == count
    assert model(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, classes)


@pytest.mark.parametrize(
    ("recipe", "epochs", "drops", "decay"),
    [
        ("ard_cifar10", 200, [100, 150], 2e-4),
        ("iad_cifar10", 200, [100, 150], 2e-4),
        ("rslad_cifar100", 300, [215, 260, 285], 2e-4),
        ("adaad_cifar10", 200, [100, 150], 5e-4),
        ("igdm_cifar100", 200, [100, 150], 5e-4),
        ("saad_cifar100", 200, [100, 150], 5e-4),
    ],
)
def test_recipes_have_the_papers_schedules(recipe: str, epochs: int, drops: list[int], decay: float) -> None:
    cfg = compose_config("train", [f"recipe={recipe}", "data=cifar10", "task.teacher.name=small_cnn"])
    schedule = build_schedule(cfg.schedule)
    factors = [schedule.lr_factor(epoch, epochs) for epoch in range(1, epochs + 1)]
    changes = [epoch for epoch in range(1, epochs) if factors[epoch] != factors[epoch - 1]]
    assert (cfg.trainer.epochs, changes) == (epochs, drops)
    assert (cfg.optimizer.lr, cfg.optimizer.weight_decay, cfg.model.name) == (0.1, decay, "cifar_resnet18")
    assert (cfg.attack.steps, cfg.attack.relative_step, cfg.attack.eps) == (10, 0.25, "8/255")
