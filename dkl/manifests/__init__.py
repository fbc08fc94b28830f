"""Manifests: the tables and figures of the paper, and other experiments, as data; and the runs they stand for."""

from dkl.manifests.jobs import ManifestJob, Request, identities, plan
from dkl.manifests.manifest import Claim, Column, Manifest, ManifestRow, load, names

__all__ = [
    "Claim",
    "Column",
    "Manifest",
    "ManifestJob",
    "ManifestRow",
    "Request",
    "identities",
    "load",
    "names",
    "plan",
]
