from datasets.collection import Collection
from utils.runs.wording import counted, source_of


def test_one_is_singular():
    found = [counted(number, "photograph") for number in (0, 1, 2)]
    assert found == ["0 photographs", "1 photograph", "2 photographs"]
    has = ("photograph has", "photographs have")
    assert [counted(number, *has) for number in (1, 2)] == [
        "1 photograph has",
        "2 photographs have",
    ]


def test_photographs_of_ones_own_come_from_where_the_option_says():
    photographs = Collection("images", "all", (), (), {}, {})
    assert source_of(photographs, "my/holiday") == "my/holiday"
    assert source_of(Collection("coco", "val", (), (), {}, {}), None) == "coco val"
