"""Records of attacks folded to leaderboards: one a threat model and budget, one row a configuration, seeds averaged.

Nothing is averaged across budgets, attack suites, numbers of images or test sets, and nothing ranked across budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dkl.records import Record
from dkl.reporting import notes
from dkl.reporting.boards import NONE, Fold, budget_title, fold, interval_cell, marked, numbers, plain, seeds_cell
from dkl.reporting.estimates import Estimate, wilson
from dkl.reporting.formats import Table
from dkl.reporting.grouping import age, threat, weights
from dkl.reporting.names import attacks_label, display_architecture, slug

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
        return f"{self.dataset}, {self.norm}, eps = {self.eps} ({budget_title(self.budget)})"

    def table(self) -> Table:
        """For people: mean ± std in one cell, percent."""
        rows = tuple(
            (
                NONE if r.rank is None else str(r.rank),
                marked(r.method, r.additional_data, r.synthetic),
                str(r.clean),
                str(r.robust),
                interval_cell(r.interval),
                r.architecture,
                r.weights,
                self.eps,
                str(r.n),
                seeds_cell(r.seeds),
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
            seeds = " ".join(str(seed) for seed in r.seeds if seed is not None)
            rows.append(
                (
                    *("" if r.rank is None else str(r.rank), r.method, str(r.additional_data).lower()),
                    *(self.dataset, self.norm, self.eps, self.budget),
                    *numbers(r.clean, r.robust),
                    *map(plain, r.interval or (None, None)),
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
        robust=Estimate.over(_robust(records)),
    )


def _robust(records: Sequence[Record]) -> list[float]:
    return [record.robust for record in records if record.robust is not None]


def _order(records: Sequence[Record]) -> tuple[bool, float, float, str, str]:
    """AutoAttack first, then robust and clean accuracy, descending; rounded so that equal means compare equal."""
    robust, clean = Estimate.over(_robust(records)).mean, Estimate.over([record.clean for record in records]).mean
    return not records[0].is_autoattack, -round(robust, 10), -round(clean, 10), records[0].method, records[0].id


def _board(found: Fold) -> Leaderboard:
    """The board of records that share threat model and budget."""
    ranked = sum(members[0].is_autoattack and members[0].budget != "smoke" for members in found.rows)
    first = found.shown[0]
    return Leaderboard(
        dataset=first.dataset,
        norm=first.norm,
        eps=min((record.eps_text for record in found.shown), key=lambda text: (len(text), text)),
        budget=first.budget,
        rows=tuple(_row(members, place if place <= ranked else None) for place, members in enumerate(found.rows, 1)),
        notes=(*notes.of_attacks(found.shown), *found.left_out),
    )


def leaderboards(records: Sequence[Record], include_smoke: bool = False) -> list[Leaderboard]:
    """One board a (data set, norm, eps, budget); those of budget ``smoke`` only with ``include_smoke``."""
    attacked = [record for record in records if not record.accuracy_only]
    return fold(attacked, include_smoke, threat, _order, _board)
