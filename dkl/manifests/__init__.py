"""Manifests: the tables and figures of the paper, and other experiments, as data; and the runs they stand for."""

from dkl.manifests.manifest import Claim, Column, Manifest, Row, load, names
from dkl.manifests.plan import Job, Request, identities, plan

__all__ = ["Claim", "Column", "Job", "Manifest", "Request", "Row", "identities", "load", "names", "plan"]
