"""Square (Andriushchenko et al. 2020): random search that needs logits only, with AutoAttack's parameters.

For Linf, one square window per query is set to plus or minus eps, and the change is kept if the margin falls. The
package draws the first perturbation per image, from its position in the batch, and all later windows once per batch.
The draws of an image therefore depend on the seed, the length of its batch and its position there, and on nothing
else. ``square`` takes both, so that any images together get the results that they have in the package.

A query that did not help an image is not repeated while the image stays the same. Small images have few windows, so
most of their later queries are such repetitions. No image waits for the queries of others: each pass has the next query
of every image that is left. A randomized network gets every query.

For L2, a query gives one window of an image the energy of another, as a bump whose signs are drawn per image that is
still correct. The draws depend on how many of the batch are left, so several batches are attacked together with a
generator each.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dkl.attacks.named import is_misclassified, margin
from dkl.threat import Norm

_FIRST_SHARE = 0.8

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After these queries the window's share of the image is halved; without the rescaling, as AutoAttack uses it."""


def _window_side(query: int, height: int, width: int) -> int:
    """The side of the window of query ``query`` (from 0), in pixels, before it is fitted into the image."""
    share = _FIRST_SHARE / 2 ** sum(query > after for after in _HALVINGS)
    return round(math.sqrt(share * height * width))


def _signs(shape: list[int], generator: torch.Generator) -> Tensor:
    return torch.sign(2 * torch.rand(shape, generator=generator) - 1)


def _offset(limit: int, generator: torch.Generator) -> int:
    return int(limit * torch.rand([1], generator=generator))


class _Draws(NamedTuple):
    """The draws of a batch: signs ``[length, C, 1, W]`` of the first perturbations, and the change of each query.

    ``changes[Q, 3 + C]`` are the top, left and side of a window, and the sign of each channel. ``repeated[Q]`` is the
    last query before that made the same change; -1 if none did.
    """

    stripes: Tensor
    changes: Tensor
    repeated: NDArray[np.int64]

    @classmethod
    def of(cls, length: int, shape: torch.Size, queries: int, seed: int) -> "_Draws":
        """The draws for ``length`` images of ``shape[C, H, W]``."""
        # On the CPU on every device, as in the package, so that all devices draw the same.
        generator = torch.Generator().manual_seed(seed)
        stripes = _signs([length, shape[0], 1, shape[2]], generator)
        # The package draws these numbers one by one.
        drawn = torch.rand([queries, 2 + shape[0]], generator=generator)
        sides = [min(max(_window_side(query, *shape[1:]), 1), *shape[1:]) for query in range(queries)]
        side = torch.tensor([float(side) for side in sides]).unsqueeze(1)
        corner = ((torch.tensor(shape[1:]) - side) * drawn[:, :2]).trunc()
        changes = torch.cat([corner, side, torch.sign(2 * drawn[:, 2:] - 1)], 1)
        last, repeated = dict[tuple[float, ...], int](), []
        for query, change in enumerate(map(tuple, changes.tolist())):
            repeated.append(last.get(change, -1))
            last[change] = query
        return cls(stripes, changes, np.array(repeated))


def _following(
    query: NDArray[np.int64], helped: NDArray[np.int64], batch: NDArray[np.int64], repeated: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The next queries ``[B]`` of images of ``batch[B]`` after ``query[B]``, if ``helped[B]`` changed them last.

    A change that did not help an image does not help it now either, unless the image has changed since. One that helped
    may help again: the sum of eps and -2 eps rounds to a number slightly above -eps.
    """
    query, queries = query + 1, repeated.shape[1]
    if not queries:
        return query
    waits = (query < queries) & (repeated[batch, np.minimum(query, queries - 1)] > helped)
    for image in np.flatnonzero(waits):
        asked = repeated[batch[image], query[image] :] <= helped[image]
        query[image] += asked.argmax() if asked.any() else queries
    return np.minimum(query, queries)


def _margins(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The label's logit minus the largest other one, ``[B]``; an image with a negative margin is misclassified.

    The margin of logits that are not finite is minus infinity.
    """
    logits = model(x)
    return (-margin(logits, y)).masked_fill_(~logits.isfinite().all(1), -torch.inf)


def _margins_of(model: nn.Module, x: Tensor, y: Tensor, known: Tensor, asked: Tensor) -> Tensor:
    """The margins ``[B]`` of the images that are ``asked[B]``, and those ``known[B]`` for the others."""
    if asked.all():
        return _margins(model, x, y)
    found = known.clone()
    chosen = asked.nonzero().squeeze(1)
    if len(chosen):
        found[chosen] = _margins(model, x[chosen], y[chosen])
    return found


def _candidates(best: Tensor, changes: Tensor, low: Tensor, high: Tensor, eps: float) -> Tensor:
    """``best[B, C, H, W]`` after ``changes[B, 3 + C]``, within ``low`` and ``high``."""
    inside = []
    for first, size in enumerate(best.shape[2:]):
        pixels, start = torch.arange(size, device=best.device), changes[:, first : first + 1]
        inside.append((pixels >= start) & (pixels < start + changes[:, 2:3]))
    window = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    step = (2.0 * eps * changes[:, 3:])[..., None, None]
    return torch.where(window, (best + step).clamp_(low, high), best)


def _square_linf(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int, places: Tensor, lengths: Tensor, queries: int
) -> Tensor:
    different, number = lengths.unique(return_inverse=True)
    draws = [_Draws.of(length, x.shape[1:], queries, seed) for length in different.tolist()]
    stripes = torch.stack(
        [draws[one].stripes[place] for one, place in zip(number.tolist(), places.tolist(), strict=True)]
    )
    changes, repeated = torch.stack([each.changes for each in draws]), np.stack([each.repeated for each in draws])
    result = (x + eps * stripes.to(x.device)).clamp_(0, 1)
    margins = _margins(model, result, y)
    # A randomized network may answer the same query in another way.
    repeats = not torch.equal(margins, _margins(model, result, y))
    remaining, best, labels, batch = torch.arange(len(x), device=x.device), result, y, number.numpy()
    low, high = (x - eps).clamp_min_(0), (x + eps).clamp_max_(1)
    query, helped = np.full(len(x), -1), np.full(len(x), queries if repeats else -1)
    while True:
        query = _following(query, helped, batch, repeated)
        going = (margins > 0).cpu().numpy() & (query < queries)
        if not going.all():
            kept = torch.from_numpy(going).to(x.device)
            remaining, best, labels, margins = remaining[kept], best[kept], labels[kept], margins[kept]
            low, high = low[kept], high[kept]
            query, helped, batch = query[going], helped[going], batch[going]
        if not len(query):
            return result
        candidates = _candidates(best, changes[batch, query].to(x.device), low, high, eps)
        # A small window often already has the sign that it gets.
        asked = (candidates != best).flatten(1).any(1) | repeats
        found = _margins_of(model, candidates, labels, margins, asked)
        better = (found < margins) | (found <= 0)
        best = torch.where(better.view(-1, 1, 1, 1), candidates, best)
        margins = torch.where(better, found, margins)
        fooled = margins <= 0
        result[remaining[fooled]] = best[fooled]
        helped = np.where(better.cpu().numpy(), np.maximum(helped, query), helped)


def _bumps(height: int, width: int) -> Tensor:
    """A bump of ``[height, width]`` with norm 1: concentric rectangles whose sums fall off as 1/k²."""
    bump = torch.zeros(height, width)
    top, left = height // 2, width // 2
    for ring in range(max(height // 2 + 1, width // 2 + 1)):
        rows, columns = (slice(max(start, 0), max(start + 2 * ring + 1, 0)) for start in (top, left))
        bump[rows, columns] += 1.0 / torch.tensor([ring + 1.0]).view(1, 1) ** 2
        top, left = top - 1, left - 1
    return bump / (bump**2).sum(dim=(0, 1), keepdim=True).sqrt()


def _double_bump(side: int, generator: torch.Generator) -> Tensor:
    """Two bumps of opposite signs in a window of ``side``, with norm 1, side by side or one above the other."""
    pair = torch.cat([_bumps(side // 2, side), -1.0 * _bumps(side - side // 2, side)])
    pair /= (pair**2).sum(dim=(0, 1), keepdim=True).sqrt()
    return pair.permute([1, 0]) if torch.rand([1], generator=generator) > 0.5 else pair


def _norms(x: Tensor) -> Tensor:
    # Rounded as in the package, whose searches follow the last digit.
    return (x**2).sum(dim=(-2, -1), keepdim=True).sqrt()


def _of_radius(delta: Tensor, eps: float) -> Tensor:
    size = (delta**2).view(len(delta), -1).sum(-1).sqrt().view(-1, 1, 1, 1)
    return delta / (size + 1e-12) * eps


def _l2_start(x: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """Tile the images with double bumps, whose sides are a fifth of the image's."""
    _, channels, height, width = x.shape
    delta, side = torch.zeros_like(x), height // 5
    margin = (height - side * 5) // 2
    for row in range(height // side):
        for column in range(width // side):
            top, left = margin + row * side, margin + column * side
            bump = _double_bump(side, generator).view(1, 1, side, side)
            tile = (bump * _signs([len(x), channels, 1, 1], generator)).to(x.device)
            delta[:, :, top : top + side, left : left + side] += tile
    return (x + _of_radius(delta, eps)).clamp_(0, 1)


def _l2_candidate(x: Tensor, best: Tensor, query: int, eps: float, generator: torch.Generator) -> Tensor:
    """The images of query ``query``: a window of ``best`` is emptied, and another one gets its energy."""
    (count, channels, height, width), delta = x.shape, best - x
    side = max(_window_side(query, height, width), 3)
    side = min(side + (side % 2 == 0), height, width)
    windows = []
    for _ in range(2):
        top, left = _offset(height - side, generator), _offset(width - side, generator)
        windows.append((..., slice(top, top + side), slice(left, left + side)))
    filled, emptied = windows
    both = torch.zeros(height, width, device=x.device)
    both[filled] = both[emptied] = 1.0
    size = (delta**2).view(count, -1).sum(-1).sqrt().view(-1, 1, 1, 1)
    energy = _norms(delta * both)
    bump = _double_bump(side, generator).view(1, 1, side, side) * _signs([count, channels, 1, 1], generator)
    bump = bump.contiguous().to(x)  # sums of a transposed bump would round in another order
    bump = bump + delta[filled] / (1e-12 + _norms(delta[filled]))
    spare = ((eps * torch.ones_like(bump)) ** 2 - size**2).clamp_min_(0)
    bump = bump / (1e-12 + _norms(bump)) * (spare / channels + energy**2).sqrt()
    delta[emptied] = 0.0
    delta[filled] = bump
    return (x + _of_radius(delta, eps)).clamp_(0, 1)


def _square_l2(
    model: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int, batches: Sequence[int], queries: int
) -> Tensor:
    """Attack AutoAttack's ``batches``, whose images follow each other in ``x``, each with draws of its own."""
    generators = [torch.Generator().manual_seed(seed) for _ in batches]
    pairs = zip(x.split(list(batches)), generators, strict=True)
    result = torch.cat([_l2_start(images, eps, generator) for images, generator in pairs])
    owners = torch.arange(len(batches)).repeat_interleave(torch.tensor(batches))
    margins = _margins(model, result, y)
    remaining = (margins > 0).nonzero().squeeze(1)
    clean, best, labels, margin = x[remaining], result[remaining], y[remaining], margins[remaining]
    for query in range(queries):
        if not len(remaining):
            break
        counts = owners[remaining.cpu()].bincount(minlength=len(batches)).tolist()
        parts = zip(clean.split(counts), best.split(counts), generators, strict=True)
        candidate = torch.cat(
            [_l2_candidate(one, held, query, eps, generator) for one, held, generator in parts if len(one)]
        )
        found = _margins(model, candidate, labels)
        better = (found < margin) | (found <= 0)
        best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
        margin = torch.where(better, found, margin)
        fooled = margin <= 0
        if fooled.any():
            result[remaining[fooled]] = best[fooled]
            kept = ~fooled
            remaining, clean, best, labels, margin = (each[kept] for each in (remaining, clean, best, labels, margin))
    return result


@torch.no_grad()
def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    norm: Norm,
    eps: float,
    seed: int,
    places: Tensor | None = None,
    lengths: Tensor | None = None,
    batches: Sequence[int] | None = None,
    queries: int = 5000,
) -> Tensor:
    """Square on ``x[B, C, H, W]``, ``y[B]``; by default the images are one of AutoAttack's batches.

    For Linf they may have the draws of the images at ``places[B]`` of batches of ``lengths[B]``. For L2 they may be
    several whole ``batches``, of these lengths. Raises ValueError for places in L2.
    """
    if norm == "l2" and (places is not None or lengths is not None):
        raise ValueError("for L2 the draws of Square depend on the whole batch: leave out places and lengths")
    if not len(x):
        return x.clone()
    # Inference mode is faster, but a model that differentiates fails in it.
    mode: type[AbstractContextManager[object]] = torch.inference_mode
    try:
        with mode():
            model(x[:1])
    except Exception:  # of any class: the model is somebody's own
        mode = torch.no_grad
    with mode():
        if norm == "l2":
            batches = [len(x)] if batches is None else batches
            found = _square_l2(model, x, y, eps=eps, seed=seed, batches=batches, queries=queries)
        else:
            places = torch.arange(len(x)) if places is None else places
            lengths = torch.full((len(x),), len(x)) if lengths is None else lengths
            found = _square_linf(model, x, y, eps=eps, seed=seed, places=places, lengths=lengths, queries=queries)
        fooled = is_misclassified(model(found), y)
    return torch.where(fooled.view(-1, 1, 1, 1), found, x)
