"""Rewriting an ``.npz`` keeps every array, needs little memory, and leaves no file behind if it fails."""

import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from scripts import store_npz


def test_every_array_is_kept_uncompressed(tmp_path: Path) -> None:
    arrays = {"image": np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3), "label": np.arange(5), "odd": np.eye(3)}
    np.savez_compressed(tmp_path / "in.npz", **arrays)
    store_npz.store(tmp_path / "in.npz", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as content:
        assert sorted(content.files) == sorted(arrays)
        for name, array in arrays.items():
            assert content[name].dtype == array.dtype
            assert np.array_equal(content[name], array)
    with zipfile.ZipFile(tmp_path / "out.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_it_needs_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_npz, "CHUNK", 1 << 16)
    np.savez_compressed(tmp_path / "in.npz", image=np.zeros((8000, 32, 32, 1), np.uint8))
    tracemalloc.start()
    try:
        store_npz.store(tmp_path / "in.npz", tmp_path / "out.npz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out.npz").stat().st_size > 8_000_000
    assert peak < 2_000_000


@pytest.mark.parametrize("case", ["absent", "text", "damaged"])
def test_an_unreadable_file_ends_in_one_line_and_no_file(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    if case == "text":
        source.write_text("<html>404</html>")
    if case == "damaged":
        np.savez_compressed(source, image=np.random.default_rng(0).integers(256, size=9999, dtype=np.uint8))
        content = bytearray(source.read_bytes())
        content[5000] ^= 255
        source.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["store_npz", str(source), str(target)])
    with pytest.raises(SystemExit, match=r"in\.npz could not be rewritten"):
        store_npz.main()
    assert [path for path in tmp_path.iterdir() if path != source] == []
