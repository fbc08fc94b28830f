"""Records of attacks folded to leaderboards: one a threat model and budget, one row a configuration, seeds averaged.

Nothing is averaged across budgets, attack suites, numbers of images or test sets, and nothing ranked across budgets.
Published rows stand beside ours of budget paper alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dkl.records import Record
from dkl.reporting.boards import notes
from dkl.reporting.boards.base import NONE, Fold, budget_title, fold, interval_cell, marked, numbers, plain, seeds_cell
from dkl.reporting.formats.table import Spec, TextTable, tabulated
from dkl.reporting.grouping import Threat, age, threat, weights
from dkl.reporting.names import attacks_label, display_architecture, slug
from dkl.reporting.statistics.estimates import Estimate, Interval, around


@dataclass(frozen=True, kw_only=True)
class LeaderboardRow:
    """One configuration: ``seeds`` in order, one evaluation each, whose ids are ``records``; accuracies are fractions.

    Rank None: unranked. ``interval`` is the 95 % one of ``robust``. A published row has a ``source``, and neither
    seeds, records nor an interval.
    """

    rank: int | None
    method: str
    architecture: str
    additional_data: bool
    synthetic: bool
    weights: str
    attacks: str
    autoattack: bool
    n: int | None
    seeds: tuple[int | None, ...]
    records: tuple[str, ...]
    clean: Estimate
    robust: Estimate
    interval: Interval | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All rows of one (data set, norm, eps, budget), best first, and what a reader must know about them."""

    dataset: str
    norm: str
    eps: str
    budget: str
    rows: tuple[LeaderboardRow, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file name without an ending, such as ``cifar100-Linf-eps8_255-mini``."""
        return slug(f"{self.dataset}-{self.norm}-eps{self.eps}-{self.budget}")

    @property
    def title(self) -> str:
        """The threat model and the budget; a smoke board says that it is no result."""
        return f"{self.dataset}, {self.norm}, eps = {self.eps} ({budget_title(self.budget)})"

    def _columns(self) -> list[Spec[LeaderboardRow]]:
        """Header, alignment and cell of every column; the source is left out where no row is published."""
        cited = any(r.source for r in self.rows)
        return [
            ("Rank", "r", lambda r: NONE if r.rank is None else str(r.rank)),
            ("Method", "l", lambda r: marked(r.method, r.additional_data, r.synthetic)),
            ("Clean (%)", "r", lambda r: str(r.clean)),
            ("Robust (%)", "r", lambda r: str(r.robust)),
            ("95 % interval", "r", lambda r: interval_cell(r.interval)),
            ("Architecture", "l", lambda r: r.architecture),
            ("Weights", "l", lambda r: r.weights),
            ("eps", "r", lambda r: self.eps),
            ("n", "r", lambda r: NONE if r.n is None else str(r.n)),
            ("Seeds", "l", lambda r: seeds_cell(r.seeds)),
            ("Attack", "l", lambda r: r.attacks),
            *([("Source", "l", lambda r: r.source or "ours")] if cited else []),
        ]

    def table(self) -> TextTable:
        """For people: mean ± std in one cell, percent."""
        records = tuple(r.records for r in self.rows)
        return tabulated(self._columns(), self.rows, title=self.title, notes=self.notes, records=records)

    def data(self) -> TextTable:
        """For machines: one plain number a cell, percent with two decimals; empty where there is none."""
        header = (
            *("rank", "method", "additional_data", "dataset", "norm", "eps", "budget", "clean_mean", "clean_std"),
            *("robust_mean", "robust_std", "robust_low", "robust_high", "architecture", "n", "seeds", "seed_list"),
            *("attacks", "autoattack", "weights", "synthetic_data", "source"),
        )
        rows = []
        for r in self.rows:
            seeds = " ".join(str(seed) for seed in r.seeds if seed is not None)
            rows.append(
                (
                    *("" if r.rank is None else str(r.rank), r.method, str(r.additional_data).lower()),
                    *(self.dataset, self.norm, self.eps, self.budget),
                    *numbers(r.clean, r.robust),
                    *map(plain, r.interval or (None, None)),
                    *(r.architecture, str(r.n or ""), str(len(r.seeds) or ""), seeds),
                    *(r.attacks, str(r.autoattack).lower(), r.weights, str(r.synthetic).lower(), r.source or ""),
                )
            )
        return TextTable(
            title=self.title, header=header, rows=tuple(rows), alignments="l" * len(header), notes=self.notes
        )


def _row(records: Sequence[Record]) -> LeaderboardRow:
    """The fold of one row, still unranked; ``records`` has one evaluation a seed."""
    latest = max(records, key=age)
    robust = [record.robust for record in records if record.robust is not None]
    return LeaderboardRow(
        rank=None,
        method=latest.method,
        architecture=display_architecture(latest.architecture),
        additional_data=any(record.additional_data for record in records),
        synthetic=any(record.synthetic for record in records),
        weights=NONE if latest.seed is None else weights(latest),
        attacks=attacks_label(latest),
        autoattack=latest.is_autoattack,
        n=latest.n,
        seeds=tuple(record.seed for record in records),
        clean=Estimate.over([record.clean for record in records]),
        robust=Estimate.over(robust),
        interval=around(robust, latest.n),
        records=tuple(record.id for record in records),
    )


def _order(found: LeaderboardRow) -> tuple[bool, float, float]:
    """AutoAttack first, then robust and clean accuracy, descending; rounded so that equal means compare equal."""
    return not found.autoattack, -round(found.robust.mean, 10), -round(found.clean.mean, 10)


def _board(found: Fold, published: Mapping[Threat, Sequence[LeaderboardRow]]) -> Leaderboard:
    """The board of records that share threat model and budget."""
    first = found.shown[0]
    beside = published.get(threat(first), ()) if first.budget == "paper" else ()
    rows = sorted([*map(_row, found.rows), *beside], key=_order)
    ranked = 0 if first.budget == "smoke" else sum(row.autoattack for row in rows)
    return Leaderboard(
        dataset=first.dataset,
        norm=first.norm,
        eps=min((record.eps_text for record in found.shown), key=lambda text: (len(text), text)),
        budget=first.budget,
        rows=tuple(replace(row, rank=place if place <= ranked else None) for place, row in enumerate(rows, 1)),
        notes=(*notes.of_attacks(found.shown), *([notes.PUBLISHED] if beside else []), *found.left_out),
    )


def leaderboards(
    records: Sequence[Record],
    include_smoke: bool = False,
    published: Mapping[Threat, Sequence[LeaderboardRow]] | None = None,
) -> list[Leaderboard]:
    """One board a (data set, norm, eps, budget); those of budget ``smoke`` only with ``include_smoke``.

    Those of budget ``paper`` have the ``published`` rows of their threat model as well.
    """
    attacked = [record for record in records if not record.accuracy_only]
    return fold(
        attacked,
        include_smoke,
        threat,
        lambda members: (*_order(_row(members)), members[0].method, members[0].id),
        lambda found: _board(found, published or {}),
    )
