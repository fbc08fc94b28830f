"""``AutoAttack``: the class of the authors' code, with its arguments, attributes, printed lines and flags, but faster.

    from dkl.attacks import AutoAttack
    adversary = AutoAttack(model, norm="Linf", eps=8/255, version="standard")
    x_adv = adversary.run_standard_evaluation(x, y, bs=250)

Every image gets the flag that it has there; a fooled image is attacked no further, so its pixels may be others. Beyond
that class there are ``flags``, ``warnings``, bounded AutoAttack (``tolerance``) and a state that resumes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self, TypeGuard, cast

import torch
from torch import Tensor, nn

from dkl.attacks.autoattack.classifier import Classifier, as_module, checked_images, device_of, scaled
from dkl.attacks.autoattack.report import AttackReport, Log
from dkl.attacks.autoattack.suite import attack
from dkl.attacks.autoattack.task import AttackPlan, AttackTask
from dkl.attacks.contexts import frozen_eval
from dkl.attacks.named import is_misclassified, make_attack, top1
from dkl.attacks.pgd import Perturb
from dkl.errors import UserError, choose_from
from dkl.runtime.device import pick_device
from dkl.runtime.distributed import alone
from dkl.storage.checkpoint import weights_sha256
from dkl.storage.files import check_writable, write_text
from dkl.threat import ATTACKS, AUTOATTACK, EVALUATED_NORMS, SUITES, EvaluatedNorm, parse_threat

VERSIONS: dict[str, list[str]] = {
    "standard": list(AUTOATTACK),
    "plus": ["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"],
    "rand": ["apgd-ce", "apgd-dlr"],
}

_KNOWN = [name for name, each in ATTACKS.items() if each.packaged and each.averages == 1]
"""The attacks of the package."""

_APGD = {"n_iter": 100, "eot_iter": 1, "rho": 0.75, "use_largereps": False}
_PARTS: dict[str, dict[str, Any]] = {
    "apgd": {"n_restarts": 5, "loss": "ce"} | _APGD,
    "apgd_targeted": {"n_restarts": 1, "n_target_classes": 9} | _APGD,
    "fab": {"n_restarts": 5, "n_iter": 100, "n_target_classes": 9, "targeted": False}
    | {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9},
    "square": {"n_restarts": 1, "n_queries": 5000, "p_init": 0.8, "loss": "margin"},
}
"""The attributes that hold the settings of attacks, and their values in ``version="custom"``."""

_OURS = ("n_restarts", "n_iter", "n_target_classes", "n_queries")
"""Settings that our attacks take too; with other values of the rest the authors' code runs."""


class Settings:
    """The settings of one of AutoAttack's attacks, such as ``adversary.apgd.n_restarts``; itself as ``perturb``."""

    def __init__(self, name: str, owner: "AutoAttack", values: dict[str, Any]) -> None:
        vars(self).update(values, norm=owner.norm, eps=owner.epsilon, seed=owner.seed, verbose=False)
        vars(self).update(_name=name, _owner=owner, _defaults=dict(vars(self)))

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("_") or name not in vars(self):
            known = [key for key in vars(self) if not key.startswith("_")]
            raise UserError(f"{self._name} has no setting {name!r}: {choose_from(name, known)}")
        if name in (*_OURS, "eot_iter") and (not _is_whole(value) or value < 1):
            raise UserError(f"{self._name}.{name}={value!r} must be a whole number, at least 1")
        if isinstance(self._defaults[name], float) and not isinstance(value, Real):
            raise UserError(f"{self._name}.{name}={value!r} must be a number, such as {self._defaults[name]}")
        vars(self)[name] = value

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{vars(self)['_name']} has no setting {name!r}")

    def perturb(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The adversarial images of this attack alone, for a batch ``x[B, C, H, W]``, ``y[B]``.

        Without ``y`` the labels are the predicted classes. Raises UserError for images that cannot be attacked.
        """
        name = {"apgd": f"apgd-{vars(self).get('loss')}", "apgd_targeted": "apgd-t", "square": "square"}.get(
            self._name, "fab-t" if vars(self).get("targeted") else "fab"
        )
        model = Classifier(as_module(self._owner.model))
        seed = self._owner.chosen_seed() if self.seed is None else self.seed
        _check_seed(seed)
        x, labels = checked_images(x, torch.zeros(len(x), dtype=torch.int64) if y is None else y)
        with torch.no_grad(), frozen_eval(model):
            place = self._owner.place(x)
            x = scaled(x).to(place)
            logits = model(x)
            y = logits.argmax(1) if y is None else labels.to(place)
            correct, result = top1(logits, y), x.clone()
            if correct.any():
                perturb = self.make(name, model, logits.shape[1], place, seed)
                result[correct] = perturb(x[correct], y[correct])
        return result

    def make(
        self, name: str, model: nn.Module, num_classes: int, device: torch.device, seed: int, package: bool = False
    ) -> Perturb:
        """The attack ``name`` with these settings."""
        given = {key: vars(self)[key] for key in _OURS if key in vars(self)}
        ignored = ("norm", "eps", "seed", "verbose", "loss", "targeted", *_OURS)
        given |= {
            key: vars(self)[key]
            for key, value in self._defaults.items()
            if key not in ignored and vars(self)[key] != value
        }
        if name == "fab-t":
            given["n_restarts"] = self.n_restarts = 1  # as in the package, and as there it stays
        if "n_target_classes" in given:
            given["n_target_classes"] = min(given["n_target_classes"], num_classes - 1)
        if self.norm == "L1" and "use_largereps" in vars(self):
            given["use_largereps"] = self.use_largereps
        norm = cast(EvaluatedNorm, self.norm.lower())
        options: dict[str, Any] = {"num_classes": num_classes, "device": device, "package": package}
        return make_attack(name, model, norm=norm, eps=self.eps, seed=seed, settings=given, **options)


@dataclass(frozen=True, kw_only=True)
class _Plan(AttackPlan):
    """What ``adversary`` runs."""

    adversary: "AutoAttack" = field(repr=False)

    def whole(self) -> Self:
        return replace(self, package=True)

    def make(self, name: str, model: nn.Module, num_classes: int, device: torch.device) -> Perturb:
        settings = self.adversary.settings_of(name)
        return settings.make(name, model, num_classes, device, self.seed, self.package)


class AutoAttack:
    """AutoAttack (Croce and Hein 2020) on ``model``, which maps images in [0, 1] to logits, normalization included.

    ``eps`` is in pixel units, such as ``8/255`` or ``"8/255"``. ``version`` is standard, plus, rand, or custom with
    ``attacks_to_run``. Settings of attacks are set as in the authors' code: ``adversary.apgd.n_restarts = 1``. The
    ``device`` is by default that of the model's parameters. With ``tolerance``, the widest interval in percentage
    points, fab-t and square attack a random sample and bound the accuracy. ``resume`` is a folder in which progress is
    saved, and from which the same call continues; ``images_together`` limits how many images of several batches are
    attacked at once. Raises UserError on a mistake.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    >>> x = torch.rand(8, 3, 2, 2)
    >>> adversary = AutoAttack(model, eps=8/255, version="custom", attacks_to_run=["apgd-ce"], seed=0, verbose=False)
    >>> x_adv = adversary.run_standard_evaluation(x, model(x).argmax(1))
    >>> x_adv.shape, list(adversary.flags), float((x_adv - x).abs().max()) <= 8/255
    (torch.Size([8, 3, 2, 2]), ['clean', 'apgd-ce'], True)
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        norm: str = "Linf",
        eps: float | str = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: torch.device | str | int | None = None,
        log_path: str | Path | None = None,
        *,
        tolerance: float | None = None,
        resume: str | Path | None = None,
        images_together: int | None = None,
    ) -> None:
        if is_tf_model:
            raise UserError("is_tf_model=True: only PyTorch is supported; convert the network")
        titles = {name: {"linf": "Linf"}.get(name, name.upper()) for name in EVALUATED_NORMS}
        self.epsilon = parse_threat(str(norm).lower(), eps, norms=EVALUATED_NORMS)
        self.model, self.norm = model, titles[cast(EvaluatedNorm, norm.lower())]
        self.seed, self.verbose, self.version, self.is_tf_model = seed, verbose, version, False
        self.device = None if device is None else pick_device(device)
        self.attacks_to_run = list(attacks_to_run)
        self.tolerance, self.resume, self.images_together = tolerance, resume, images_together
        self.logger = Log(log_path)
        self.apgd, self.apgd_targeted, self.fab, self.square = (
            Settings(name, self, values) for name, values in _PARTS.items()
        )
        self.flags: dict[str, Tensor] = {}
        """Bool ``[N]`` on the CPU: which images are correct, clean and after each attack and those before it."""
        self.warnings: list[str] = []
        """What makes the result of the last run doubtful."""
        if version not in ("custom", *VERSIONS):
            raise UserError(f"version={version!r}: {choose_from(version, ('custom', *VERSIONS))}")
        if attacks_to_run and version != "custom":
            raise UserError(
                f"attacks_to_run={list(attacks_to_run)} is for version='custom'; version={version!r} has its own: "
                "leave out one of them"
            )
        if version != "custom":
            self.set_version(version)

    def set_version(self, version: str = "standard") -> None:
        """Set the attacks and the settings of ``version``: standard, plus or rand."""
        if version not in VERSIONS:
            raise UserError(f"version={version!r}: {choose_from(version, VERSIONS)}")
        if self.verbose:
            self.logger.log(f"setting parameters for {version} version")
        self.version, self.attacks_to_run = version, list(VERSIONS[version])
        if version == "rand":
            self.apgd.n_restarts, self.apgd.eot_iter = 1, 20
            return
        in_l1, plus = self.norm == "L1" and version == "standard", version == "plus"
        if in_l1:
            self.apgd.use_largereps = self.apgd_targeted.use_largereps = True
        self.apgd.n_restarts = 5 if in_l1 or plus else 1
        self.apgd_targeted.n_target_classes = 5 if in_l1 else 9
        self.fab.n_restarts = 5 if plus else 1
        self.apgd_targeted.n_restarts, self.fab.n_target_classes, self.square.n_queries = 1, 9, 5000

    def settings_of(self, attack: str) -> Settings:
        """The settings of ``attack``."""
        parts = {"apgd-t": self.apgd_targeted, "square": self.square, "fab": self.fab, "fab-t": self.fab}
        return parts.get(attack, self.apgd)

    def get_logits(self, x: Tensor) -> Tensor:
        """The model's logits."""
        return self.model(x)

    def get_seed(self) -> float:
        """The seed, or the time if there is none."""
        return time.time() if self.seed is None else self.seed

    def chosen_seed(self) -> int:
        """The seed of a run: one from the time is printed, so that the run can be repeated."""
        if self.seed is None:
            self.logger.log(f"seed={(seed := int(time.time()))}, from the time: give it to repeat this run")
            return seed
        return int(self.seed)

    def place(self, x: Tensor) -> torch.device:
        """The device on which ``x`` is attacked."""
        return self.device or device_of(as_module(self.model), x)

    def clean_accuracy(self, x_orig: Tensor, y_orig: Tensor, bs: int = 250) -> float:
        """The accuracy on images ``x_orig[N, C, H, W]`` as they are, in [0, 1]."""
        _check_sizes({"bs": bs})
        x, y = checked_images(x_orig, y_orig)
        model, place = Classifier(as_module(self.model)), self.place(x)
        with torch.no_grad(), frozen_eval(model):
            parts = zip(x.split(bs), y.split(bs), strict=True)
            correct = torch.cat([~is_misclassified(model(scaled(a).to(place)).cpu(), b) for a, b in parts])
        if self.verbose:
            self.logger.log(f"clean accuracy: {correct.double().mean():.2%}")
        return float(correct.double().mean())

    def run_standard_evaluation(
        self,
        x_orig: Tensor,
        y_orig: Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: str | Path | None = None,
    ) -> Any:
        """Attack ``x_orig[N, C, H, W]`` in [0, 1] with labels ``y_orig[N]`` in batches of ``bs``.

        Returns the adversarial images, and with ``return_labels`` also their predicted classes. An image that no attack
        fooled, or that was misclassified before, is unchanged. ``state_path`` is a folder that saves the progress.
        """
        self._check_attacks(bs)
        if torch.is_inference_mode_enabled():
            raise UserError("AutoAttack needs gradients, which torch.inference_mode() forbids: call it outside")
        with alone():
            task = self._task(x_orig, y_orig, bs, state_path or self.resume)
            if self.verbose:
                self.logger.log(f"using {self.version} version including {', '.join(task.protocol.attacks)}.")
            report = AttackReport(task, self.logger if self.verbose else None)
            attacked = attack(replace(task, observe=report.observe))
        self.warnings = attacked.warnings
        self.flags = {name: torch.from_numpy(each.flags) for name, each in attacked.state.items() if name != "top5"}
        if attacked.sample is not None:
            self.flags["sampled"] = torch.from_numpy(attacked.sample.sampled)
        report.finish(attacked)
        adversarial = report.adversarial.to(x_orig.device)
        return (adversarial, report.predicted.to(x_orig.device)) if return_labels else adversarial

    def _task(self, x_orig: Tensor, y_orig: Tensor, bs: int, state: str | Path | None) -> AttackTask[_Plan]:
        """What is attacked and how, checked; the progress is saved in the folder ``state``."""
        plan = _Plan(
            adversary=self,
            attacks=list(self.attacks_to_run if self.tolerance is None else SUITES["bounded"]),
            norm=cast(EvaluatedNorm, self.norm.lower()),
            eps=self.epsilon,
            eps_text=str(self.epsilon),
            n=None,
            batch_size=int(bs),
            seed=0,
            tolerance=None if self.tolerance is None else float(self.tolerance),
        )
        options: dict[str, Any] = {"together": self.images_together, "quiet": not self.verbose}
        task = AttackTask.of(self.model, x_orig, y_orig, plan, self.device, **options)
        if state is None:
            return replace(task, protocol=replace(plan, seed=self.chosen_seed()))
        check_writable(Path(state))
        file = Path(state) / "seed.txt"  # of an interrupted run
        if self.seed is None and not file.is_file():
            write_text(file, str(self.chosen_seed()))
        text = file.read_text(encoding="utf-8") if self.seed is None else str(self.seed)
        if not text.isdecimal():
            raise UserError(f"{file} is damaged: it has {text[:20]!r}, not a seed; delete it, or give seed=")
        seed = int(text)
        task = replace(task, protocol=replace(plan, seed=seed))
        parts = (self.apgd, self.apgd_targeted, self.fab, self.square)
        settings = ({k: v for k, v in vars(part).items() if k[0] != "_"} for part in parts)
        hashes = [weights_sha256({"": each}) for each in (task.images, task.labels)]
        return task.saved_in(Path(state), [str(task.protocol), *hashes, *settings])

    def run_standard_evaluation_individual(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> dict[str, Any]:
        """Run each of ``attacks_to_run`` on all images; return what ``run_standard_evaluation`` does, per attack."""
        asked, verbose = self.attacks_to_run, self.verbose
        found, flags, warnings = dict[str, Any](), dict[str, Tensor](), list[str]()
        if verbose:
            self.logger.log(f"using {self.version} version including {', '.join(asked)}")
        self.verbose = False
        try:
            for name in asked:
                started, self.attacks_to_run = time.time(), [name]
                found[name] = self.run_standard_evaluation(x_orig, y_orig, bs, return_labels)
                flags |= self.flags
                warnings += [each for each in self.warnings if each not in warnings]
                if verbose:
                    accuracy, space = self.flags[name].double().mean(), "\t \t" if name == "fab" else "\t"
                    seconds = f"(time attack: {time.time() - started:.1f} s)"
                    self.logger.log(f"robust accuracy by {name.upper()} {space} {accuracy:.2%} \t {seconds}")
        finally:
            self.attacks_to_run, self.verbose = asked, verbose
        self.flags, self.warnings = flags, warnings
        return found

    def cheap(self) -> None:
        """Set one restart per attack and 1000 queries, as the authors' code of 2020 did."""
        self.apgd.n_restarts = self.apgd_targeted.n_restarts = self.fab.n_restarts = 1
        self.square.n_queries = 1000

    def _check_attacks(self, bs: object) -> None:
        """Raise UserError unless attacks, batch size, seed and tolerance are usable."""
        if not self.attacks_to_run:
            raise UserError(f"version={self.version!r} has no attacks: give attacks_to_run=['apgd-ce', 'apgd-t']")
        for name in self.attacks_to_run:
            if name not in _KNOWN:
                raise UserError(f"attacks_to_run has {name!r}: {choose_from(str(name), _KNOWN)}")
        together = 1 if self.images_together is None else self.images_together
        _check_sizes({"bs": bs, "images_together": together})
        if self.seed is not None:
            _check_seed(self.seed)
        if self.tolerance is None:
            return
        if not isinstance(self.tolerance, Real) or not 0 < self.tolerance <= 100:
            raise UserError(f"tolerance={self.tolerance!r} must be in percentage points, above 0 and at most 100")
        if self.attacks_to_run != list(AUTOATTACK):
            raise UserError("tolerance= bounds version='standard': leave it out for other attacks")


def _check_sizes(sizes: Mapping[str, object]) -> None:
    """Raise UserError unless each of ``sizes``, by its argument, is a number of images."""
    for key, size in sizes.items():
        if not _is_whole(size) or size < 1:
            raise UserError(f"{key}={size!r} must be a whole number of images, at least 1")


def _check_seed(seed: object) -> None:
    """Raise UserError unless ``seed`` is one that torch and NumPy take."""
    if not _is_whole(seed) or not 0 <= seed < 2**32:
        raise UserError(f"seed={seed!r} must be a whole number from 0 to {2**32 - 1}")


def _is_whole(value: object) -> TypeGuard[int]:
    """Whether ``value`` is a whole number, NumPy's included."""
    return isinstance(value, Integral) and not isinstance(value, bool)
