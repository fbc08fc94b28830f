"""AutoAttack on a network of your own: flags per image, adversarial images, a bounded run, and a run that resumes.

    python examples/autoattack.py [images] [steps] [queries]

Needs torch and numpy only. The images are random patterns, so that nothing is downloaded: replace ``patterns`` and
``train`` by your data and network. The network must map images in [0, 1] to logits, normalization included.
"""

import sys
import tempfile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import AutoAttack

CLASSES = 5


def patterns(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images ``[count, 3, 12, 12]`` in [0, 1]: a pattern per class, and noise."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(CLASSES, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (count,), generator=generator)
    noise = torch.rand(count, 3, 12, 12, generator=generator)
    return 0.2 * means[labels] + 0.8 * noise, labels


def train(steps: int) -> nn.Module:
    """A small network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 144, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002)
    for step in range(steps):
        images, labels = patterns(64, seed=step + 2)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def main(images: int = 200, steps: int = 100, queries: int = 5000) -> None:
    """Attack the network in three ways."""
    model = train(60)
    x, y = patterns(images, seed=1)

    adversary = AutoAttack(model, norm="Linf", eps="16/255", version="standard", seed=0)
    for part in (adversary.apgd, adversary.apgd_targeted, adversary.fab):
        part.n_iter = steps  # leave these two lines out: with fewer steps it is not AutoAttack
    adversary.square.n_queries = queries
    x_adv = adversary.run_standard_evaluation(x, y, bs=50)
    print("largest change, in gray levels:", round(255 * float((x_adv - x).abs().max()), 3))
    for attack, correct in adversary.flags.items():
        print(f"{attack:8} {correct.double().mean():.2%}")
    print("warnings:", adversary.warnings or "none")

    # An interval for the accuracy, from attacks on a random sample.
    adversary.tolerance = 60
    adversary.run_standard_evaluation(x, y, bs=50)
    adversary.tolerance = None

    # Killed at any time, the same call continues.
    with tempfile.TemporaryDirectory() as folder:
        again = adversary.run_standard_evaluation(x, y, bs=50, state_path=folder)
    print("the same images:", torch.equal(again, x_adv))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
