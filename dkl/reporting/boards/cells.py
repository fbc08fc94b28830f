"""Text of budgets, methods, numbers, intervals and seeds on boards."""

from collections.abc import Sequence

from dkl.reporting.statistics.seeds import Interval, percent

NONE = "\N{EN DASH}"
"""A cell for people without a value."""


def budget_title(budget: str) -> str:
    """Return the budget as a title prints it. Budget smoke is marked as no result."""
    return "smoke: no result" if budget == "smoke" else f"budget {budget}"


def board_title(text: str, budget: str, *, part: bool) -> str:
    """Return the title of a board of ``text`` at one budget; ``part`` if it is of a part of the test set."""
    return f"{text} ({budget_title(budget)}){', part of the test set' if part else ''}"


def method_cell(method: str, *, additional_data: bool, synthetic: bool) -> str:
    """Return the method with the marks † and ‡ that the notes explain."""
    return method + ("†" if additional_data else "") + ("‡" if synthetic else "")


def interval_cell(interval: Interval | None) -> str:
    """Return an interval in percent, such as ``[30.1, 33.8]``."""
    return NONE if interval is None else "[{:.1f}, {:.1f}]".format(*(100 * bound for bound in interval))


def seeds_cell(seeds: Sequence[int | None]) -> str:
    """Return the number of seeds and their list. Weights trained elsewhere have none."""
    return NONE if not seeds or None in seeds else f"{len(seeds)} ({', '.join(map(str, seeds))})"


def plain_percent(fraction: float | None) -> str:
    """Return ``fraction`` in percent for machines, empty if None."""
    return "" if fraction is None else percent(fraction)


def plain_flag(value: bool) -> str:
    """Return ``true`` or ``false``."""
    return str(value).lower()
