"""Files that hold no weights, or not whole ones, are refused by the name of what they are, before anything is loaded."""

import gzip
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import stillmotion as sm
from stillmotion.errors import FileError

from .conftest import reference_motion, write

READERS: list[Callable[[Path], object]] = [sm.load, sm.inspect]


@pytest.fixture(params=READERS, ids=["load", "inspect"])
def read(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return request.param


def refusal(read: Callable[[Path], object], path: Path) -> str:
    """Return how a file is refused; every refusal names the file."""
    with pytest.raises(FileError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing(read: Callable, tmp_path: Path) -> None:
    assert "does not exist" in refusal(read, tmp_path / "mm.ckpt")


def test_missing_but_nearly_there(read: Callable, tmp_path: Path) -> None:
    write(tmp_path / "v3_sd15_mm.ckpt.ckpt", reference_motion())
    assert "Did you mean v3_sd15_mm.ckpt.ckpt?" in refusal(read, tmp_path / "v3_sd15_mm.ckpt")


def test_missing_with_its_folder(read: Callable, tmp_path: Path) -> None:
    assert "Nor does its folder" in refusal(read, tmp_path / "models" / "mm.ckpt")


def test_broken_link(read: Callable, tmp_path: Path) -> None:
    link = tmp_path / "mm.ckpt"
    link.symlink_to(tmp_path / "blobs" / "0123")
    assert "is a link to" in refusal(read, link)


def test_folder_without_weights(read: Callable, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    assert "a folder without weights" in refusal(read, tmp_path)


def test_folder_with_a_choice(read: Callable, tmp_path: Path) -> None:
    for name in ("a.ckpt", "b.ckpt"):
        write(tmp_path / name, reference_motion())
    assert "a.ckpt, b.ckpt" in refusal(read, tmp_path)


def test_device(read: Callable) -> None:
    assert "not a regular file" in refusal(read, Path(os.devnull))


@pytest.mark.parametrize("name", ["mm.ckpt", "mm.safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>", "an HTML page"),
        (b"\n\n<html lang='en'>" + b"<p>no</p>" * 9000, "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1672119\n", "git-LFS pointer"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML message"),
        (b'{"error": "Invalid username or password."}', "Invalid username"),
        (b"Entry not found", "plain text: 'Entry not found'"),
        (gzip.compress(b"weights", mtime=0), "gzip archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7-Zip archive"),
        (b"GGUF" + bytes(99), "a GGUF file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a PNG picture"),
        (bytes(257) + b"ustar" + bytes(250), "a tar archive"),
        (bytes(5000), "filled with zeros"),
        (bytes(range(1, 255)) * 9, "neither safetensors nor a PyTorch checkpoint"),
    ],
)
def test_what_is_taken_for_weights(read: Callable, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert words in refusal(read, path)


def test_size_that_a_pointer_stands_for(tmp_path: Path) -> None:
    path = tmp_path / "mm.ckpt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1672119\n")
    assert "1672119 bytes" in refusal(sm.inspect, path)


class TestSafetensors:
    @pytest.fixture
    def whole(self, tmp_path: Path) -> Path:
        return write(tmp_path / "mm.safetensors", reference_motion())

    def test_cut_short(self, read: Callable, whole: Path) -> None:
        size = whole.stat().st_size
        os.truncate(whole, size // 2)
        message = refusal(read, whole)
        assert f"its header says {size:,} bytes, the file has {size // 2:,}" in message

    def test_cut_within_its_header(self, read: Callable, whole: Path) -> None:
        os.truncate(whole, 100)
        assert "its header alone says" in refusal(read, whole)

    def test_too_long(self, read: Callable, whole: Path) -> None:
        with whole.open("ab") as file:
            file.write(b"more")
        assert "damaged safetensors" in refusal(read, whole)

    def test_header_of_nonsense(self, read: Callable, whole: Path) -> None:
        data = bytearray(whole.read_bytes())
        data[9:19] = b"%%%%%%%%%%"
        whole.write_bytes(data)
        assert "header is damaged" in refusal(read, whole)

    @pytest.mark.parametrize(
        "entry",
        [
            {"data_offsets": [0, 8]},
            {"dtype": "F32", "shape": [2], "data_offsets": [4, 8]},
            {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
            {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
            {"dtype": "F77", "shape": [2], "data_offsets": [0, 8]},
        ],
    )
    def test_header_that_cannot_be(self, read: Callable, tmp_path: Path, entry: dict) -> None:
        text = json.dumps({"x": entry}).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
        assert "damaged safetensors" in refusal(read, path)

    def test_without_a_tensor(self, read: Callable, tmp_path: Path) -> None:
        path = write(tmp_path / "none.safetensors", {})
        assert "without a single tensor" in refusal(read, path)

    def test_under_another_ending(self, tmp_path: Path) -> None:
        path = write(tmp_path / "mm.safetensors", reference_motion()).rename(tmp_path / "mm.ckpt")
        assert sm.inspect(path).container == "safetensors"
        assert isinstance(sm.load(path), sm.MotionModule)


class TestPickles:
    @pytest.fixture
    def whole(self, module_file: Path) -> Path:
        return module_file

    def test_zip_cut_short(self, read: Callable, whole: Path) -> None:
        os.truncate(whole, whole.stat().st_size // 2)
        assert "cut short" in refusal(read, whole)

    def test_older_pickle_cut_short(self, read: Callable, tmp_path: Path) -> None:
        path = tmp_path / "mm.ckpt"
        torch.save(reference_motion(), path, _use_new_zipfile_serialization=False)
        os.truncate(path, path.stat().st_size // 2)
        assert "cut short" in refusal(read, path)

    def test_zip_of_something_else(self, read: Callable, whole: Path, tmp_path: Path) -> None:
        path = tmp_path / "mm.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(whole, "v3_sd15_mm.ckpt")
        assert "a zip archive that holds v3_sd15_mm.ckpt" in refusal(read, path)

    def test_program(self, read: Callable, tmp_path: Path) -> None:
        path = tmp_path / "traced.pt"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"")
            archive.writestr("archive/constants.pkl", b"")
        assert "TorchScript" in refusal(read, path)

    @pytest.mark.parametrize("content", [[1, 2], "text", {"epoch": 3}])
    def test_no_named_tensors(self, read: Callable, tmp_path: Path, content: object) -> None:
        refusal(read, write(tmp_path / "state.pt", content))

    def test_plain_pickle(self, read: Callable, tmp_path: Path) -> None:
        path = tmp_path / "settings.pkl"
        path.write_bytes(pickle.dumps({"a": 1}))
        refusal(read, path)


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.made),)


def _torch_zip(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _torch_pickle(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize("where", ["value", "key beside tensors", "whole"])
@pytest.mark.parametrize(
    "packed",
    [_torch_zip, _torch_pickle, *[lambda content, p=p: pickle.dumps(content, protocol=p) for p in range(6)]],
    ids=["zip", "older", *[f"protocol-{p}" for p in range(6)]],
)
def test_pickle_with_code_is_refused_unrun(
    read: Callable, tmp_path: Path, packed: Callable[[object], bytes], where: str
) -> None:
    made = tmp_path / "made-by-the-pickle"
    code = Code(made)
    contents = {
        "value": {"state_dict": {"weight": code}},
        "key beside tensors": {"state_dict": {"weight": torch.zeros(2)}, "callback": code},
        "whole": code,
    }
    path = tmp_path / "mm.ckpt"
    path.write_bytes(packed(contents[where]))
    message = refusal(read, path)
    assert "refused" in message
    assert "Nothing of it was run" in message
    assert f"{os.mkdir.__module__}.mkdir" in message or where == "key beside tensors"
    assert not made.exists()
    torch.load(io.BytesIO(packed({"code": code})), weights_only=False) if packed in (_torch_zip, _torch_pickle) else (
        pickle.loads(packed(code))
    )
    assert made.exists()  # the same bytes do run elsewhere
