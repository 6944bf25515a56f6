import os

import pytest

from datasets.files import (
    InputError,
    check_id,
    list_ids,
    list_photographs,
    read_id_list,
    read_json,
    read_lines,
    remove_unfinished,
    write_bytes,
    write_json,
    write_whole,
)

# --- ids, lists, folders --------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", ["a", "2007_000032", "IMG 1", "ünï-♥", "a.b.c", "-"])
def test_ids_are_any_file_name(identifier):
    assert check_id(identifier, "x") == identifier


@pytest.mark.parametrize(
    "identifier", ["", ".", "..", "../a", "a/b", "a\\b", ".a", "a\0", "a\nb", "a" * 251]
)
def test_ids_cannot_leave_their_folder(identifier):
    with pytest.raises(InputError, match="list.txt: the id .* is not a plain file name"):
        check_id(identifier, "list.txt")


@pytest.mark.parametrize("identifier", [" a", "a ", "a\u3000"])
def test_spaces_at_the_ends_of_ids_are_refused(identifier):
    """Lists would not keep them: a data set could be used once, and then no more."""
    with pytest.raises(InputError, match="begins or ends with a space; rename the file"):
        check_id(identifier, "photographs")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the list is empty"),
        ("\n \n", "the list is empty"),
        ("a\nb\na\n", "the id 'a' appears twice"),
        ("a\n../b\n", "not a plain file name"),
        ("\udcff", "not a text file"),
    ],
)
def test_bad_lists(tmp_path, text, message):
    (tmp_path / "l.txt").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=f"l.txt: .*{message}"):
        read_id_list(tmp_path / "l.txt")


def test_list(tmp_path):
    (tmp_path / "l.txt").write_bytes("\ufeffb\r\n a 1\r\n\r\n".encode())
    assert read_id_list(tmp_path / "l.txt") == ("b", "a 1")
    with pytest.raises(InputError, match="missing.txt: no such file"):
        read_lines(tmp_path / "missing.txt")


def test_photographs_of_a_folder(tmp_path):
    for name in ("b.JPG", "a.x.png", "c.tiff", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    found = list_photographs(tmp_path)
    assert found == {
        i: tmp_path / n for i, n in (("a.x", "a.x.png"), ("b", "b.JPG"), ("c", "c.tiff"))
    }
    assert list_ids(tmp_path, ".txt") == {"notes"}
    assert list_ids(tmp_path / "none", ".txt") == set()
    (tmp_path / "b.png").touch()
    with pytest.raises(InputError, match="b.JPG and b.png have the same id 'b'"):
        list_photographs(tmp_path)
    with pytest.raises(InputError, match="cannot list the folder"):
        list_photographs(tmp_path / "none")


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, None]})
    assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
    for text in ("", "{", "[" * 100_000, "\udcff", "1" * 10_000):
        (tmp_path / "a.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(InputError, match="a.json: not valid JSON"):
            read_json(tmp_path / "a.json")


# --- writing --------------------------------------------------------------------------------------


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
