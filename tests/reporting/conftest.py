"""Parses every manifest and composes every configuration once for all tests of this folder."""

from functools import cache

import pytest

from dkl.manifests import jobs, load, manifest
from dkl.reporting.boards import paper
from tests.reporting.factories import COMPOSER

cached_load = cache(load)


@pytest.fixture(autouse=True)
def _share_manifests_and_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "load", cached_load)
    monkeypatch.setattr(jobs, "CachedCompose", lambda: COMPOSER)
    monkeypatch.setattr(paper, "CachedCompose", lambda: COMPOSER)
