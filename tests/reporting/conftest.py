"""Parses every manifest once for all tests of this folder."""

from functools import cache

import pytest

from dkl.manifests import load, manifest

cached_load = cache(load)


@pytest.fixture(autouse=True)
def _share_manifests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "load", cached_load)
