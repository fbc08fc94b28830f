"""Verifications: a random part of a record's images was evaluated again, and the flags were compared.

They are files ``records/verified/<id>.json`` in the results folder of whoever ran ``dkl verify``, bound to the record
by its checksum: a record that was changed or evaluated again is not verified. A verification is as trustworthy as
whoever ran it, so those that lie beside somebody else's records are never read.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from dkl.errors import UserError
from dkl.records.record import STRICT, Natural, Positive, Record
from dkl.sampling_bound import most_in_population
from dkl.storage.files import write_text
from dkl.validation import first_mistake

FOLDER = Path("records", "verified")
"""The folder of verifications inside a results folder."""

MOST = 0.02
"""A record counts as verified if at most this share of its images can have other flags, with 95 % confidence."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Verification:
    """What ``dkl verify`` found for the record ``id``, whose checksum is ``record_sha256``.

    ``checked`` of its ``n`` images were drawn by ``seed`` and evaluated again; ``differ`` of them have another flag
    after some attack, and ``lost`` of those count as robust in the record, but were fooled now. ``other_draws`` had
    another flag at first, but not with the random draws of the record's evaluation.
    """

    id: str
    record_sha256: str
    n: Positive
    checked: Positive
    differ: Natural
    lost: Natural
    seed: Natural
    created: str
    versions: dict[str, str]
    hardware: dict[str, Any] = Field(default_factory=dict)
    other_draws: Natural = 0
    schema: Annotated[int, Field(ge=1, le=1)] = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.lost <= self.differ <= self.checked <= self.n:
            raise ValueError("lost, differ, checked and n must be in this order")
        return self

    @property
    def bound(self) -> float:
        """The largest share of the record's images that can have other flags, with 95 % confidence."""
        return most_in_population(self.n, self.checked, self.differ) / self.n

    @property
    def agrees(self) -> bool:
        """Whether the record counts as verified."""
        return self.bound <= MOST

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        return (
            f"{'verified' if self.agrees else 'NOT verified'}: {self.checked} of {self.n} images checked, "
            f"{self.differ} differ: at most {100 * self.bound:.1f} % of flags can differ, 95 %; {self.lost} robust "
            "images were fooled"
        )


_READER = TypeAdapter(Verification)


def checksum(record: Record) -> str:
    """Return what binds a verification to ``record``: its checksum, or the hash of its values if it has none."""
    if "record" in record.checksums:
        return record.checksums["record"]
    content = {key: value for key, value in dataclasses.asdict(record).items() if key != "checksums"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def save_verification(verification: Verification, results: Path) -> Path:
    """Write ``verification`` to the own ``results``; return the file's path."""
    path = results / FOLDER / f"{verification.id}.json"
    write_text(path, json.dumps(dataclasses.asdict(verification), indent=2, allow_nan=False) + "\n")
    return path


def load_verification(record: Record, results: Path) -> Verification | None:
    """Return the verification of ``record`` in the own ``results``; None if there is none of this very record.

    Raises UserError if the file is broken.
    """
    path = results / FOLDER / f"{record.id.rpartition('/')[2]}.json"
    if not path.is_file():
        return None
    try:
        verification: Verification = _READER.validate_json(path.read_bytes())
    except ValidationError as error:
        why = first_mistake(error, {"": Verification})
        raise UserError(f"{path} is not a usable verification: {why}; verify again, or delete the file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; verify again, or delete the file") from None
    same = (verification.record_sha256, verification.n) == (checksum(record), record.n)
    return verification if same else None
