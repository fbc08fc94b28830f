"""The distillation losses as their papers write them, sample by sample in float64 numpy; nothing of ``dkl`` is used."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import logsumexp

Array = NDArray[np.float64]


def log_probabilities(logits: Array, temperature: float) -> Array:
    """Logarithms of the softened softmax of one row."""
    scaled = (logits - logits.max()) / temperature
    return np.array([x - math.log(math.fsum(math.exp(y) for y in scaled)) for x in scaled])


def kl(log_p: Array, log_q: Array) -> float:
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True))


def kd(teacher: Array, student: Array, temperature: float) -> float:
    pairs = zip(teacher, student, strict=True)
    rows = [kl(log_probabilities(t, temperature), log_probabilities(s, temperature)) for t, s in pairs]
    return temperature**2 * float(np.mean(rows))


def dkd_parts(t: Array, s: Array, label: int, temperature: float) -> tuple[float, float]:
    """TCKD and NCKD of one sample, as Zhao et al. 2022 decouple KL."""
    log_p, log_q = log_probabilities(t, temperature), log_probabilities(s, temperature)
    rest = [c for c in range(len(t)) if c != label]
    binary_p, binary_q = (np.array([x[label], logsumexp(x[rest])]) for x in (log_p, log_q))
    return kl(binary_p, binary_q), kl(log_p[rest] - binary_p[1], log_q[rest] - binary_q[1])


def dkd(teacher: Array, student: Array, labels: list[int], temperature: float, alpha: float, beta: float) -> float:
    parts = [dkd_parts(t, s, y, temperature) for t, s, y in zip(teacher, student, labels, strict=True)]
    return temperature**2 * float(np.mean([alpha * tckd + beta * nckd for tckd, nckd in parts]))


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def masked_dkd(
    teacher: Array, student: Array, labels: list[int], temperature: float, alpha: float, beta: float
) -> float:
    """As mdistiller computes it: the target's logit lowered by 1000 after the temperature, logarithms last."""
    hot = np.eye(teacher.shape[1])[labels]
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    binary_p, binary_q = (np.stack([(x * hot).sum(1), (x * (1 - hot)).sum(1)], 1) for x in (p, q))
    tckd = (binary_p * (np.log(binary_p) - np.log(binary_q))).sum()
    rest_p, rest_q = softmax(teacher / temperature - 1000 * hot), softmax(student / temperature - 1000 * hot)
    nckd = math.fsum(a * math.log(a / b) for a, b in zip(rest_p.ravel(), rest_q.ravel(), strict=True) if a > 0)
    return temperature**2 * (alpha * float(tckd) + beta * nckd) / len(teacher)


def jsd(teacher: Array, student: Array, temperature: float) -> float:
    pairs = zip(softmax(teacher / temperature), softmax(student / temperature), strict=True)
    return float(np.mean([jensenshannon(p, q) ** 2 for p, q in pairs]))


def _correlation(a: Array, b: Array, eps: float) -> float:
    norms = len(a) * float(np.std(a) * np.std(b))
    return float(np.corrcoef(a, b)[0, 1]) * norms / (norms + eps) if norms else 0.0


def dist(teacher: Array, student: Array, temperature: float, beta: float, gamma: float, eps: float = 1e-8) -> float:
    """1 − Pearson's correlation, of rows and of columns; ``eps`` is added to the norms, as in the official code."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    inter = np.mean([1 - _correlation(a, b, eps) for a, b in zip(p, q, strict=True)])
    intra = np.mean([1 - _correlation(a, b, eps) for a, b in zip(p.T, q.T, strict=True)])
    return temperature**2 * float(beta * inter + gamma * intra)


def slope(function: Callable[[Array], float], at: Array, step: float = 1e-4) -> Array:
    """Gradient of ``function`` by central differences of fourth order."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(*at.shape):
        moved = []
        for k in (-2, -1, 1, 2):
            x = at.copy()
            x[index] += k * step
            moved.append(function(x))
        gradient[index] = (moved[0] - 8 * moved[1] + 8 * moved[2] - moved[3]) / (12 * step)
    return gradient
