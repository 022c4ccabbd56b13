import errno
import io
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from nas.train.checkpoint import (
    load_network,
    load_state,
    load_weights,
    read_tensors,
    require_same,
    save_network,
    write_tensors,
)
from nas.train.loop import train
from nas.train.options import TrainOptions
from search_spaces.build import build
from search_spaces.errors import ConfigError, RunError
from tests.nas.train.tiny import digits, state, tiny


@pytest.fixture
def weights():
    return {"a.weight": torch.arange(6.0).view(2, 3), "n": torch.tensor(3), "empty": torch.zeros(0)}


def test_tensors_and_record_come_back(tmp_path, weights):
    path = tmp_path / "deep" / "file.safetensors"
    write_tensors(path, weights, {"epoch": 3, "nested": {"x": [1, None]}})
    tensors, record = read_tensors(path)
    assert record == {"epoch": 3, "nested": {"x": [1, None]}}
    assert tensors.keys() == weights.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in weights.items())
    assert [file.name for file in path.parent.iterdir()] == ["file.safetensors"]


def test_file_cut_or_changed_at_any_place_is_noticed(tmp_path, weights):
    path = tmp_path / "file.safetensors"
    write_tensors(path, weights, {})
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place])
        with pytest.raises(RunError, match=r"file\.safetensors"):
            read_tensors(path)
    for place in range(len(whole) - 8, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(RunError, match=r"file\.safetensors is damaged"):
            read_tensors(path)


def test_full_disk_leaves_the_old_file(tmp_path, weights, monkeypatch):
    path = tmp_path / "file.safetensors"
    write_tensors(path, weights, {"epoch": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="the disk is full"):
        write_tensors(path, weights, {"epoch": 2})
    monkeypatch.undo()
    assert read_tensors(path)[1] == {"epoch": 1}


def test_network_comes_back_from_its_file_alone(tmp_path):
    network = build(tiny(), seed=5)
    save_network(tmp_path / "net.safetensors", tiny(), network, {"metric": 0.5})
    architecture, loaded, record = load_network(tmp_path / "net.safetensors")
    assert architecture == tiny()
    assert record == {"metric": 0.5}
    assert not loaded.training
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_foreign_and_nameless_files_are_refused(tmp_path, weights):
    save_file(weights, tmp_path / "foreign.safetensors")
    with pytest.raises(RunError, match="was not written by nas"):
        read_tensors(tmp_path / "foreign.safetensors")
    write_tensors(tmp_path / "nameless.safetensors", weights, {})
    with pytest.raises(RunError, match="does not say of which network"):
        load_network(tmp_path / "nameless.safetensors")
    with pytest.raises(RunError, match=r"belongs to another network: .* has shape"):
        load_state(build(tiny()), build(tiny(width=16)).state_dict(), tmp_path / "wide.safetensors")


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": x}, lambda x: {"model": x, "epoch": 3}])
def test_pth_is_read_with_its_usual_wrappings(tmp_path, weights, wrap):
    torch.save(wrap({f"module.{name}": tensor for name, tensor in weights.items()}), tmp_path / "w.pth")
    loaded = load_weights(tmp_path / "w.pth")
    assert loaded.keys() == weights.keys()
    assert torch.equal(loaded["a.weight"], weights["a.weight"])


class Malicious:
    def __reduce__(self):
        return (print, ("run",))


def test_pth_that_would_run_code_is_refused(tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"a": Malicious()}))
    torch.save({"a": Malicious()}, tmp_path / "worse.pth")
    for name in ("bad.pth", "worse.pth"):
        with pytest.raises(RunError, match=f"{name} cannot be read as weights alone"):
            load_weights(tmp_path / name)
    assert capsys.readouterr().out == ""


def test_other_files_are_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file .*none.pth"):
        load_weights(tmp_path / "none.pth")
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"\.safetensors, \.pth or \.pt files, got .*w\.h5"):
        load_weights(tmp_path / "w.h5")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(RunError, match="holds no tensors by name"):
        load_weights(tmp_path / "list.pth")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match=r"torn.safetensors cannot be read"):
        load_weights(tmp_path / "torn.safetensors")


def test_weights_of_a_training_checkpoint_are_those_that_count(tmp_path):
    network = build(tiny(), seed=0)
    result = train(network, digits(), TrainOptions(epochs=1, ema=0.9), seed=0, folder=tmp_path)
    loaded = load_weights(result.checkpoint)
    expected = state(result.module)
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_first_difference_of_records_is_named_down_to_the_key(tmp_path):
    require_same({"seed": 1, "options": {"epochs": 2}}, {"seed": 1}, tmp_path / "f")
    with pytest.raises(RunError, match="made with epochs = 2, now epochs = 3"):
        require_same({"options": {"epochs": 2, "ema": 0}}, {"options": {"epochs": 3, "ema": 0}}, tmp_path / "f")


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves one tiny network, whole or its weights alone, and gives the file's bytes."""

    def save(content, **options):
        torch.save(content, tmp_path / "saved", **options)
        return (tmp_path / "saved").read_bytes()

    return save


NETWORK = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
OLD = {"_use_new_zipfile_serialization": False}


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "x")
    return buffer.getvalue()


def script():
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(NETWORK, torch.zeros(1, 3, 8, 8)), buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _: b"hello" * 99, r"it is no file of torch, it begins with b'he'"),
        (lambda _: b"", "it is empty"),
        (
            lambda save: save(NETWORK),
            r"it holds pickled objects such as torch\.nn\.modules\.\w+\.\w+, not only tensors",
        ),
        (
            lambda save: save(NETWORK, **OLD),
            r"it holds pickled objects such as torch\.nn\.\S+, not only tensors; unpickling them",
        ),
        (lambda save: save(NETWORK.state_dict())[:600], "it is damaged or was cut off"),
        (lambda save: save(NETWORK.state_dict(), **OLD)[:-20], "it is damaged or was cut off"),
        (lambda _: script(), "it is a TorchScript archive"),
        (lambda _: zipped(), "it is a zip archive that torch.save did not write"),
    ],
    ids=["junk", "empty", "a module", "an old module", "cut", "an old one cut", "TorchScript", "another zip"],
)
def test_a_file_that_holds_no_weights_alone_is_told_for_what_it_is(tmp_path, make, reason, saved):
    path = tmp_path / "w.pth"
    path.write_bytes(make(saved))
    with pytest.raises(RunError, match=f"alone: {reason}.*; expected a file by torch.save") as error:
        load_weights(path)
    assert "\x1b" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_a_module_damaged_anywhere_is_refused_in_one_line(tmp_path, saved):
    whole, path = bytearray(saved(NETWORK)), tmp_path / "w.pth"
    place = whole.index(b"\x80\x02")
    for offset in range(place, place + 600, 3):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(RunError, match="cannot be read as weights alone"):
            load_weights(path)


def test_a_given_file_is_not_advised_to_be_made_again(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match=r"torn.safetensors cannot be read .*copy it again$"):
        load_weights(tmp_path / "torn.safetensors")
