"""Loading a control model, whatever it is and whatever its packaging."""

from pathlib import Path

from stillmotion.t2i.controls.controlnet import ControlNet
from stillmotion.t2i.controls.ip_adapter import IPAdapter
from stillmotion.t2i.controls.model import ControlModel
from stillmotion.t2i.controls.sparse_control import SparseControl
from stillmotion.t2i.controls.t2i_adapter import T2IAdapter
from stillmotion.t2i.controls.weights import kind_of, read_control
from stillmotion.t2i.models import T2I


def load_control(source: str | Path, *, t2i: T2I, image_encoder: str | Path | None = None) -> ControlModel:
    """Return the control model of a file or a diffusers folder, for `t2i`, in its dtype and place. No network is used.

    Args:
        source: A ControlNet, T2I-Adapter or SparseCtrl encoder as a diffusers folder, or as a single file in original or
            diffusers' names; or the file of an IP-Adapter.
        t2i: The image model that is steered. Nothing is put into it before `attached()`.
        image_encoder: The folder of the CLIP image encoder that an IP-Adapter sees pictures through; by default the
            folder `image_encoder` beside its file.

    Raises:
        FileError: The file is missing, damaged, unsafe, or no control; the message says what it is.
        MismatchError: It was made for another family or size of image models, or has weights missing or too many.
    """
    weights = read_control(Path(source).expanduser())
    match kind_of(weights):
        case "controlnet":
            return ControlNet.load(weights, t2i)
        case "t2i_adapter":
            return T2IAdapter.load(weights, t2i)
        case "sparse_control":
            return SparseControl.load(weights, t2i)
        case "ip_adapter":
            return IPAdapter.load(weights, t2i, image_encoder)
