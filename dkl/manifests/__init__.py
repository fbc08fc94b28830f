"""Manifests: the paper's tables and figures, and other experiments, as data, and the jobs that produce them."""

import dkl.full  # noqa: F401  (names the extra if it is not installed)
from dkl.manifests.jobs import ManifestJob, Request, identities, own_sizes, plan, row_overrides
from dkl.manifests.manifest import Claim, Column, Manifest, ManifestRow, load, load_all, names

__all__ = [
    "Claim",
    "Column",
    "Manifest",
    "ManifestJob",
    "ManifestRow",
    "Request",
    "identities",
    "load",
    "load_all",
    "names",
    "own_sizes",
    "plan",
    "row_overrides",
]
