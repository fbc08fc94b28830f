"""Files are written atomically; checkpoints come back unchanged, and broken ones are refused."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from dkl.errors import UserError
from dkl.storage import checkpoint, files
from dkl.storage.files import digest, file_hash, write_atomically, write_text


class Interrupted(BaseException):
    """Not an Exception, like KeyboardInterrupt."""


def make_content() -> dict[str, Any]:
    """The content of a training checkpoint: tensors of several kinds, nested plain values, generator states."""
    return {
        "model": {"weight": torch.randn(4, 3), "half": torch.randn(3).bfloat16(), "steps": torch.tensor(7)},
        "optimizer": {"state": {0: {"momentum": torch.randn(4, 3)}}, "groups": [{"lr": 0.1, "nesterov": False}]},
        "rng": torch.get_rng_state(),
        "python_rng": (3, (1, 2, 3), None),
        "config": {"name": "ikl", "eps": 8 / 255, "tags": ["a", "b"], "none": None},
        "epoch": 12,
    }


def assert_same(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            assert_same(got[key], value)
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    else:
        assert got == expected


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    content, path = make_content(), tmp_path / "new" / "folder" / "last.pt"
    checkpoint.save(path, content)
    assert_same(checkpoint.read(path), content)
    assert [file.name for file in path.parent.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("error", [OSError("disk full"), Interrupted("killed")])
def test_a_failing_write_leaves_the_old_file_and_no_parts(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})
    before = path.read_bytes()

    def fail(file: BinaryIO) -> None:
        file.write(b"half of the new conte")
        file.flush()
        assert path.read_bytes() == before  # the old file is there all the while
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_content_that_cannot_be_saved_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})
    with pytest.raises(Exception, match=r"(?i)pickle|lambda"):
        checkpoint.save(path, {"epoch": 2, "function": lambda: None})
    assert checkpoint.read(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_the_bytes_are_synced_before_they_take_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, events = tmp_path / "last.txt", []
    sync, replace = os.fsync, Path.replace

    def watch_sync(descriptor: int) -> None:
        events.append(("sync", os.fstat(descriptor).st_size))
        sync(descriptor)

    def watch_replace(source: Path, target: Path) -> Path:
        events.append(("replace", source.stat().st_size))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(Path, "replace", watch_replace)
    write_text(path, "nineteen bytes long")
    assert events[:2] == [("sync", 19), ("replace", 19)]


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        checkpoint.read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def serialized(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(3000.0), "b": [1, 2]}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@pytest.mark.parametrize("length", [0, 1, 100, 2000, 4000, -5000, -500, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(serialized(zipped=True)[:length])
    refused(path)


@pytest.mark.parametrize("length", [0, 1, 3, 18, 30, 500, 5000])
def test_a_truncated_file_of_the_old_format_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(serialized(zipped=False)[:length])
    refused(path)


def test_no_changed_byte_passes_silently(tmp_path: Path) -> None:
    """Change random bytes one at a time: the checkpoint is refused in one line, or its content is the same."""
    path, content = tmp_path / "flipped.pt", {"model": {"weight": torch.randn(20), "steps": torch.tensor(7)}}
    checkpoint.save(path, content)
    written, random, messages = path.read_bytes(), np.random.default_rng(0), []
    for place in random.choice(len(written), 200, replace=False):
        changed = bytearray(written)
        changed[place] ^= random.integers(1, 256)
        path.write_bytes(changed)
        try:
            found = checkpoint.read(path)
        except UserError as error:
            messages.append(str(error))
        else:
            assert_same(found, content)
    assert len(messages) > 60  # the rest is padding, which has no meaning
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_an_entry_marked_as_a_folder_is_refused(tmp_path: Path) -> None:
    """torch would return uninitialized memory for it."""
    path = tmp_path / "run.pt"
    checkpoint.save(path, {"weight": torch.ones(20)})
    with zipfile.ZipFile(path) as archive:
        (name,) = (item.filename for item in archive.infolist() if item.filename.endswith("data/0"))
    written = bytearray(path.read_bytes())
    directory_entry = written.rindex(name.encode()) - 46  # the name follows 46 bytes of fixed size
    written[directory_entry + 38] |= 0x10  # external attributes
    path.write_bytes(written)
    assert "data/0 is marked as a folder" in refused(path)


def test_a_file_that_unpacks_to_far_more_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path / "plain.pt", {"weight": torch.zeros(10**6)})
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert checkpoint.read(path)["weight"].shape == (10**6,)
    monkeypatch.setattr(files, "LARGEST_GROWTH", 10**6)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: pytest.fail("it was unpacked"))
    assert "it unpacks to 4,00" in refused(path)
    header = json.dumps({"weight": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert "not a readable safetensors file" in refused(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_makes_bytes_of_any_number_is_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "bomb.pt"
    torch.save({"filler": bytearray(3)}, path, _use_new_zipfile_serialization=zipped)
    assert "more than tensors and plain values (bytearray)" in refused(path)


def test_flipped_weights_are_found_by_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    checkpoint.save(path, {"weight": torch.zeros(1000)})
    written = bytearray(path.read_bytes())
    written[2000:2100] = b"\xff" * 100
    path.write_bytes(written)
    assert "data/0 does not match its checksum" in refused(path)
    path.write_bytes(serialized(zipped=False))  # the format before torch 1.6 has no checksum and still loads
    assert checkpoint.read(path)["b"] == [1, 2]


@pytest.mark.parametrize("content", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_checkpoint_is_not_offered_as_one_to_trust(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.pt"
    path.write_bytes(content)
    assert "weights_only=False" not in refused(path)


def test_a_checkpoint_with_code_is_refused_in_one_line_that_names_the_class(tmp_path: Path) -> None:
    path = tmp_path / "code.pt"
    torch.save({"path": tmp_path}, path)
    message = refused(path)
    assert "PosixPath" in message or "WindowsPath" in message
    assert "\n" not in message
    assert "\x1b" not in message


def test_file_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # the test vector of FIPS 180-2
    assert file_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digest_follows_values_and_not_the_order_of_keys() -> None:
    value = {"a": 1, "b": {"c": [1, 2], "d": None}}
    assert digest(value) == digest({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert len(digest(value)) == 8
    assert len(digest(value, 12)) == 12
    others = [{**value, "a": 2}, {**value, "a": "1"}, {"a": 1, "b": {"c": [2, 1], "d": None}}, {"a": 1}]
    assert len({digest(other) for other in [value, *others]}) == 5


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "γ = 0.4 ± 0.1\n")
    assert (tmp_path / "text").read_bytes().decode("utf-8") == "γ = 0.4 ± 0.1\n"
