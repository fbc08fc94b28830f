"""Boards of entries: networks of anyone, ours, and RobustBench's published list.

There is one board per threat model and test images, so ranks compare equal images only.

Published values are claims; so are records until ``dkl verify`` has evaluated a random part of them again.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dkl.published import PublishedEntry, published_entries, published_source
from dkl.records.verification import Verification
from dkl.reporting.boards import columns, notes
from dkl.reporting.boards.board import Board
from dkl.reporting.boards.cells import plain_flag
from dkl.reporting.boards.columns import ConfigurationColumn
from dkl.reporting.boards.configuration import ConfigurationRow, average_seeds, descending
from dkl.reporting.entries import Entry
from dkl.reporting.grouping import ThreatModel, group, newest_per_seed, row_key, threat_model
from dkl.reporting.names import slug
from dkl.reporting.statistics.seeds import SeedMean

EntryBoard = Board[ConfigurationRow]

ROBUSTBENCH = "RobustBench"
CLAIMED = "claimed"

APART = (
    "These entries were evaluated on other test images than those of the first board, so they are ranked among "
    "themselves only."
)

NOTES = (
    "Clean accuracy, and robust accuracy after standard AutoAttack, in percent of n test images. Published rows have "
    "the lowest robust accuracy that RobustBench lists.",
    "Verified: a random part of the images was evaluated again by dkl verify, and at most this share of the flags can "
    "differ, with 95 % confidence. Claimed: not verified here.",
)


@dataclass(frozen=True, kw_only=True)
class EntryFilter:
    """Which rows of the boards of entries are shown; None shows all.

    ``architecture`` is a part of the name, ``extra`` whether real images of other datasets were used.
    """

    dataset: str | None = None
    norm: str | None = None
    eps: float | None = None
    architecture: str | None = None
    extra: bool | None = None
    verified: bool | None = None

    def has_board(self, key: ThreatModel) -> bool:
        """Whether the board of a dataset, norm and radius is shown."""
        dataset, norm, eps = key
        return (
            self.dataset in (None, dataset)
            and (self.norm is None or self.norm.lower() == norm.lower())
            and (self.eps is None or abs(self.eps - eps) < 1e-6)
        )

    def has_row(self, row: ConfigurationRow) -> bool:
        """Whether ``row`` is shown."""
        return (
            (self.architecture is None or self.architecture.lower() in row.architecture.lower())
            and self.extra in (None, row.additional_data)
            and self.verified in (None, row.status != CLAIMED)
        )


def entry_boards(entries: Sequence[Entry], shown: EntryFilter | None = None) -> list[EntryBoard]:
    """Build the boards of each threat model with the rows of ``shown``; ranks are those of all rows.

    Entries on other test images than most have a board of their own.

    There is none if all entries are unverified runs of ours and nothing was published: a leaderboard shows them. The
    boards of a dataset that is asked for are shown without entries too if RobustBench has any.
    """
    shown = shown or EntryFilter()
    found: dict[ThreatModel, list[Entry]] = group(entries, lambda entry: threat_model(entry.record))
    keys = [key for key in found if _joined(found[key]) or _beside(key)]
    keys += _published_keys(shown.dataset, known=found)
    boards = (_boards(key, found.get(key, []), shown) for key in sorted(keys) if shown.has_board(key))
    return [board for same in boards for board in same if board.rows]


def _joined(entries: Sequence[Entry]) -> bool:
    """Whether an entry is verified, or of somebody else."""
    return any(entry.verification or entry.source or entry.record.seed is None for entry in entries)


def _beside(key: ThreatModel) -> list[PublishedEntry]:
    """The published evaluations of a threat model."""
    return [each for each in published_entries() if _alike((each.dataset, each.norm, each.eps), key)]


def _alike(one: ThreatModel, other: ThreatModel) -> bool:
    # Some models were trained for 0.031, which RobustBench lists under 8/255.
    return one[:2] == other[:2] and abs(one[2] - other[2]) < 1e-3


def _published_keys(dataset: str | None, known: Iterable[ThreatModel]) -> list[ThreatModel]:
    """The threat models of the published evaluations of ``dataset`` that are not ``known``."""
    found: list[ThreatModel] = []
    for each in published_entries():
        key = (each.dataset, each.norm, round(each.eps, 9))
        if each.dataset == dataset and not any(_alike(key, other) for other in (*known, *found)):
            found.append(key)
    return found


def _boards(key: ThreatModel, entries: Sequence[Entry], shown: EntryFilter) -> Iterator[EntryBoard]:
    """Yield the board of the images of most entries, ours first, with the published list, then those of other images.

    The published list does not say which images were used, so their number must be equal.
    """
    beside = _beside(key)
    by_images = sorted(
        group(entries, lambda entry: (entry.record.n, entry.record.data_sha256)).values(),
        key=lambda same: (sum(entry.source is None for entry in same), len(same)),
        reverse=True,
    )
    main = next((same for same in by_images if not beside or same[0].record.n == beside[0].n), [])
    yield _board(key, main, beside, shown)
    for same in by_images:
        if same is not main:
            images = same[0].record.data_sha256[:8]
            board = _board(key, same, [], shown)
            title, name = f"{board.title}, test images {images}", slug(f"{board.name}-images-{images}")
            yield replace(board, name=name, title=title, notes=(APART, *board.notes))


def _board(
    key: ThreatModel, entries: Sequence[Entry], beside: Sequence[PublishedEntry], shown: EntryFilter
) -> EntryBoard:
    dataset, norm, eps = key
    verified = {entry.record.id: entry.verification for entry in entries}
    averaged = [
        (average_seeds(newest_per_seed(entry.record for entry in same)), same[0].source)
        for same in group(entries, _row).values()
    ]
    rows = [replace(row, status=_status(row, verified), source=source) for row, source in averaged]
    equal = _equal_weights(rows, {entry.record.id: entry.record.checkpoint_sha256 for entry in entries})
    rows += [_published(each) for each in beside]
    rows.sort(key=lambda row: (descending(row.means["robust"]), descending(row.means["clean"]), row.method))
    ranked = [replace(row, rank=place) for place, row in enumerate(rows, 1)]
    texts = [entry.record.eps_text for entry in entries] or [min(beside, key=lambda e: abs(e.eps - eps)).eps_text]
    text = min(texts, key=lambda text: (len(text), text))
    provenance = notes.provenance_notes([entry.record for entry in entries]) if entries else []
    source = [f"Source {ROBUSTBENCH}: {published_source()}."] if beside else []
    return EntryBoard(
        name=slug(f"entries-{dataset}-{norm}-eps{text}"),
        title=f"{dataset}, {norm}, eps = {text}: entries of anyone",
        budget=None,
        columns=_columns(dataset, norm, text),
        rows=tuple(filter(shown.has_row, ranked)),
        notes=(*NOTES, *equal, *source, *provenance),
    )


def _row(entry: Entry) -> tuple[Hashable, ...]:
    """Return what the entries of a row share; it mixes neither sources nor names of weights trained elsewhere."""
    record = entry.record
    return *row_key(record), entry.source, record.method.lower() if record.seed is None else ""


def _equal_weights(rows: Sequence[ConfigurationRow], weights: Mapping[str, str]) -> list[str]:
    """Name the networks that have the weights of another one; ``weights`` are hashes by record."""
    named = [(weights[name], f"{row.method} ({row.source or 'here'})") for row in rows for name in row.record_ids]
    same = {sha: sorted({name for _, name in pairs}) for sha, pairs in group(named, lambda pair: pair[0]).items()}
    return [f"Equal weights (sha256 {sha[:8]}): {', '.join(names)}." for sha, names in same.items() if len(names) > 1]


def _status(row: ConfigurationRow, found: Mapping[str, Verification | None]) -> str:
    """Return ``verified, ≤ 0.4 %`` if every record of ``row`` was verified, else ``claimed``."""
    checks = [found[name] for name in row.record_ids]
    bounds = [check.bound for check in checks if check is not None and check.agrees]
    return f"verified, ≤ {100 * max(bounds):.1f} %" if len(bounds) == len(checks) else CLAIMED


def _published(entry: PublishedEntry) -> ConfigurationRow:
    return ConfigurationRow(
        method=entry.id,
        architecture=entry.architecture,
        additional_data=entry.additional_data,
        synthetic=False,
        attacks="AutoAttack",
        autoattack=True,
        n=entry.n,
        test_images=entry.n,
        means={"clean": SeedMean(entry.clean, None), "robust": SeedMean(entry.robust, None)},
        source=ROBUSTBENCH,
        status=CLAIMED,
    )


def _columns(dataset: str, norm: str, eps: str) -> tuple[ConfigurationColumn, ...]:
    extra = ConfigurationColumn(header="Extra data", cell=lambda row: "yes" if row.additional_data else "no")
    status = ConfigurationColumn(
        header="Status",
        cell=lambda row: row.status,
        data={"verified": lambda row: plain_flag(row.status != CLAIMED), "status": lambda row: row.status},
    )
    source = ConfigurationColumn(
        header="Source", cell=lambda row: row.source or "here", data={"source": lambda row: row.source or "here"}
    )
    return (
        columns.RANK,
        columns.METHOD,
        columns.constants(dataset=dataset, norm=norm, eps=eps),
        columns.mean_column("Clean (%)", "clean", "clean"),
        columns.mean_column("Robust (%)", "robust", "robust", essential=True),
        columns.INTERVAL,
        columns.interval_data("robust"),
        columns.IMAGES,
        columns.ARCHITECTURE,
        extra,
        status,
        source,
        columns.SEEDS,
    )
