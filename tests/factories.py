"""Made-up evaluation records and their flags, for tests of records and tables."""

import hashlib
from typing import Any

import numpy as np

from dkl.records import AttackResult, Flags, Record
from dkl.threat import AUTOATTACK


def make_record(**overrides: Any) -> Record:
    """Make a valid record; ``overrides`` replace fields, and dependent fields such as ``id`` follow them.

    Unless given, ``per_attack`` falls in equal steps from ``clean`` to ``robust``. With ``attacks=[]`` the record has
    neither ``robust`` nor ``per_attack``, and the radius is 0. Records with equal ``row`` are seeds of one row. Raises
    the errors of ``Record`` if fields are invalid.
    """
    fields: dict[str, Any] = {
        "method": "ikl",
        "dataset": "cifar10",
        "architecture": "wrn10_2",
        "budget": "mini",
        "seed": 0,
        "norm": "Linf",
        "eps": 8 / 255,
        "eps_text": "8/255",
        "attacks": list(AUTOATTACK),
        "n": 1000,
        "clean": 0.75,
        "robust": 0.25,
        "evaluation_seed": 0,
        "batch_size": 200,
        "additional_data": False,
        "checkpoint": "results/runs/ikl/last.pt",
        "data_sha256": "d" * 64,
        "created": "2025-01-01T00:00:00+00:00",
        "seconds": 12.5,
        "versions": {"torch": "2.9.0", "dkl": "0.1.0"},
        "hardware": {"device": "cpu", "cores": 2},
        "git_commit": None,
        "warnings": [],
    }
    if overrides.get("attacks") == []:
        fields |= {"robust": None, "per_attack": {}, "eps": 0.0, "eps_text": "0"}
    fields |= overrides
    identity = "-".join(str(fields[key]) for key in ("method", "dataset", "architecture", "budget"))
    run = hashlib.sha256(f"{identity}-{fields['seed']}".encode()).hexdigest()
    names, clean, robust = fields["attacks"], fields["clean"], fields["robust"]
    fields.setdefault("id", f"{identity}-seed{fields['seed']}-{fields['norm'].lower()}")
    row = fields.pop("row", identity)
    if fields["seed"] is not None and fields.get("training") != {}:
        # No recipe of the paper has this name.
        own = {"recipe_name": row, "seed": fields["seed"], "budget": {"name": fields["budget"]}}
        fields["training"] = own | fields.get("training", {})
    fields.setdefault("config_hash", run[:8])
    fields.setdefault("checkpoint_sha256", run)
    if "per_attack" not in fields:
        between = (clean + (robust - clean) * step / len(names) for step in range(1, len(names)))
        left = [round(value * fields["n"]) / fields["n"] for value in between]
        results = [AttackResult(robust=value, seconds=1.0) for value in [*left, robust]]
        fields["per_attack"] = dict(zip(names, results, strict=True))
    return Record(**fields)


def make_flags(record: Record) -> Flags:
    """Make per-example flags whose means are the record's accuracies, which must be fractions of n images."""
    accuracies = {"clean": record.clean, **{name: result.robust for name, result in record.per_attack.items()}}
    if record.top5 is not None:
        accuracies["top5"] = record.top5
    return {name: np.arange(record.n) < round(value * record.n) for name, value in accuracies.items()}
