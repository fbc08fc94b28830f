"""Overrides that a user adds to a manifest's rows: a row must stay what its name says.

Refused are keys that the rows set themselves, what their evaluations set, and, at budgets ``paper`` and ``mini``,
everything else that trains another row. At other budgets such overrides become part of the label.
"""

import re
from collections.abc import Sequence

from dkl.config.identity import COMPUTING
from dkl.errors import UserError
from dkl.manifests.manifest import Manifest, ManifestRow
from dkl.storage.files import digest

FIXED_BUDGETS = ("paper", "mini")
"""Budgets at which a row is that of the manifest, or nothing."""

OF_EVALUATE = ("attacks", "eps", "n", "norm", "weights")
"""Options of ``dkl evaluate`` that are often tried here."""

_SAME_ROW = re.compile(
    rf"(paths|logger|evaluation|hydra)\b.*|trainer\.(device|threads|validate_every|workers|{'|'.join(COMPUTING)})"
)
"""Keys that never make another row."""

_NOT_IN_LABELS = re.compile(rf"(data|model|trainer|budget)\b.*|task\.teacher\.(checkpoint|run)|{_SAME_ROW.pattern}")
"""Keys that tables show in columns or titles of their own, or that no row depends on."""

LONGEST_LABEL = 100
"""Characters of a label, which is part of file names."""


def key(override: str) -> str:
    """Return the key of an override, such as ``loss`` of ``+loss=ikl``."""
    return re.split("[=@]", override.lstrip("+~"))[0]


def may_change_rows(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that may make another row."""
    return [text for text in overrides if not _SAME_ROW.fullmatch(key(text))]


def check_overrides(manifest: Manifest, rows: Sequence[ManifestRow], overrides: Sequence[str]) -> None:
    """Raise UserError if an override contradicts what ``rows`` say about themselves and their evaluations."""
    for text in overrides:
        name = key(text)
        if name == "label":
            raise UserError(
                f"{text}: the rows of {manifest.name} have their own labels; leave it out, or use dkl train {text}"
            )
        if name in OF_EVALUATE:
            raise UserError(
                f"{text} is an option of dkl evaluate: leave it out here, then dkl evaluate run=FOLDER {text}"
            )
        for row in rows:
            if own := _sets(row.overrides, name):
                raise UserError(
                    f"{text} contradicts row {row.name}, which is {own}: leave it out, or change the dkl train command "
                    "that dry_run=true prints"
                )
            for entry in manifest.evaluations(row):
                if own := _sets([f"evaluation.{setting}" for setting in entry], name):
                    option = own.removeprefix("evaluation.")
                    raise UserError(
                        f"{text}: {manifest.name} evaluates row {row.name} with {option}; leave it out, then use "
                        f"dkl evaluate run=FOLDER {key(option)}=…"
                    )


def _sets(overrides: Sequence[str], name: str) -> str | None:
    """Return the override that sets the key ``name`` or a key below it; None if there is none."""
    return next((text for text in overrides if f"{key(text)}.".startswith(f"{name}.")), None)


def refuse_changed(budget: str, row: str, overrides: Sequence[str]) -> None:
    """Raise UserError if ``budget`` fixes what ``row`` trains, which ``overrides`` have changed."""
    if budget in FIXED_BUDGETS:
        raise UserError(
            f"{' '.join(may_change_rows(overrides))} changes what row {row} trains, which budget={budget} fixes: leave "
            "it out, or use budget=own (your own sizes, labeled with it, never compared with the paper)"
        )


def changed_label(label: str, overrides: Sequence[str]) -> str:
    """Return the label of a row that ``overrides`` have changed: they follow its own label."""
    shown = [text for text in overrides if not _NOT_IN_LABELS.fullmatch(key(text))]
    # OmegaConf would resolve an interpolation in the label.
    text = " ".join([label, *shown]).replace("$", "")
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 9]} {digest(text)}"
