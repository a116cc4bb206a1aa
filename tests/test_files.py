"""Files are whole or absent whatever happens between two operations; manifests notice every altered bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disk import Disk
from hypothesis import given
from hypothesis import strategies as st

from ensue import files
from ensue.errors import ArtefactError

OLD, NEW = b"old content", b"new content, longer"


def write(path: Path) -> None:
    files.write_bytes(path, NEW)


def broken(disk: Disk, name: str) -> bool:
    """Whether a power cut loses data; after the call returned, the content must be the new one."""
    return any(tree[name] not in (OLD, NEW) for tree in disk.cuts) or any(tree[name] != NEW for tree in disk.left())


def test_a_power_cut_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(OLD)
    disk = Disk(monkeypatch, tmp_path)
    write(path)
    assert [kind for kind, _, _ in disk.steps] == ["fsync", "replace", "fsync"]
    assert disk.steps[0][1].parent == tmp_path  # the temporary file is on the same file system
    assert disk.steps[0][2] == NEW  # synced after all of it was written
    assert disk.steps[2][1] == tmp_path
    assert not broken(disk, "model.bin")


@pytest.mark.parametrize("removed", [Path.is_file, Path.is_dir])
def test_a_write_without_one_of_its_fsyncs_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removed: Callable[[Path], bool]
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(OLD)
    disk = Disk(monkeypatch, tmp_path, skip=removed)
    write(path)
    assert broken(disk, "model.bin")


def fail_call(monkeypatch: pytest.MonkeyPatch, name: str, call: int) -> None:
    """Make the `call`-th use of os.`name` raise, as a full or failing disk does."""
    real: Callable[..., Any] = getattr(os, name)
    count = 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise OSError("disk failure")
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)


@pytest.mark.parametrize(
    ("name", "call", "left"),
    [("fsync", 1, OLD), ("replace", 1, OLD), ("fsync", 2, NEW)],
)
def test_a_failing_step_leaves_a_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: int, left: bytes
) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(OLD)
    fail_call(monkeypatch, name, call)
    with pytest.raises(OSError, match="disk failure"):
        write(path)
    assert path.read_bytes() == left
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.bin"]


def test_a_failing_block_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(OLD)

    def write_half() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_bytes(NEW[:3])
            raise KeyError("interrupted")

    with pytest.raises(KeyError, match="interrupted"):
        write_half()
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.bin"]


def test_the_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one" / "config.toml"
    files.write_text(path, "é\n")
    assert path.read_bytes() == "é\n".encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_numbers_that_are_not_json(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "metrics.json", {"HR@10": value})
    assert list(tmp_path.iterdir()) == []


@given(content=st.binary(max_size=60))
def test_bad_json_is_named(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("json") / "metrics.json"
    path.write_bytes(content)
    try:
        expected = json.loads(content)
    except (ValueError, RecursionError):
        with pytest.raises(ArtefactError, match=r"metrics\.json: not valid JSON"):
            files.read_json(path)
    else:
        assert repr(files.read_json(path)) == repr(expected)  # by repr: NaN differs from itself


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"metrics\.json: missing"):
        files.read_json(tmp_path / "metrics.json")


def make_folder(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        files.write_bytes(folder / name, content)
    files.write_manifest(folder, list(contents), {"kind": "store", "schema_version": 1})


def check(folder: Path) -> None:
    files.check_files(folder, files.read_manifest(folder, "store", 1))


def test_an_untouched_folder_passes(tmp_path: Path) -> None:
    make_folder(tmp_path, {"items.bin": b"abc", "empty.bin": b""})
    check(tmp_path)


@given(content=st.binary(min_size=1, max_size=300), data=st.data())
def test_any_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("store")
    make_folder(folder, {"items.bin": content, "other.bin": b"other"})
    altered = bytearray(content)
    altered[data.draw(st.integers(0, len(content) - 1), "position")] ^= 1 << data.draw(st.integers(0, 7), "bit")
    (folder / "items.bin").write_bytes(bytes(altered))
    with pytest.raises(ArtefactError, match=r"items\.bin: altered"):
        check(folder)


@pytest.mark.parametrize("content", [b"", b"abcdef"[:-1], b"abcdef\0"])
def test_truncation_and_growth_are_found(tmp_path: Path, content: bytes) -> None:
    make_folder(tmp_path, {"items.bin": b"abcdef"})
    (tmp_path / "items.bin").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"items\.bin: altered or truncated"):
        check(tmp_path)


def test_a_file_swapped_between_two_folders_is_found(tmp_path: Path) -> None:
    make_folder(tmp_path / "a", {"model.bin": b"first", "vocabulary.bin": b"one"})
    make_folder(tmp_path / "b", {"model.bin": b"second", "vocabulary.bin": b"two"})
    (tmp_path / "b" / "vocabulary.bin").write_bytes((tmp_path / "a" / "vocabulary.bin").read_bytes())
    check(tmp_path / "a")
    with pytest.raises(ArtefactError, match=r"vocabulary\.bin: altered"):
        check(tmp_path / "b")


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    make_folder(tmp_path, {"items.bin": b"abc"})
    (tmp_path / "items.bin").unlink()
    with pytest.raises(ArtefactError, match=r"items\.bin: missing"):
        check(tmp_path)


def test_a_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path, {"items.bin": b"abc"})
    (tmp_path / "extra.bin").write_bytes(b"abc")
    with pytest.raises(ArtefactError, match=r"does not list the file 'extra\.bin'"):
        files.check_files(tmp_path, files.read_manifest(tmp_path, "store", 1), ["extra.bin"])


@pytest.mark.parametrize("name", ["../secret.bin", "sub/secret.bin", "{outside}", "..", ".", ""])
def test_names_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    """Even with the right hash: a manifest may only speak of files in its own folder."""
    folder, outside = tmp_path / "store", tmp_path / "secret.bin"
    make_folder(folder, {"items.bin": b"abc"})
    (folder / "sub").mkdir()
    for path in (outside, folder / "sub" / "secret.bin"):
        path.write_bytes(b"secret")
    about = files.read_manifest(folder, "store", 1)
    about["sha256"] = {name.format(outside=outside): files.sha256(outside)}
    with pytest.raises(ArtefactError):
        files.check_files(folder, about)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"kind": "run", "schema_version": 1, "sha256": {}}, "expected an ensue store, found kind 'run'"),
        ({"kind": "store", "schema_version": 2, "sha256": {}}, "schema version 2, but this release reads 1"),
        ({"kind": "store", "schema_version": 1}, "no table of file hashes"),
        ({"kind": "store", "schema_version": 1, "sha256": ["items.bin"]}, "no table of file hashes"),
        (["store"], "found kind None"),
        (None, "found kind None"),
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path: Path, manifest: object, message: str) -> None:
    files.write_json(tmp_path / files.MANIFEST, manifest)
    with pytest.raises(ArtefactError, match=message):
        files.read_manifest(tmp_path, "store", 1)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"nowhere: no such folder \(expected an ensue store\)"):
        files.read_manifest(tmp_path / "nowhere", "store", 1)


def test_a_failed_write_names_its_file(tmp_path: Path) -> None:
    """A full disk fails at a write, and the system then names no file."""
    for error, words in (
        (OSError(28, "No space left on device"), "[Errno 28]"),
        (OSError("29238 requested and 5088 written"), "29238 requested"),
    ):
        with pytest.raises(OSError, match=r"items\.npy") as caught, files.atomic_path(tmp_path / "items.npy"):
            raise error
        assert words in str(caught.value)
        assert caught.value.errno == error.errno
    named = OSError(28, "No space left on device", "elsewhere")
    with pytest.raises(OSError, match="elsewhere") as caught, files.atomic_path(tmp_path / "items.npy"):
        raise named
    assert caught.value is named
    assert list(tmp_path.iterdir()) == []
