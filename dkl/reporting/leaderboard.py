"""Records folded to leaderboards: one board a threat model and budget, one row a configuration, seeds averaged.

Nothing is averaged across budgets, attack suites, numbers of images or test sets, and nothing ranked across budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dkl.records import BUDGETS, Record
from dkl.reporting import notes
from dkl.reporting.estimates import Estimate, percent, wilson
from dkl.reporting.formats import Table
from dkl.reporting.grouping import age, group, one_seed, row, threat, weights
from dkl.reporting.names import attacks_label, display_architecture, slug

NONE = "\N{EN DASH}"

HEADER = (
    *("Rank", "Method", "Clean (%)", "Robust (%)", "95 % interval", "Architecture", "Weights", "eps", "n", "Seeds"),
    "Attack",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration: ``seeds`` in order, one evaluation each; accuracies are fractions. Rank None: unranked."""

    rank: int | None
    method: str
    architecture: str
    additional_data: bool
    synthetic: bool
    weights: str
    attacks: str
    autoattack: bool
    n: int
    seeds: tuple[int | None, ...]
    clean: Estimate
    robust: Estimate

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of the robust accuracy of a single seed; None for several."""
        return wilson(self.robust.mean, self.n) if len(self.seeds) == 1 else None


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All rows of one (data set, norm, eps, budget), best first, and what a reader must know about them."""

    dataset: str
    norm: str
    eps: str
    budget: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its file name without an ending, such as ``cifar100-Linf-eps8_255-mini``."""
        return slug(f"{self.dataset}-{self.norm}-eps{self.eps}-{self.budget}")

    @property
    def title(self) -> str:
        """The threat model and the budget; a smoke board says that it is no result."""
        budget = "smoke: no result" if self.budget == "smoke" else f"budget {self.budget}"
        return f"{self.dataset}, {self.norm}, eps = {self.eps} ({budget})"

    def table(self) -> Table:
        """For people: mean ± std in one cell, percent."""
        rows = tuple(
            (
                NONE if r.rank is None else str(r.rank),
                r.method + ("†" if r.additional_data else "") + ("‡" if r.synthetic else ""),
                str(r.clean),
                str(r.robust),
                NONE if r.interval is None else "[{:.1f}, {:.1f}]".format(*(100 * bound for bound in r.interval)),
                r.architecture,
                r.weights,
                self.eps,
                str(r.n),
                NONE if r.seeds == (None,) else f"{len(r.seeds)} ({', '.join(map(str, r.seeds))})",
                r.attacks,
            )
            for r in self.rows
        )
        return Table(title=self.title, header=HEADER, rows=rows, alignments="rlrrrllrrll", notes=self.notes)

    def data(self) -> Table:
        """For machines: one plain number a cell, percent with two decimals; empty where there is none."""
        header = (
            *("rank", "method", "additional_data", "dataset", "norm", "eps", "budget", "clean_mean", "clean_std"),
            *("robust_mean", "robust_std", "robust_low", "robust_high", "architecture", "n", "seeds", "seed_list"),
            *("attacks", "autoattack", "weights", "synthetic_data"),
        )
        rows = []
        for r in self.rows:
            accuracies = (r.clean.mean, r.clean.std, r.robust.mean, r.robust.std, *(r.interval or (None, None)))
            seeds = " ".join(str(seed) for seed in r.seeds if seed is not None)
            rows.append(
                (
                    *("" if r.rank is None else str(r.rank), r.method, str(r.additional_data).lower()),
                    *(self.dataset, self.norm, self.eps, self.budget),
                    *("" if value is None else percent(value) for value in accuracies),
                    *(r.architecture, str(r.n), str(len(r.seeds)), seeds, r.attacks, str(r.autoattack).lower()),
                    *(r.weights, str(r.synthetic).lower()),
                )
            )
        return Table(title=self.title, header=header, rows=tuple(rows), alignments="l" * len(header), notes=self.notes)


def _row(records: Sequence[Record], rank: int | None) -> Row:
    """The fold of one row; ``records`` has one evaluation a seed."""
    latest = max(records, key=age)
    return Row(
        rank=rank,
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
        robust=Estimate.over([record.robust for record in records]),
    )


def _order(records: Sequence[Record]) -> tuple[bool, float, float, str, str]:
    """AutoAttack first, then robust and clean accuracy, descending; rounded so that equal means compare equal."""
    robust, clean = (Estimate.over([getattr(record, name) for record in records]).mean for name in ("robust", "clean"))
    return not records[0].is_autoattack, -round(robust, 10), -round(clean, 10), records[0].method, records[0].id


def _board(records: Sequence[Record], smoke_left_out: int) -> Leaderboard:
    """The board of records that share threat model and budget."""
    evaluations = group(records, one_seed)
    newest = (max(again, key=age) for again in evaluations.values())
    shown = sorted(newest, key=lambda record: (record.seed is None, record.seed, record.id))
    ordered = sorted(group(shown, row).values(), key=_order)
    ranked = sum(members[0].is_autoattack and members[0].budget != "smoke" for members in ordered)
    rows = tuple(_row(members, place if place <= ranked else None) for place, members in enumerate(ordered, 1))
    first = records[0]
    return Leaderboard(
        dataset=first.dataset,
        norm=first.norm,
        eps=min((record.eps_text for record in records), key=lambda text: (len(text), text)),
        budget=first.budget,
        rows=rows,
        notes=(*notes.about(shown), *notes.left_out(evaluations.values(), smoke_left_out)),
    )


def leaderboards(records: Sequence[Record], include_smoke: bool = False) -> list[Leaderboard]:
    """One board a (data set, norm, eps, budget); those of budget ``smoke`` only with ``include_smoke``."""
    boards = group(records, lambda record: (*threat(record), BUDGETS.index(record.budget)))
    smoke = BUDGETS.index("smoke")
    return [
        _board(members, 0 if include_smoke else len(boards.get((*key[:3], smoke), ())))
        for key, members in sorted(boards.items())
        if include_smoke or key[3] != smoke
    ]
