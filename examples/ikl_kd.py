"""Distillation with IKL in one file: copy it, and replace ``load`` and the networks by your own.

    python ikl_kd.py                                           # scikit-learn's digits, seconds on a CPU
    python ikl_kd.py --data cifar100 --epochs 240 --lr 0.05 --batch-size 64 --device cuda     # torchvision's CIFAR-100

Needs torch and NumPy. The official recipe of Table 13: the loss on the teacher's logits rises over the first twelfth of
training, and its weights are the teacher's softmax at temperature 100, per sample. The program trains a teacher, a
student alone and a student with the teacher. tests/test_examples.py compares the weights with those of `dkl train`.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SETTINGS = {"data": "digits", "device": "cpu", "seed": 0, "epochs": 40, "batch_size": 64, "lr": 0.01}
SETTINGS |= {"wmse": 8.0, "ce": 1.0}  # the paper's alpha and beta, for ResNet-32x4 to ResNet-8x4


def ikl(teacher: Tensor, student: Tensor, *, wmse: float, ce: float) -> Tensor:
    """IKL of logits [B, C]: weighted MSE over all pairs of classes, in O(B·C), and soft-label cross-entropy.

    With d = teacher − student the first is ½ Σ w (d − Σ w d)², for weights w that sum to 1. The second has temperature
    4 on both sides, and no factor T².
    """
    weights, d = (teacher / 100).softmax(1), teacher - student
    d = d - (weights * d).sum(1, keepdim=True)
    return wmse * 0.5 * (weights * d * d).sum(1).mean() + ce * F.cross_entropy(student / 4, (teacher / 4).softmax(1))


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


def train(model: nn.Module, images: Tensor, labels: Tensor, args: Namespace, teacher: nn.Module | None = None) -> None:
    """Train ``model`` on uint8 ``images[N, C, H, W]``, with the frozen ``teacher`` if there is one."""
    like = next(model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    for epoch in range(1, args.epochs + 1):
        passed = sum(epoch > share * args.epochs for share in (0.625, 0.75, 0.875))
        optimizer.param_groups[0]["lr"] = args.lr * 0.1**passed
        ramp = min(epoch / max(round(args.epochs / 12), 1), 1.0)
        for x, y in batches(images, labels, epoch, args):
            x, y = x.to(like).div(255), y.to(like.device)
            student = model.train()(x)
            loss = F.cross_entropy(student, y)
            if teacher is not None:
                with torch.no_grad():
                    target = teacher.eval()(x)
                loss = loss + ramp * ikl(target, student, wmse=args.wmse, ce=args.ce)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Accuracy on uint8 ``images``."""
    like = next(model.eval().parameters())
    right = [
        (model(x.to(like).div(255)).argmax(1).cpu() == y).sum()
        for x, y in zip(images.split(500), labels.split(500), strict=True)
    ]
    return float(sum(right)) / len(labels)


def load(name: str) -> tuple[list[nn.Module], list[tuple[Tensor, Tensor]]]:
    """A teacher and two equal students; training and test set, each uint8 images [N, C, H, W] and labels [N]."""
    if name == "digits":
        from sklearn.datasets import load_digits

        images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
        images, test = (images * (255 / 16)).round().byte().view(-1, 1, 8, 8), torch.arange(len(labels)) % 5 == 4
        return [small_cnn(w) for w in (32, 2, 2)], [(images[part], labels[part]) for part in (~test, test)]
    from torchvision import datasets, models

    sets = [getattr(datasets, name.upper())("data", train=training, download=True) for training in (True, False)]
    networks = [make(num_classes=len(sets[0].classes)) for make in (models.resnet50, models.resnet18, models.resnet18)]
    for model in networks:
        model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return networks, [(torch.from_numpy(s.data).permute(0, 3, 1, 2), torch.tensor(s.targets)) for s in sets]


def small_cnn(width: int) -> nn.Module:
    """Two convolutions for digits 1×8×8."""
    layers = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(32 * width, 10))


def main() -> None:
    parser = ArgumentParser(description=__doc__.partition(":")[0])
    for name, default in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    (teacher, alone, student), (training, testing) = load(args.data)
    student.load_state_dict(alone.state_dict())
    for name, model, guide in (("teacher", teacher, None), ("alone", alone, None), ("distilled", student, teacher)):
        train(model.to(args.device), *training, args, guide)
        print(f"{name}: {accuracy(model, *testing):.2%}")


if __name__ == "__main__":
    main()
