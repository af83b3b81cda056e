"""The built wheel, installed elsewhere, animates with what it carries."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LARGEST_FILE, LARGEST_WEIGHTS = 15_000_000, 45_000_000  # bytes

pytestmark = pytest.mark.slow


def run(*words: str | Path, **options: object) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    # Should anything ask for a network, nobody answers.
    environment |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    ended = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, env=environment, **options
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    (made,) = folder.glob("stillmotion-*.whl")
    return made


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment with the wheel in it, and this one's packages but not its stillmotion."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A folder named in a .pth file is searched, but its own .pth files are not read: an editable install stays out.
    (site / "packages.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    where = run(python, "-c", "import stillmotion; print(stillmotion.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(site)
    return folder / "bin"


def test_it_carries_what_it_needs_and_little_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        sizes = {entry.filename: entry.file_size for entry in packed.infolist()}
    weights = {name: size for name, size in sizes.items() if name.startswith("stillmotion/toyworld/weights/")}
    assert any(name.endswith("_mm.safetensors") for name in weights)
    assert max(weights.values()) <= LARGEST_FILE and sum(weights.values()) <= LARGEST_WEIGHTS
    for needed in ("stillmotion/py.typed", "stillmotion/toyworld/weights/model_index.json"):
        assert needed in sizes
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in sizes)
    assert not [name for name in sizes if "__pycache__" in name or name.startswith("tests")]


def test_it_animates_offline(elsewhere: Path, tmp_path: Path) -> None:
    words = ["animate", "a red ball rolling right on green grass", "--num-inference-steps", "4", "--seed", "1"]
    shown = run(elsewhere / "stillmotion", *words, cwd=tmp_path)
    written = [tmp_path / line for line in shown.splitlines()]
    assert [path.name for path in written] == ["clip.mp4", "clip.gif"]
    assert all(path.stat().st_size > 1000 for path in written)


def test_its_types_are_seen(elsewhere: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import stillmotion as sm\n\nclip = sm.animate(sm.AnimateConfig(prompt='a ball'))\nreveal_type(clip)\n"
    )
    shown = run(sys.executable, "-m", "mypy", "--python-executable", elsewhere / "python", program, cwd=tmp_path)
    assert 'Revealed type is "stillmotion.animate.clip.Clip"' in shown
