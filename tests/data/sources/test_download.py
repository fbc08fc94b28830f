"""A file arrives complete, a broken transfer is resumed, and the hash is verified."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dkl.data import fetch
from dkl.errors import UserError
from tests.data.download_server import Site, serve

CONTENT = bytes(range(256)) * 300
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        running.content = CONTENT
        yield running


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def test_a_file_is_fetched_once(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    assert fetch(site.url, path, SHA256) == path
    assert path.read_bytes() == CONTENT
    assert not part_of(path).exists()
    fetch(site.url, path, SHA256)
    assert site.ranges == [None]


def test_of_several_at_the_same_time_one_downloads(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, together = tmp_path / "file", threading.Barrier(3, timeout=60)

    def reachable(url: str) -> None:
        together.wait()  # nobody downloads before all have seen that there is no file

    monkeypatch.setattr("dkl.storage.fetch.unreachable", reachable)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: fetch(site.url, path), range(3))) == [path] * 3
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "file.sha256").read_text() == f"{SHA256}\n"
    assert site.ranges == [None]


def test_another_hash_algorithm(site: Site, tmp_path: Path) -> None:
    fetch(site.url, tmp_path / "file", hashlib.md5(CONTENT).hexdigest(), "md5")
    with pytest.raises(UserError, match="does not have the md5 hash"):
        fetch(site.url, tmp_path / "other", SHA256, "md5")


def test_a_file_with_another_content_is_replaced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of an older version")
    fetch(site.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("have", [1, len(CONTENT) - 1])
def test_a_partial_file_is_continued_with_the_rest_only(site: Site, tmp_path: Path, have: int) -> None:
    path = tmp_path / "file"
    part_of(path).write_bytes(CONTENT[:have])
    fetch(site.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert site.ranges == [f"bytes={have}-"]
    assert site.sent == [len(CONTENT) - have]


def test_a_server_without_ranges_starts_over(site: Site, tmp_path: Path) -> None:
    site.ignore_ranges = True
    part_of(tmp_path / "file").write_bytes(CONTENT[:1000])
    fetch(site.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_complete_partial_file_is_used(site: Site, tmp_path: Path) -> None:
    part_of(tmp_path / "file").write_bytes(CONTENT)
    fetch(site.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert site.sent == []


@pytest.mark.parametrize("have", [b"", b"wrong start"])
def test_corrupted_bytes_are_refused_and_deleted(site: Site, tmp_path: Path, have: bytes) -> None:
    path = tmp_path / "file"
    if have:
        part_of(path).write_bytes(have)
    else:
        site.content = CONTENT[:-1] + b"x"
    with pytest.raises(UserError, match=site.url):
        fetch(site.url, path, SHA256)
    assert [left.name for left in tmp_path.iterdir()] == [".file.lock"]
    site.content = CONTENT
    fetch(site.url, path, SHA256)
    assert path.read_bytes() == CONTENT


def test_an_interrupted_transfer_is_resumed_next_time(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    site.stop_after = 5000
    monkeypatch.setattr("dkl.storage.fetch.RETRIES", 0)
    with pytest.raises(UserError, match=site.url):
        fetch(site.url, path, SHA256)
    assert not path.exists()
    assert part_of(path).read_bytes() == CONTENT[:5000]
    site.stop_after = None
    fetch(site.url, path, SHA256)
    assert path.read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=5000-"]


def test_an_unreachable_server_names_the_file_to_download_by_hand(tmp_path: Path) -> None:
    with serve() as closed:
        pass
    part_of(tmp_path / "file").write_bytes(b"what is there")
    with pytest.raises(UserError) as caught:
        fetch(closed.url, tmp_path / "file", SHA256)
    assert closed.url in str(caught.value)
    assert str(tmp_path / "file") in str(caught.value)
    assert part_of(tmp_path / "file").read_bytes() == b"what is there"


@pytest.mark.parametrize("status", [404, 503])
def test_a_refusal_by_the_server_names_the_file_to_download_by_hand(site: Site, tmp_path: Path, status: int) -> None:
    site.status = status
    with pytest.raises(UserError, match=str(status)) as caught:
        fetch(site.url, tmp_path / "file", SHA256)
    assert str(tmp_path / "file") in str(caught.value)
    assert not (tmp_path / "file").exists()


def test_a_broken_connection_is_resumed_at_once(site: Site, tmp_path: Path) -> None:
    site.stop_after = 20_000
    fetch(site.url, tmp_path / "file", SHA256)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=20000-", "bytes=40000-", "bytes=60000-"]


CONFIRM = b"""<html><form id="download-form" action="/confirmed" method="get"><input type="submit" value="Download">
<input type="hidden" name="id" value="abc"><input type="hidden" name="uuid" value="1&amp;2"></form></html>"""


@pytest.mark.parametrize("broken", [None, 50_000])
def test_drives_confirmation_page_is_answered_with_its_cookie(site: Site, tmp_path: Path, broken: int | None) -> None:
    site.page, site.stop_after = CONFIRM, broken
    fetch(f"{site.url}?redirect", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert set(site.confirmed) == {("/confirmed?id=abc&uuid=1%262", "download_warning=yes")}


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (
            b"<title>Google Drive - Quota exceeded</title>",
            "quota for this file is exceeded: wait a day, or set DKL_MIRROR",
        ),
        (b"<html>Sign in</html>", "the server sent a web page; try again, or download it yourself to "),
    ],
)
def test_drives_other_pages_are_no_file(site: Site, tmp_path: Path, page: bytes, says: str) -> None:
    site.page = page
    with pytest.raises(UserError, match=says):
        fetch(site.url, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_mirror_has_precedence_and_may_lack_the_file(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DKL_MIRROR", str(tmp_path))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "name").write_bytes(CONTENT)
    fetch("http://127.0.0.1:9/away", tmp_path / "first", SHA256, mirrored="sub/name")
    fetch(site.url, tmp_path / "second", SHA256, mirrored="sub/other")
    assert site.ranges == [None]
    monkeypatch.setenv("DKL_MIRROR", site.url.removesuffix("/tiny.tar.gz"))
    fetch("http://127.0.0.1:9/away", tmp_path / "third", SHA256)
    with pytest.raises(UserError, match="does not have the sha256 hash"):
        fetch("http://127.0.0.1:9/away", tmp_path / "fourth", "0" * 64)
    monkeypatch.setenv("DKL_MIRROR", "nowhere")
    with pytest.raises(UserError, match="DKL_MIRROR=nowhere is no folder"):
        fetch(site.url, tmp_path / "fifth")
