"""Files are whole or not there."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stillmotion.checkpoints.files import read_tensors, sha256
from stillmotion.checkpoints.writing import require_writable, write_pickle, write_tensors, written_beside
from stillmotion.errors import FileError

from .conftest import same


def test_tensors_of_every_sort(tmp_path: Path) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "shared": shared,
        "shared too": shared,
        "turned": shared.T,
        "part": shared[1:, ::2],
        "number": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "whole numbers": torch.arange(5),
        "truths": torch.tensor([True, False]),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "trained": torch.nn.Parameter(torch.ones(2)),
    }
    path = write_tensors(tmp_path / "new" / "folder" / "x.safetensors", tensors, {"größe": "√2"})
    expected = {name: tensor.detach() for name, tensor in tensors.items()}
    assert same(load_file(path), expected)  # the safetensors library's own reader
    read, metadata = read_tensors(path)
    assert same(read, expected)
    assert metadata == {"format": "pt", "größe": "√2"}


def test_no_dtype_is_lost(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="complex128"):
        write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(2, dtype=torch.complex128)})
    assert list(tmp_path.iterdir()) == []


def test_pickle_takes_no_more_room_than_its_tensors(tmp_path: Path) -> None:
    large = torch.zeros(1_000_000)
    path = write_pickle(tmp_path / "x.ckpt", {"state_dict": {"part": large[:10]}, "epoch": 3})
    assert path.stat().st_size < 10_000
    assert torch.load(path, weights_only=True)["epoch"] == 3


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with written_beside(tmp_path / "x.txt") as beside:
            beside.write_text("half")
            raise RuntimeError("the light went out")

    with pytest.raises(RuntimeError, match="the light went out"):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_what_fails_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("whole")

    def write_and_fail() -> None:
        with written_beside(path, overwrite=True) as beside:
            beside.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(FileError, match="No space left on device"):
        write_and_fail()
    assert path.read_text() == "whole"


def test_two_at_once_do_not_replace_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"

    def write_while_another_does() -> None:
        with written_beside(path) as beside:
            beside.write_text("mine")
            path.write_text("theirs")

    with pytest.raises(FileError, match="could not be written"):
        write_while_another_does()
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_room_on_disk_is_asked_for_first(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="the disk has"):
        require_writable(tmp_path / "x", num_bytes=1 << 60)


def test_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
