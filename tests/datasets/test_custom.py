import pytest
from PIL import ExifTags, Image

from datasets.collection import require_labels
from datasets.files import InputError
from datasets.folder import folder_collection
from datasets.images import read_photograph
from datasets.orientation import about_orientation
from datasets.prepared import load_collection
from tests.conftest import SIZE, annotation, write_file


@pytest.fixture
def load(custom_root):
    def load(split="train"):
        return load_collection("custom", custom_root, split, quiet=True)

    return load


def labels(collection):
    return {identifier: vector.tolist() for identifier, vector in collection.labels.items()}


def test_without_lists_everything_is_train(load):
    collection = load("train")
    assert collection.ids == load("train_aug").ids == ("IMG-1", "a b", "x.y", "z")
    assert collection.classes == ("leaf", "stem") and collection.num_classes == 3
    assert labels(collection) == {"IMG-1": [1, 1], "a b": [1, 0], "x.y": [0, 1], "z": [1, 0]}
    assert collection.masks is None and collection.saliency is None
    for path in collection.images.values():
        assert read_photograph(path).shape == (*SIZE, 3)
    with pytest.raises(InputError, match="--split val: custom has no such split; it has train"):
        load("val")


def test_lists(load, custom_root):
    lists = custom_root / "ImageSets" / "Segmentation"
    write_file(lists / "val.txt", "x.y\n")
    assert load("val").ids == ("x.y",)
    assert load("train").ids == ("IMG-1", "a b", "z")
    write_file(lists / "train.txt", "z\na b\n")
    assert load("train").ids == load("train_aug").ids == ("z", "a b")
    write_file(lists / "val.txt", "x.y\nz\na b\nIMG-1\n")
    (lists / "train.txt").unlink()
    with pytest.raises(InputError, match="val.txt: it lists every photograph"):
        load("train")


def test_other_lists_are_splits(load, custom_root):
    lists = custom_root / "ImageSets" / "Segmentation"
    write_file(lists / "fold.txt", "z\nx.y\n")
    write_file(lists / "train.txt", "z\na b\n")
    write_file(lists / "train_aug.txt", "IMG-1\nz\n")
    assert load("fold").ids == ("z", "x.y") and load("train_aug").ids == ("IMG-1", "z")
    assert labels(load("train_aug")) == {"IMG-1": [1, 1], "z": [1, 0]}
    assert load("train").ids == ("z", "a b")
    [note] = [note for note in load("train").notes if "no list" in note]
    assert note.endswith("Segmentation: 1, such as x.y")
    (lists / "train.txt").unlink()
    assert load("train_aug").ids == ("IMG-1", "z")


def test_photographs_of_a_list_alone_have_their_labels(load, custom_root):
    """Those of no other list, too; file names will do."""
    lists = custom_root / "ImageSets" / "Segmentation"
    write_file(lists / "train.txt", "z\n")
    write_file(lists / "fold.txt", "x.y.webp\nz\n")
    assert load("fold").ids == ("x.y", "z")
    assert labels(load("fold")) == {"x.y": [0, 1], "z": [1, 0]}
    assert load("fold").notes == load("train").notes
    write_file(custom_root / "own.csv", "x.y,leaf\nz,stem\n")
    given = {"labels_file": custom_root / "own.csv", "quiet": True}
    fold = load_collection("custom", custom_root, "fold", **given)
    assert labels(fold) == {"x.y": [1, 0], "z": [0, 1]}


def test_lists_may_name_files(load, custom_root, write_photograph):
    write_photograph(custom_root / "JPEGImages" / "q.jpg.png")
    lists = custom_root / "ImageSets" / "Segmentation"
    write_file(lists / "val.txt", "x.y.webp\na b\nq.jpg\n")
    assert load("val").ids == ("x.y", "a b", "q.jpg")
    assert load("train").ids == ("IMG-1", "z")
    write_file(lists / "val.txt", "a b\na b.PNG\n")
    with pytest.raises(InputError, match="val.txt: the id 'a b' appears twice"):
        load("val")


def test_lists_that_overlap_or_leave_out_are_noted(load, custom_root):
    lists = custom_root / "ImageSets" / "Segmentation"
    write_file(lists / "train.txt", "IMG-1\na b\n")
    write_file(lists / "val.txt", "a b\nx.y\n")
    assert load("val").notes == (
        "photographs in both train.txt and val.txt, on which scores are then too high: 1, such as "
        "a b",
        f"photographs in no list for training or val in {lists.resolve()}: 1, such as z",
    )
    write_file(lists / "val.txt", "x.y\nz\n")
    assert load("train").notes == ()


def test_accents_that_are_encoded_otherwise_are_recognised(load, custom_root, write_photograph):
    """As macOS writes them into file names."""
    write_photograph(custom_root / "JPEGImages" / "cafe\u0301.png")
    write_file(custom_root / "ImageSets" / "Segmentation" / "train.txt", "caf\u00e9\n")
    with pytest.raises(InputError, match="'caf\u00e9' of the list; accents of 'caf\u00e9' are"):
        load("train")


def test_masks_extend_train(load, custom_root, write_mask):
    lists = custom_root / "ImageSets" / "Segmentation"
    write_file(lists / "train.txt", "z\n")
    write_file(lists / "val.txt", "x.y\n")
    for identifier in ("a b", "x.y", "z"):
        write_mask(custom_root / "SegmentationClassAug" / f"{identifier}.png", (1,))
    assert load("train_aug").ids == ("a b", "z")
    assert load("val").mask_path("x.y").exists()


def test_photographs_without_masks_are_trained_on(load, custom_root, write_mask):
    """Masks for a few photographs must not shrink a training that needs none."""
    lists = custom_root / "ImageSets" / "Segmentation"
    write_file(lists / "train.txt", "z\na b\nx.y\n")
    write_mask(custom_root / "SegmentationClassAug" / "z.png", (1,))
    assert load("train_aug").ids == load("train").ids == ("z", "a b", "x.y")
    write_file(lists / "val.txt", "IMG-1\n")
    assert load("train_aug").notes == ()  # nobody was left out


def test_xml_labels_come_before_the_csv(load, custom_root):
    for identifier in ("IMG-1", "a b", "x.y"):
        write_file(custom_root / "Annotations" / f"{identifier}.xml", annotation("stem"))
    assert labels(load("train")) == {"IMG-1": [0, 1], "a b": [0, 1], "x.y": [0, 1]}
    assert "labels.csv is not read: " in " ".join(load("train").notes)
    with pytest.raises(InputError, match="custom train: no image-level label for 'z'"):
        require_labels(load("train"))


def test_without_labels(load, custom_root):
    (custom_root / "labels.csv").unlink()
    collection = load("train")
    assert labels(collection) == {}
    assert any("labels.csv: no image-level labels; write a line" in n for n in collection.notes)
    with pytest.raises(InputError, match="label for 'IMG-1' and 3 more.*; complete labels.csv"):
        require_labels(collection)


def test_lines_without_a_photograph_are_noted(load, custom_root):
    table = custom_root / "labels.csv"
    images = custom_root / "JPEGImages"

    def notes():
        return "\n".join((*load("train").notes, *folder_collection(images, table).notes))

    assert "without a photograph" not in notes()
    table.write_text(table.read_text() + "IMG_2,leaf\nIMG_3,stem\n")
    said = f"ids in {table} without a photograph in {images}: 2, such as IMG_2"
    assert notes().split("\n").count(said) == 2
    single = next(images.iterdir())
    assert folder_collection(single, table).notes == ()  # the CSV may be of the whole folder


def test_turned_photographs_are_noted(load, custom_root, write_photograph):
    images = custom_root / "JPEGImages"
    for collection in (load("train"), folder_collection(images)):
        assert not any("EXIF" in note for note in collection.notes)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", SIZE[::-1]).save(images / "IMG-1.jpeg", exif=exif)
    for collection in (load("train"), folder_collection(images)):
        (note,) = (note for note in collection.notes if "EXIF" in note)
        # a b.PNG is not looked at
        assert note.startswith("EXIF asks 1 of 3 photographs looked at to be turned, such as ")
        assert "IMG-1.jpeg: pixels are used as stored" in note
    (images / "x.y.webp").write_bytes(b"")  # the reader's to report
    assert about_orientation(list(collection.images.values())) == (note,)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("labels.txt", "", "labels.txt: no class in it"),
        ("labels.txt", "leaf\nleaf\n", "labels.txt: the class 'leaf' appears twice"),
        ("labels.txt", "leaf\n", "labels.csv, line 3: unknown class 'stem'"),
        ("labels.csv", "a,leaf\n", "no image-level label for 'IMG-1' and 3 more"),
        ("ImageSets/Segmentation/train.txt", "\n", "train.txt: the list is empty"),
        ("ImageSets/Segmentation/train.txt", "q\n", "no photograph for 'q' of the list"),
        ("ImageSets/Segmentation/val.txt", "z\nz\n", "val.txt: the id 'z' appears twice"),
        ("Annotations/z.xml", annotation("bark"), "z.xml: unknown class 'bark'; .* leaf, stem"),
        ("JPEGImages/z.jpg", "", "z.jpg and z.tif have the same id 'z'; rename"),
    ],
)
def test_broken_trees(load, custom_root, name, text, message):
    write_file(custom_root / name, text)
    with pytest.raises(InputError, match=message):
        require_labels(load("train"))


def test_incomplete_roots(load, custom_root):
    for path in (custom_root / "JPEGImages").iterdir():
        path.unlink()
    with pytest.raises(
        InputError, match="JPEGImages: no photographs in it; those ending in .jpg, "
    ):
        load("train")
    (custom_root / "labels.txt").unlink()
    with pytest.raises(InputError, match="own: no labels.txt in it; custom needs .*set --root"):
        load("train")


def test_folder_of_photographs(custom_root):
    images, table = custom_root / "JPEGImages", custom_root / "labels.csv"
    collection = folder_collection(images, table)
    assert (collection.name, collection.split) == ("images", "all")
    assert collection.classes == ("leaf", "stem")
    assert labels(collection) == {"IMG-1": [1, 1], "a b": [1, 0], "x.y": [0, 1], "z": [1, 0]}
    assert labels(folder_collection(images, table, ("stem", "x", "leaf")))["a b"] == [0, 0, 1]
    bare = folder_collection(images, classes=("leaf",))
    assert bare.ids == collection.ids and bare.labels == {} and bare.masks is None
    (images / ".thumbnails").mkdir()
    assert folder_collection(images).notes == ()
    (images / "more").mkdir()
    (images / "x.HEIC").touch()
    assert folder_collection(images).notes == (
        f"folders inside {images} are not looked into, such as more",
        f"pictures in {images} of kinds that are not read: 1, such as x.HEIC; convert them to JPEG "
        "or PNG",
    )


def test_one_photograph(custom_root):
    images, table = custom_root / "JPEGImages", custom_root / "labels.csv"
    path = next(images.glob("x.y.*"))
    one = folder_collection(path, table)
    assert one.ids == ("x.y",) and one.images == {"x.y": path} and labels(one) == {"x.y": [0, 1]}
    table.write_text("z,leaf\n")
    with pytest.raises(InputError, match="labels.csv: it has none of the photographs in .*x.y"):
        folder_collection(path, table)


def test_broken_folders(custom_root, tmp_path):
    images, table = custom_root / "JPEGImages", custom_root / "labels.csv"
    with pytest.raises(InputError, match="line 3: unknown class 'stem'"):
        folder_collection(images, table, ("leaf",))
    table.write_text("other,leaf\n")
    with pytest.raises(InputError, match="labels.csv: it has none of the photographs"):
        folder_collection(images, table)
    with pytest.raises(InputError, match="own: no photographs in it; those ending in .jpg, "):
        folder_collection(custom_root)
    with pytest.raises(InputError, match="nowhere: No such file"):
        folder_collection(tmp_path / "nowhere")
