"""What holds for all tests: no network, no cache of the user's, as many threads as there are cores.

Nothing of Stillmotion is imported here: jaxtyping's pytest option must come first, to run its shape annotations.
"""

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(Path(tempfile.gettempdir()) / "stillmotion-tests-have-no-hub")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("NO_COLOR", None)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Any:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address}; tests use no network")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()
