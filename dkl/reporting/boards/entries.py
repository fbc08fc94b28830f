"""Entries: networks of anyone, ours, and RobustBench's published list, on one board per threat model and test images.

An entry is a record of standard AutoAttack on the whole test set, of weights trained elsewhere or of a run of budget
own or paper. Every entry has its flags beside it: a record that contradicts them is left out when it is read. Ranks
compare equal images only. Published values are claims; so are records until ``dkl verify`` has evaluated a random part
of them again.

Leaderboards of budget ``paper`` also show published values: those of manifests that name RobustBench's entries.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dkl.errors import UserError
from dkl.manifests import Manifest
from dkl.published import PublishedEntry, published_entries, published_source
from dkl.records import Record, load_all
from dkl.records.storage import TEST_IMAGES
from dkl.records.verification import Verification, load_verification
from dkl.reporting import grouping
from dkl.reporting.boards import NONE, constants, leaderboards, notes, plain_flag
from dkl.reporting.statistics import SeedMean
from dkl.threat import AUTOATTACK, parse_attacks

ROBUSTBENCH = "RobustBench"
"""Source of the published list. In manifests, RobustBench's model id follows."""

RADIUS = 8 / 255
"""The Linf radius of RobustBench's CIFAR leaderboards, in [0, 1] pixel units."""

CLAIMED = "claimed"

NOTES = (
    "Clean accuracy, and robust accuracy after standard AutoAttack, in percent of n test images. Published rows have "
    "the lowest robust accuracy that RobustBench lists.",
    "Verified: a random part of the images was evaluated again by dkl verify, and at most this share of the flags can "
    "differ, with 95 % confidence. Claimed: not verified here.",
)


@dataclass(frozen=True)
class Entry:
    """A record with its verification, None if there is none, and its ``source``: None for the results folder itself."""

    record: Record
    verification: Verification | None
    source: str | None = None


def load_entries(results: Path, folders: Sequence[Path] = ()) -> tuple[list[Entry], list[str]]:
    """Read the entries of ``results`` and of other ``folders`` of records, with the verifications in ``results``.

    Also returns one message per file or entry that is left out. An id of a second folder that exists already is left
    out unless it is the same record.
    """
    own, _ = grouping.load_with_reference(results)  # whoever makes tables reports its problems
    read: list[tuple[Record, Path, str | None]] = [(record, results / "records", None) for record in own]
    problems: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"records={folder} is no folder: give folders with records, such as results/records")
        records, broken = load_all(folder)
        problems += broken
        read += [(record, folder, folder.resolve().parent.name) for record in records]
    entries: list[Entry] = []
    known: dict[str, Record] = {}
    for record, folder, source in read:
        whole = not record.partial and record.n == TEST_IMAGES.get(record.dataset, record.n)
        comparable = record.budget in ("own", "paper") and not grouping.is_reference(record)
        if not (record.is_autoattack and record.bound is None and whole and comparable):
            continue
        if (first := known.setdefault(record.id, record)) is not record:
            if first != record:
                problems.append(f"{folder / record.id}.json: the id is taken by another record; evaluate it again")
            continue
        try:
            entries.append(Entry(record, load_verification(record, results), source))
        except UserError as error:
            problems.append(str(error))
            entries.append(Entry(record, None, source))
    return _without_taken_names(entries, problems), problems


def _without_taken_names(entries: Iterable[Entry], problems: list[str]) -> list[Entry]:
    """Leave out entries whose name and architecture another network had before, under the same threat model."""
    kept: list[Entry] = []
    named = grouping.group(
        entries, lambda e: (*grouping.threat_model(e.record), e.record.method.lower(), e.record.architecture.lower())
    )
    for same in named.values():
        oldest = min(same, key=lambda entry: grouping.created_at(entry.record)).record
        for entry in same:
            record = entry.record
            # Settings of a run may differ under one label, but somebody else's weights need a name of their own.
            if record.row == oldest.row or (record.seed is not None and oldest.seed is not None):
                kept.append(entry)
            else:
                problems.append(
                    f"{record.id}: the name {record.method!r} is taken by {oldest.id}; evaluate again with label=NAME"
                )
    return kept


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

    def has(self, row: leaderboards.ConfigurationRow) -> bool:
        """Whether ``row`` is shown."""
        return (
            (self.architecture is None or self.architecture.lower() in row.architecture.lower())
            and self.extra in (None, row.additional_data)
            and self.verified in (None, row.status != CLAIMED)
        )


def entry_boards(entries: Sequence[Entry], shown: EntryFilter | None = None) -> list[leaderboards.Leaderboard]:
    """Build the boards of each threat model with the rows of ``shown``; ranks are those of all rows.

    Entries on other test images than most have a board of their own.

    There is none if all entries are unverified runs of ours and nothing was published: a leaderboard shows them. The
    boards of a dataset that is asked for are shown without entries too if RobustBench has any.
    """
    shown = shown or EntryFilter()
    by_threat: dict[grouping.ThreatModel, list[Entry]] = grouping.group(
        entries, lambda entry: grouping.threat_model(entry.record)
    )
    keys = [
        key
        for key, same in by_threat.items()
        if _published(key)
        # Verified, or of somebody else.
        or any(entry.verification or entry.source or entry.record.seed is None for entry in same)
    ]
    for entry in published_entries():
        key = (entry.dataset, entry.norm, round(entry.eps, 9))
        if entry.dataset == shown.dataset and not any(_alike(key, other) for other in (*by_threat, *keys)):
            keys.append(key)
    boards = (
        board
        for dataset, norm, eps in sorted(keys)
        if shown.dataset in (None, dataset)
        if shown.norm is None or shown.norm.lower() == norm.lower()
        if shown.eps is None or abs(shown.eps - eps) < 1e-6
        for board in _boards((dataset, norm, eps), by_threat.get((dataset, norm, eps), []), shown)
    )
    return [board for board in boards if board.rows]


def _published(key: grouping.ThreatModel) -> list[PublishedEntry]:
    """The published evaluations of a threat model."""
    return [entry for entry in published_entries() if _alike((entry.dataset, entry.norm, entry.eps), key)]


def _alike(one: grouping.ThreatModel, other: grouping.ThreatModel) -> bool:
    # Some models were trained for 0.031, which RobustBench lists under 8/255.
    return one[:2] == other[:2] and abs(one[2] - other[2]) < 1e-3


def _boards(
    key: grouping.ThreatModel, entries: Sequence[Entry], shown: EntryFilter
) -> Iterator[leaderboards.Leaderboard]:
    """Yield the board of the images of most entries, ours first, with the published list, then those of other images.

    The published list does not say which images were used, so their number must be equal.
    """
    beside = _published(key)
    by_images = sorted(
        grouping.group(entries, lambda entry: (entry.record.n, entry.record.data_sha256)).values(),
        key=lambda same: (sum(entry.source is None for entry in same), len(same)),
        reverse=True,
    )
    main = next((same for same in by_images if not beside or same[0].record.n == beside[0].n), [])
    yield _board(key, main, beside, shown)
    for same in by_images:
        if same is not main:
            images = same[0].record.data_sha256[:8]
            board = _board(key, same, [], shown)
            title, name = f"{board.title}, test images {images}", grouping.slug(f"{board.name}-images-{images}")
            apart = (
                "These entries were evaluated on other test images than those of the first board, so they are ranked "
                "among themselves only."
            )
            yield replace(board, name=name, title=title, notes=(apart, *board.notes))


def _board(
    key: grouping.ThreatModel, entries: Sequence[Entry], beside: Sequence[PublishedEntry], shown: EntryFilter
) -> leaderboards.Leaderboard:
    dataset, norm, eps = key
    ours = list(_rows(entries))
    published = [
        published_row(
            entry.id,
            entry.architecture,
            entry.clean,
            entry.robust,
            additional_data=entry.additional_data,
            n=entry.n,
            source=ROBUSTBENCH,
            status=CLAIMED,
        )
        for entry in beside
    ]
    rows = leaderboards.ranks(
        [*ours, *published],
        lambda row: (
            leaderboards.descending(row.means["robust"]),
            leaderboards.descending(row.means["clean"]),
            row.method,
        ),
    )
    # Networks that have the weights of another one.
    named = [(r.checkpoint_sha256, f"{row.method} ({row.source or 'here'})") for row in ours for r in row.records]
    same = {
        sha: sorted({name for _, name in pairs}) for sha, pairs in grouping.group(named, lambda pair: pair[0]).items()
    }
    texts = [entry.record.eps_text for entry in entries] or [min(beside, key=lambda e: abs(e.eps - eps)).eps_text]
    text = leaderboards.shortest(texts)
    return leaderboards.Leaderboard(
        name=grouping.slug(f"entries-{dataset}-{norm}-eps{text}"),
        title=f"{dataset}, {norm}, eps = {text}: entries of anyone",
        budget=None,
        columns=(leaderboards.RANK, leaderboards.METHOD, constants(dataset=dataset, norm=norm, eps=text), *COLUMNS),
        rows=tuple(filter(shown.has, rows)),
        notes=(
            *NOTES,
            *(
                f"Equal weights (sha256 {sha[:8]}): {', '.join(names)}."
                for sha, names in same.items()
                if len(names) > 1
            ),
            *([f"Source {ROBUSTBENCH}: {published_source()}."] if beside else []),
            *(notes.provenance_notes([entry.record for entry in entries]) if entries else []),
        ),
    )


def _rows(entries: Sequence[Entry]) -> Iterator[leaderboards.ConfigurationRow]:
    """Yield one row per configuration: ``verified, ≤ 0.4 %`` if all of its records were verified, else ``claimed``."""

    def row(entry: Entry) -> tuple[Hashable, ...]:
        # Neither sources nor names of weights trained elsewhere are mixed.
        record = entry.record
        return *grouping.row_key(record), entry.source, record.method.lower() if record.seed is None else ""

    verified = {entry.record.id: entry.verification for entry in entries}
    for same in grouping.group(entries, row).values():
        averaged = leaderboards.average_seeds(grouping.newest_per_seed(entry.record for entry in same))
        checks = [verified[record.id] for record in averaged.records]
        bounds = [check.bound for check in checks if check is not None and check.agrees]
        status = f"verified, ≤ {100 * max(bounds):.1f} %" if len(bounds) == len(checks) else CLAIMED
        yield replace(averaged, status=status, source=same[0].source)


COLUMNS = (
    *leaderboards.ROBUST,
    leaderboards.IMAGES,
    leaderboards.ARCHITECTURE,
    leaderboards.Column("Extra data", lambda row: "yes" if row.additional_data else "no"),
    leaderboards.Column(
        "Status",
        lambda row: row.status,
        {"verified": lambda row: plain_flag(row.status != CLAIMED), "status": lambda row: row.status},
    ),
    leaderboards.Column("Source", lambda row: row.source or "here", "source"),
    leaderboards.SEEDS,
)
"""The columns after rank, method and threat model."""


def published_rows(manifests: Sequence[Manifest]) -> dict[grouping.ThreatModel, list[leaderboards.ConfigurationRow]]:
    """Return unranked rows by threat model, in the manifests' order: one per distinct pair of accuracies.

    The paper's values and RobustBench's are one row if they agree, and two rows if they do not.
    """
    rows: dict[grouping.ThreatModel, list[leaderboards.ConfigurationRow]] = {}
    for manifest in manifests:
        if not any(source.startswith(f"{ROBUSTBENCH} ") for row in manifest.rows for source in row.published):
            continue
        dataset = next(text.removeprefix("data=") for text in manifest.overrides if text.startswith("data="))
        clean = next(key for key, column in manifest.columns.items() if column.metric == "clean")
        robust = next(
            key
            for key, column in manifest.columns.items()
            if (column.metric, column.eps) == ("robust", None) and parse_attacks(column.attacks) == list(AUTOATTACK)
        )
        same = rows.setdefault((dataset, "Linf", round(RADIUS, 9)), [])
        for row in manifest.rows:
            described = ", ".join(cell for key, cell in row.show.items() if key != "Architecture")
            pairs: dict[tuple[float, float], list[str]] = {}
            for source, values in ({f"Table {manifest.number}": row.paper} | row.published).items():
                # READMEs and logs are left out: RobustBench evaluated the same checkpoints independently.
                if clean in values and robust in values and source.startswith(("Table", f"{ROBUSTBENCH} ")):
                    pairs.setdefault((values[clean], values[robust]), []).append(source)
            same += [
                published_row(
                    f"{row.label} ({described})" if described else row.label,
                    # The paper abbreviates WideResNet; leaderboards spell it out as RobustBench does.
                    row.show.get("Architecture", NONE).replace("WRN", "WideResNet"),
                    *(percentage / 100 for percentage in pair),
                    synthetic=any(word in described for word in ("generated", "synthetic")),
                    source=", ".join(sources),
                )
                for pair, sources in pairs.items()
            ]
    return rows


def published_row(
    method: str, architecture: str, clean: float, robust: float, *, synthetic: bool = False, **fields: Any
) -> leaderboards.ConfigurationRow:
    """Return the row of published accuracies, as fractions."""
    return leaderboards.ConfigurationRow(
        method=method,
        architecture=architecture,
        synthetic=synthetic,
        attacks="AutoAttack",
        autoattack=True,
        means={"clean": SeedMean(clean, None), "robust": SeedMean(robust, None)},
        **fields,
    )
