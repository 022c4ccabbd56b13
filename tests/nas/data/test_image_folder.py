import pytest

from nas.data.image_folder import ImageFolder
from search_spaces.errors import DataError


def read(root, **options):
    return ImageFolder(path=str(root), **options).read()


def test_a_folder_a_class_gives_one_pool(folder):
    source = read(folder({"dog": 2, "cat": 3}))
    assert source.classes == ("cat", "dog")
    assert source.name == "images"
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert list(source.train.names)[-1] == "dog/001.png"
    assert source.validation is source.test is None


@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "testing")], ids=" ".join)
def test_a_folder_a_split_gives_splits(folder, names):
    train, validation, test = names
    counts = {f"{train}/a": 2, f"{train}/b": 2, f"{validation}/a": 1, f"{test}/b": 3, f"{test}/a": 0}
    source = read(folder(counts))
    assert source.train.labels.tolist() == [0, 0, 1, 1]
    assert source.validation.labels.tolist() == [0]
    assert source.test.labels.tolist() == [1, 1, 1]


def test_images_lie_at_any_depth_and_other_files_are_noted(folder, noise):
    root = folder({"a/deep/er": 1, "b": 1, "a/.hidden": 1})
    noise().save(root / "a" / "photo.JPG")
    (root / "a" / "notes.txt").write_text("mine")
    (root / "b" / ".DS_Store").touch()
    (root / "b" / "._000.png").touch()
    source = read(root)
    assert list(source.train.names) == ["a/deep/er/000.png", "a/photo.JPG", "b/000.png"]
    assert source.notes == ("Files passed over, since their suffix is no image's: 1 (a/notes.txt).",)


def test_links_to_files_and_class_folders_are_followed(folder, tmp_path):
    root = folder({"a": 1})
    (root / "a" / "again.png").symlink_to(root / "a" / "000.png")
    (tmp_path / "elsewhere").mkdir()
    (root / "a" / "000.png").rename(tmp_path / "elsewhere" / "x.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "again.png").unlink()
    (root / "a" / "again.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    assert list(read(root).train.names) == ["a/again.png", "b/x.png"]


def test_integer_class_names_are_ordered_as_numbers(folder):
    assert read(folder({str(number): 1 for number in range(11)})).classes == tuple(map(str, range(11)))


def test_the_order_of_classes_may_be_given(folder):
    source = read(folder({"a": 1, "b": 1, "c": 1}), classes=("c", "a", "b"))
    assert source.classes == ("c", "a", "b")
    assert source.train.labels.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({}, {}, "images is not there, expected a folder of images"),
        ({"a": 1, "b": 0}, {}, r"class folder .*b holds no image"),
        ({"train/a": 1, "train/b": 0}, {}, r"class folder .*train/b holds no image"),
        ({"a": 1}, {}, "at least two classes, got 'a'"),
        ({"train/a": 1, "train/b": 1, "cats": 1}, {}, r"others that are no split \('cats'\)"),
        ({"test/a": 1, "val/b": 1}, {}, "folders for test and validation but none for training"),
        ({"train/a": 1, "train/b": 1, "val/a": 1, "valid/a": 1}, {}, "both 'val' and 'valid'; join them"),
        ({"train": 2, "test": 2}, {}, r"train holds no folder, expected one for each class"),
        ({"train/a": 2, "train/b": 2, "test/c": 1}, {}, "no image of 'c', though the test split has"),
        ({"cat": 1, "dog": 1}, {"classes": ("cat", "dgo")}, "'dog' is not among the 2.*did you mean 'dgo'"),
        ({"cat": 1, "dog": 1}, {"classes": ("cat", "dog", "emu")}, "no image of 'emu'"),
    ],
    ids=[
        "missing", "empty-class", "empty-training-class", "one-class", "splits-and-classes", "no-training",
        "two-validations", "no-classes", "class-only-in-test", "class-not-listed", "class-not-there",
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_named(folder, counts, options, message):
    with pytest.raises(DataError, match=message):
        read(folder(counts), **options)


def test_a_file_and_an_empty_folder_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is no folder"):
        read(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no folder, expected one for each class"):
        read(tmp_path / "empty")


@pytest.fixture
def manifest(folder):
    """Write a manifest beside six images a/000.png to b/002.png, and read it."""
    root = folder({"a": 3, "b": 3})

    def write(text: str, encoding: str = "utf-8", **options):
        (root / "list.csv").write_bytes(text.encode(encoding))
        return read(root, manifest="list.csv", **options)

    return write


def test_a_manifest_gives_labels_splits_and_groups(manifest):
    source = manifest(
        "group,path,label,split\n"
        "s1,a/000.png,cat,train\n"
        's1,a/001.png,"dog, small",Train\n'
        "\n"
        ",b/000.png,cat,\n"
        "s2,b/001.png,cat,VAL\n"
        "s3,b/002.png,cat,test\n"
    )
    assert source.classes == ("cat", "dog, small")
    assert source.train.labels.tolist() == [0, 1, 0]
    assert list(source.train.groups) == ["s1", "s1", ""]
    assert list(source.validation.names) == ["b/001.png"]
    assert list(source.test.groups) == ["s3"]


def test_a_byte_order_mark_and_windows_line_ends_are_fine(manifest):
    source = manifest("path,label\r\na/000.png,x\r\na/001.png,y\r\n", encoding="utf-8-sig")
    assert source.classes == ("x", "y")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na/000.png,x\na/001.png\n", r"list.csv line 3: 1 cells, expected 2 \(path,label\)"),
        ("path,label\na/000.png,x\n\n,y\n", "line 4: path is empty"),
        ("path,label\na/000.png, \n", "line 2: label is empty"),
        ("path,label,split\na/000.png,x,tset\n", "line 2: unknown split 'tset'; did you mean 'test'"),
        ("path,label\na/000.png,x\na/gone.png,y\na/lost.png,y\n", "line 3: .*gone.png is no file, nor .* 1"),
        ("path,label\na/000.png,x\na/001.png,y\na/000.png,y\n", "line 4: 'a/000.png' is on line 2, too"),
        ('path,label\na/000.png,"x\n', r"line 2: unexpected end of data"),
        ("path;label\na/000.png;x\n", "unknown column 'path;label' in the first line.*separated by commas"),
        ("path,labels\na/000.png,x\n", "unknown column 'labels'.*did you mean 'label'"),
        ("path,split\na/000.png,train\n", "the first line is 'path,split', expected path,label"),
        ("path,label,label\na/000.png,x,y\n", "the first line is"),
        ("path,label\n", "lists no image"),
        ("", "lists no image"),
        ("path,label,split\na/000.png,x,test\n", "has no training image"),
    ],
    ids=[
        "short-row", "no-path", "no-label", "unknown-split", "missing-file", "twice", "open-quote",
        "semicolons", "unknown-column", "missing-column", "column-twice", "no-rows", "empty", "no-training",
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named_with_its_line(manifest, text, message):
    with pytest.raises(DataError, match=message):
        manifest(text)


def test_a_label_outside_the_classes_is_named_with_its_line(manifest):
    with pytest.raises(DataError, match=r"list.csv line 3: 'dgo' is not among the 2 classes; did you mean 'dog'"):
        manifest("path,label\na/000.png,cat\na/001.png,dgo\n", classes=("cat", "dog"))


def test_another_encoding_and_a_missing_manifest_are_named(manifest, folder):
    with pytest.raises(DataError, match="is not UTF-8"):
        manifest("path,label\na/000.png,größe\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"manifest .*other.csv does not exist"):
        read(folder({"a": 1, "b": 1}), manifest="other.csv")
