"""Adversarial training with IKL in one file: copy it, and replace ``load`` by your own network and data.

    python ikl_at.py                                                        # scikit-learn's digits, on a CPU
    python ikl_at.py --data cifar10 --epochs 200 --lr 0.2 --device cuda     # torchvision's CIFAR-10

The official recipe on one device: a radius that grows with the epoch, 5 attack steps of half of it on IKL, AWP, a class
prior (mean predictions of the epoch before) and averaged weights. Tests compare it with `dkl train recipe=official`.
"""

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SETTINGS = {"data": "digits", "device": "cpu", "seed": 0, "epochs": 60, "batch_size": 128, "lr": 0.1}
# The paper's alpha, beta and tau (official --beta, --alpha, --T); size and first epoch of AWP.
SETTINGS |= {"wmse": 20.0, "ce": 5.0, "temperature": 4.0, "awp": 0.005, "awp_start": 10}


def ikl(natural: Tensor, adversarial: Tensor, weights: Tensor, *, wmse: float, ce: float) -> Tensor:
    """IKL of logits [B, C]: weighted MSE over all pairs of classes, in O(B·C), and soft-label cross-entropy.

    ``weights[B, C]`` are rows of the class prior, which sum to 1: with d = natural − adversarial, ½ Σ w (d − Σ w d)².
    """
    d = natural - adversarial
    d = d - (weights * d).sum(1, keepdim=True)
    return wmse * 0.5 * (weights * d * d).sum(1).mean() + ce * F.cross_entropy(adversarial, natural.detach().softmax(1))


def pgd(model: nn.Module, x: Tensor, start: Tensor, raised: Callable, eps: float, step: float, steps: int) -> Tensor:
    """Images in [0, 1] within eps (Linf) of ``x`` that raise ``raised(logits)``: ``steps`` steps from ``start``."""
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    for _ in range(steps):
        start = start.detach().requires_grad_()
        start = (start + step * torch.autograd.grad(raised(model(start)), start)[0].sign()).clamp(low, high)
    return start.detach()


@contextmanager
def perturbed(model: nn.Module, both: Callable[[], list[Tensor]], gamma: float) -> Iterator[None]:
    """AWP: add γ · ‖w‖ · g / ‖g‖ to each weight tensor w with gradient g inside; the optimizer's step remains."""
    weights = [w for name, w in model.named_parameters() if "weight" in name and w.ndim > 1]
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in norms:  # this forward pass must not move BatchNorm's statistics
        module.track_running_stats = False
    gradients = torch.autograd.grad(both()[0], weights)
    for module in norms:
        module.track_running_stats = True
    weights = [w.detach() for w in weights]  # shares memory
    change = [g * (gamma * w.norm() / g.norm().clamp(min=1e-30)) for w, g in zip(weights, gradients, strict=True)]
    torch._foreach_add_(weights, change)
    yield
    torch._foreach_sub_(weights, change)


def batches(images: Tensor, labels: Tensor, epoch: int, args: Namespace) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of uint8 ``images``; those with colors are cropped at random and mirrored."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence((args.seed, epoch)).generate_state(1)[0]))
    for index in torch.randperm(len(images), generator=generator).split(args.batch_size):
        x = images[index]
        if x.shape[1] == 3:
            windows = F.pad(x, (4, 4, 4, 4)).unfold(2, x.shape[2], 1).unfold(3, x.shape[3], 1)
            down, right = torch.randint(9, (2, len(x)), generator=generator)
            x = windows[torch.arange(len(x)), :, down, right]
            x = torch.where((torch.rand(len(x), generator=generator) < 0.5).view(-1, 1, 1, 1), x.flip(-1), x)
        yield x, labels[index]


def loss_and_natural(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, w: Tensor, args: Namespace) -> list[Tensor]:
    adversarial, natural = model.train()(x_adv), model(x)
    return [F.cross_entropy(natural, y) + ikl(natural, adversarial, w, wmse=args.wmse, ce=args.ce), natural]


def train(model: nn.Module, images: Tensor, labels: Tensor, eps: float, args: Namespace) -> nn.Module:
    """Train ``model`` on uint8 ``images[N, C, H, W]``; returns a copy with the weights averaged over epochs."""
    like, classes = next(model.parameters()), int(labels.max()) + 1
    prior, noise = like.new_full((classes, classes), 1 / classes), torch.Generator(like.device).manual_seed(args.seed)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    for epoch in range(1, args.epochs + 1):
        optimizer.param_groups[0]["lr"] = args.lr * 0.5 * (1 + math.cos(math.pi * epoch / (args.epochs + 1)))
        sums, radius = torch.zeros_like(prior), eps * epoch / args.epochs
        for x, y in batches(images, labels, epoch, args):
            x, y = x.to(like).div(255), y.to(like.device)
            raised = partial(ikl, model.eval()(x).detach(), weights=prior[y], wmse=1.0, ce=1.0)
            start = x + 0.001 * torch.randn(x.shape, generator=noise, device=x.device, dtype=x.dtype)
            x_adv = pgd(model, x, start, raised, radius, radius / 2, 5)
            both = partial(loss_and_natural, model, x, x_adv, y, prior[y], args)
            with perturbed(model, both, args.awp) if args.awp and epoch >= args.awp_start else nullcontext():
                loss, natural = both()
                sums.index_add_(0, y, (natural.detach() / args.temperature).softmax(1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        prior = torch.where(sums.any(1, keepdim=True), F.normalize(sums, p=1, dim=1), prior)  # means of each class
        average.update_parameters(model)
        print(f"epoch {epoch}/{args.epochs}: loss {loss.item():.3f}")
    return average.module


def accuracies(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> list[float]:
    """Accuracy on natural images, and under PGD-20: 20 steps of eps/4 on the cross-entropy, from a uniform start."""
    like, right = next(model.eval().parameters()), torch.zeros(2)
    noise = torch.Generator(like.device).manual_seed(0)
    for x, y in zip(images.split(500), labels.split(500), strict=True):
        x, y = x.to(like).div(255), y.to(like.device)
        start = x + eps * (2 * torch.rand(x.shape, generator=noise, device=x.device, dtype=x.dtype) - 1)
        x_adv = pgd(model, x, start.clamp(0, 1), lambda logits, y=y: F.cross_entropy(logits, y), eps, eps / 4, 20)
        right += torch.stack([(model(shown).argmax(1) == y).sum() for shown in (x, x_adv)]).cpu()
    return (right / len(labels)).tolist()


def load(name: str) -> tuple[nn.Module, list[tuple[Tensor, Tensor]], float]:
    """A network, training and test set, each uint8 images [N, C, H, W] and labels [N], and eps."""
    if name == "digits":
        from sklearn.datasets import load_digits

        images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
        images, test = (images * (255 / 16)).round().byte().view(-1, 1, 8, 8), torch.arange(len(labels)) % 5 == 4
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)]
        return nn.Sequential(*layers), [(images[part], labels[part]) for part in (~test, test)], 0.1
    from torchvision import datasets, models

    sets = [getattr(datasets, name.upper())("data", train=training, download=True) for training in (True, False)]
    model = models.resnet18(num_classes=len(sets[0].classes))
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return model, [(torch.from_numpy(s.data).permute(0, 3, 1, 2), torch.tensor(s.targets)) for s in sets], 8 / 255


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition(":")[0])
    for name, default in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    model, (training, testing), eps = load(args.data)
    average = train(model.to(args.device), *training, eps, args)
    print("natural {:.2%}, PGD-20 {:.2%}".format(*accuracies(average, *testing, eps)))


if __name__ == "__main__":
    main()
