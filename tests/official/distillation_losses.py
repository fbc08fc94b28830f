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


def standardized(logits: Array) -> Array:
    """Logit standardization, row by row."""
    return np.array([(row - row.mean()) / (1e-7 + np.std(row, ddof=1)) for row in logits])


def ttm(teacher: Array, student: Array, weight: float, power: float, by_sum: bool) -> float:
    """TTM, and WTTM if ``by_sum``: powers of the teacher's probabilities (zkxufo/TTM fe457b3)."""
    rows = []
    for p, log_q in zip(softmax(teacher), np.log(softmax(student)), strict=True):
        powers = p**power
        target = powers / powers.sum()
        rows.append((powers.sum() if by_sum else 1.0) * float((target * (np.log(target) - log_q)).sum()))
    return weight * float(np.mean(rows))


def normkd(teacher: Array, student: Array, weight: float, temperature: float) -> float:
    """NormKD (gizi1/NormKD 279371b): logits over their deviation, the divergence times the teacher's temperature²."""
    rows = []
    for t, s in zip(teacher, student, strict=True):
        hot, cold = (temperature * np.std(x, ddof=1) for x in (t, s))
        p, q = softmax(t / hot), softmax(s / cold)
        rows.append(hot**2 * float((p * np.log(p / q)).sum()))
    return weight * float(np.mean(rows))


def abkd(teacher: Array, student: Array, weight: float, alpha: float, beta: float, temperature: float) -> float:
    """The α-β-divergence (ghwang-s/abkd df81318); its limits have 1/α² in place of that code's 1/α."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    if alpha == 0 and beta == 0:
        terms = 0.5 * np.log(q / p) ** 2
    elif beta == 0:
        terms = (p**alpha * np.log(p**alpha / q**alpha) - p**alpha + q**alpha) / alpha**2
    elif alpha == 0:
        terms = (q**beta * np.log(q**beta / p**beta) - q**beta + p**beta) / beta**2
    else:
        both = alpha + beta
        terms = -(p**alpha * q**beta - alpha / both * p**both - beta / both * q**both) / (alpha * beta)
    return weight * float(terms.sum(1).mean())


def wkd(
    teacher: Array,
    student: Array,
    labels: list[int],
    distances: Array,
    weight: float,
    temperature: float,
    sharpness: float,
    smoothing: float,
    iterations: int,
    least: float = 1e-8,
) -> float:
    """WKD-L (JiamingLv/WKD 214cf88), each sample with its own costs; ``least`` is added to Sinkhorn's products."""
    rows = []
    for t, s, y in zip(teacher, student, labels, strict=True):
        rest = [c for c in range(len(t)) if c != y]
        cost = np.maximum(1 - np.exp(-sharpness * distances[np.ix_(rest, rest)]), 0) + 1e-8
        kernel, q, p = np.exp(-cost / smoothing), softmax(s[rest] / temperature), softmax(t[rest] / temperature)
        u = np.full(len(rest), 1 / len(rest))
        for _ in range(iterations):
            v = p / (kernel.T @ u + least)
            u = q / (kernel @ v + least)
        flow = u[:, None] * kernel * v[None, :]
        rows.append(weight * float((flow * cost).sum()) - softmax(t)[y] * math.log(softmax(s)[y]))
    return float(np.mean(rows))


def linear_cka(x: Array, y: Array) -> float:
    """Linear CKA of the features of two classes, ``[n, D]`` each."""
    x, y = x - x.mean(0), y - y.mean(0)
    return float(np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)))


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
