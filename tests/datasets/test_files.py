import os

import pytest

from datasets.files import (
    InputError,
    read_json,
    remove_unfinished,
    write_bytes,
    write_json,
    write_whole,
)


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    for text in ("", "{", "[" * 100_000, "\udcff", "1" * 10_000):
        (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(InputError, match="a.json: not valid JSON"):
            read_json(tmp_path / "a.json")


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "a"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), write_whole(path) as file:
        file.write(b"half of the ne")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["a"]
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o077 == 0o044


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_get_the_permissions_of_open_and_the_umask_is_left_alone(
    tmp_path, monkeypatch, umask, mode
):
    """The umask belongs to the whole process: another thread could meet, and keep, another."""
    former = os.umask(umask)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "umask")
            write_bytes(tmp_path / "a", b"", durable=True)
    finally:
        os.umask(former)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_what_a_killed_process_leaves_is_recognised(tmp_path):
    with write_whole(tmp_path / "folder" / ("a" * 200)) as file:
        file.write(b"half")
        (left,) = (tmp_path / "folder").iterdir()
        copy = left.with_name(f"{left.name[:-9]}other.part")
        copy.write_bytes(b"half")
    remove_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a" * 200]


def test_unwritable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write .*file/a"):
        write_bytes(tmp_path / "file" / "a", b"")
