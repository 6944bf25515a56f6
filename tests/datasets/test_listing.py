import pytest

from datasets.files import InputError, read_lines
from datasets.listing import check_id, list_ids, list_photographs, read_id_list


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
