"""Wilson's interval of a fraction."""

Interval = tuple[float, float]


def wilson(fraction: float, n: int) -> Interval:
    """Return Wilson's 95 % interval of a ``fraction`` observed on ``n`` images.

    It holds every p with |fraction - p| <= z·sqrt(p(1 - p)/n), where z is the 97.5 % quantile of the normal.
    """
    from scipy import stats  # here, because it takes a second to import

    # A record has the fraction, not the count: rounding recovers it exactly.
    low, high = stats.binomtest(round(fraction * n), n).proportion_ci(0.95, method="wilson")
    return float(low), float(high)
