"""AutoAttack: the authors' package against dkl's attacks, on the same batches and with the same flags.

Both attack every batch in turn, so that other load on the machine affects both alike. The package is called as its
users call it, on a network in eval mode whose parameters are not frozen.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from pyautoattack import AutoAttack
from torch import Tensor, nn

from dkl.attacks import Perturb, make_attack, pgd
from dkl.attacks.autoattack.classifier import search_model
from dkl.attacks.compare import Passes
from dkl.data import Batches, Batching, digits
from dkl.models import create_model
from dkl.threat import AUTOATTACK, NORM_TITLES, Norm
from scripts.bench.report import Result, Row, Table, Target

CPU, SEED, BATCH = torch.device("cpu"), 0, 200
FASTER: Mapping[str, bool | str] = {"channels_last": True, "fold_batch_norm": True}
FOLDED: Mapping[str, bool | str] = {"fold_batch_norm": True}  # channels last slows few images on a large network down
VARIANTS = ("package", "dkl", "dkl, faster search")


@dataclass(frozen=True)
class Case:
    """A network, how many images attack it, and the share of AutoAttack's steps and queries that are taken.

    ``aim`` is the speed-up that is aimed at; None if there is none. ``faster`` are the settings of the faster search.
    """

    title: str
    model: str
    images: int
    eps: float
    norm: Norm = "linf"
    share: float = 1.0
    side: int = 8
    aim: float | None = None
    faster: Mapping[str, bool | str] = field(default_factory=lambda: FASTER)


TIMED = (
    Case("small robust CNN, 100 digits", "small_cnn", 100, 0.1, aim=1.5),
    Case("ResNet-8 with BatchNorm, 40 digits", "cifar_resnet8", 40, 0.1, aim=1.5),
    Case("small CNN, random weights, 4 images of 32×32", "small_cnn", 4, 1 / 2550, side=32),
)
LARGE = (
    Case(
        "PreAct ResNet-18, 2 images of 32×32, 1/8 of the steps",
        "preact_resnet18",
        2,
        1 / 2550,
        share=0.125,
        side=32,
        aim=1.3,
        faster=FOLDED,
    ),
)
COMPARED = tuple(
    Case("", model, 260, eps, norm, share=0.05)
    for model in ("small_cnn", "cifar_resnet8")
    for norm, radii in (("linf", (0.05, 0.1)), ("l2", (0.3, 0.6)))
    for eps in radii
)


def trained(name: str) -> nn.Module:
    """A network after eight epochs of adversarial training on digits."""
    torch.manual_seed(SEED)
    model = create_model(name, 10, in_chans=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    batches = Batches(digits()[0], Batching(64, shuffle=True))
    for epoch in range(8):
        for x, y, *_ in batches.epoch(epoch):
            raised = partial(F.cross_entropy, target=y, reduction="sum")
            attacked = pgd(model, x, raised, eps=0.1, step_size=0.05, steps=3) if epoch > 1 else x
            optimizer.zero_grad()
            F.cross_entropy(model.train()(attacked), y).backward()
            optimizer.step()
    return model.eval()


def prepare(case: Case, networks: dict[str, nn.Module]) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, images and labels of ``case``: digits, or random images that the network labels itself."""
    if case.side == 8:
        if case.model not in networks:
            networks[case.model] = trained(case.model)
        test = digits()[1].balanced(case.images)
        return networks[case.model], test.images.float() / 255, test.labels
    torch.manual_seed(SEED)
    model = create_model(case.model, 10).eval()
    x = torch.rand(case.images, 3, case.side, case.side)
    return model, x, model(x).argmax(1)


def package_attacks(model: nn.Module, case: Case) -> dict[str, Perturb]:
    """The package's attacks, by its own settings of the standard suite."""
    package = AutoAttack(model, norm=NORM_TITLES[case.norm], eps=case.eps, seed=SEED, device="cpu")
    package.apgd.loss, package.fab.targeted = "ce", True
    parts = (package.apgd, package.apgd_targeted, package.fab, package.square)
    for part in parts[:3]:
        part.n_iter = round(100 * case.share)
    for part in parts[:2]:  # lengths that its constructor derives from the steps
        part.n_iter_2, part.n_iter_min, part.size_decr = (max(int(s * part.n_iter), 1) for s in (0.22, 0.06, 0.03))
    package.square.n_queries = round(5000 * case.share)
    return {name: part.perturb for name, part in zip(AUTOATTACK, parts, strict=True)}


def our_attacks(model: nn.Module, case: Case) -> dict[str, Perturb]:
    """dkl's attacks."""
    found = {name: make_attack(name, model, norm=case.norm, eps=case.eps, seed=SEED) for name in AUTOATTACK}
    steps = round(100 * case.share)
    shares = {name: {"steps": steps, "planned": steps} for name in AUTOATTACK[:2]} | {"fab-t": {"steps": steps}}
    shares["square"] = {"queries": round(5000 * case.share)}
    return {name: partial(perturb, **shares[name]) for name, perturb in found.items()}


@dataclass
class Comparison:
    """Seconds by variant and attack, of the processor and of the clock; flags compared, and how many differ.

    ``floor`` are the seconds of dkl's passes alone.
    """

    processor: dict[str, dict[str, float]] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=lambda: dict.fromkeys(AUTOATTACK, 0.0))
    compared: int = 0
    differing: dict[str, int] = field(default_factory=dict)

    def ratio(self, variant: str, attack: str | None = None) -> float:
        """How many times the package's processor time is that of ``variant``."""
        times = (self.processor["package"], self.processor[variant])
        slow, fast = (sum(t.values()) if attack is None else t[attack] for t in times)
        return slow / fast


def _timed(call: Callable[[], Tensor]) -> Iterator[float | Tensor]:
    processor, clock = time.process_time(), time.perf_counter()
    yield call()
    yield time.process_time() - processor
    yield time.perf_counter() - clock


@torch.no_grad()
def compare(case: Case, networks: dict[str, nn.Module], variants: tuple[str, ...] = VARIANTS) -> Comparison:
    """Attack by all ``variants`` in turn, batch by batch, in AutoAttack's order."""
    with torch.enable_grad():
        model, x, y = prepare(case, networks)
    frozen = copy.deepcopy(model).requires_grad_(False)
    attacks = {"package": package_attacks(model, case), "dkl": our_attacks(frozen, case)}
    if len(variants) > 2:
        attacks[VARIANTS[2]] = our_attacks(search_model(frozen, case.faster, BATCH), case)
    found = Comparison({name: dict.fromkeys(AUTOATTACK, 0.0) for name in attacks}, dict.fromkeys(attacks, 0.0))
    found.differing = dict.fromkeys([name for name in attacks if name != "package"], 0)
    correct = model(x).argmax(1) == y
    for number, attack in enumerate(AUTOATTACK):
        kept = correct.clone()
        for chosen in correct.nonzero().squeeze(1).split(BATCH):
            flags, passes = {}, Passes(frozen)
            turn = number % len(attacks)
            for variant in [*attacks, *attacks][turn : turn + len(attacks)]:
                perturb = attacks[variant][attack]
                with passes if variant == "dkl" else nullcontext():
                    adversarial, processor, clock = _timed(partial(perturb, x[chosen], y[chosen]))
                flags[variant] = model(adversarial).argmax(1) == y[chosen]
                found.processor[variant][attack] += processor
                found.clock[variant] += clock
            kept[chosen] = flags["package"]
            found.floor[attack] += passes.floor(x[chosen])
            for variant in found.differing:
                found.differing[variant] += int((flags[variant] != flags["package"]).sum())
            found.compared += len(chosen)
        correct = kept
    return found


def run(rounds: int) -> Result:
    """Time the standard suite on small networks, then compare flags on more images."""
    return _measure("autoattack", "AutoAttack: dkl against the authors' package", TIMED, COMPARED)


def run_large(rounds: int) -> Result:
    """Time the standard suite on PreAct ResNet-18."""
    return _measure("autoattack_large", "AutoAttack on a large network", LARGE, ())


def _measure(name: str, title: str, timed_cases: tuple[Case, ...], compared: tuple[Case, ...]) -> Result:
    threads, networks = torch.get_num_threads(), dict[str, nn.Module]()
    torch.set_num_threads(1)  # processor time of several threads counts their waiting
    times: list[Row] = []
    timed: dict[str, Comparison] = {}
    for case in timed_cases:
        print(f"   {case.title}", flush=True)
        timed[case.title] = each = compare(case, networks)
        for variant in VARIANTS:
            ratios = [each.ratio(variant, name) for name in AUTOATTACK]
            differ = each.differing.get(variant, 0)
            seconds = sum(each.processor[variant].values())
            print(
                f"   {variant}: {seconds:.1f} s, speed-up {each.ratio(variant):.2f}, {differ} flags differ", flush=True
            )
            cells: Row = [seconds, each.clock[variant], each.ratio(variant), *ratios, each.compared, differ]
            times.append([f"{case.title}: {variant}", *cells])
    rows: list[Row] = []
    for case in compared:
        print(f"   flags: {case.model} {case.norm} {case.eps}", flush=True)
        each = compare(case, networks, VARIANTS[:2])
        rows.append([f"{case.model}, {case.norm}, eps {case.eps}", case.images, each.compared, each.differing["dkl"]])
    torch.set_num_threads(threads)
    rows.append(["all", *(sum(int(row[column] or 0) for row in rows) for column in (1, 2, 3))])
    columns = ["network and attacks", "CPU s", "wall s", "speed-up", *AUTOATTACK, "flags", "differing"]
    targets = [
        Target(f"package / {variant}, CPU time, {case.title}", timed[case.title].ratio(variant), case.aim)
        for variant in VARIANTS[1:]
        for case in timed_cases
        if case.aim is not None
    ]
    differing = float(rows[-1][3] or 0) + sum(each.differing["dkl"] for each in timed.values())
    targets.append(Target("flags of dkl that differ from the package's", differing, 0, at_least=False))
    notes = [
        "One thread. Speed-ups are ratios of CPU time, over all four attacks and of each. The package attacks a "
        "network whose parameters are not frozen, as its users do.",
        "The floor is the passes that dkl makes at the time of its fullest pass: what is left without any work of the "
        "attacks themselves.",
        f"Faster search: {' and '.join(timed_cases[0].faster)}; the network itself, in float32, classifies what it "
        "finds.",
        "Flags are compared after every attack, on the images that were still correct before it; those of the second "
        "table with 5 % of the steps. Images of 32×32 are random, networks on them have random weights, and their "
        "radius fools no image.",
    ]
    beside: list[Row] = [
        [f"{title}: {attack}", each.processor["package"][attack], each.processor["dkl"][attack], each.floor[attack]]
        for title, each in timed.items()
        for attack in AUTOATTACK
    ]
    tables = [
        Table("Standard AutoAttack", columns, times),
        Table("Beside the floor", ["network and attack", "package, CPU s", "dkl, CPU s", "floor, CPU s"], beside),
        Table("Flags", ["network, norm, radius", "images", "flags", "differing"], rows),
    ]
    samples = {case: [sum(each.processor[variant].values()) for variant in VARIANTS] for case, each in timed.items()}
    return Result(name, title, 1, tables[: 2 + bool(compared)], targets, notes, samples)
