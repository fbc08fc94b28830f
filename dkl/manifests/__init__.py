"""Manifests: the paper's tables and figures, and other experiments, as data, and the jobs that produce them."""

import dkl.full
from dkl.manifests.jobs import ManifestJob, Request, identities, may_train, own_sizes, plan, row_overrides
from dkl.manifests.manifest import Claim, Column, Manifest, ManifestRow, keep, load, load_all, names
