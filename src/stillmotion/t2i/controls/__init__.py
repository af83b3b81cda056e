"""What steers clips beside the prompt: ControlNet, T2I-Adapter, IP-Adapter and SparseCtrl, loaded and set on pictures."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.t2i.controls.controlnet import ControlNet as ControlNet
    from stillmotion.t2i.controls.ip_adapter import IPAdapter as IPAdapter
    from stillmotion.t2i.controls.loading import load_control as load_control
    from stillmotion.t2i.controls.model import ControlModel as ControlModel
    from stillmotion.t2i.controls.sparse_control import SparseControl as SparseControl
    from stillmotion.t2i.controls.t2i_adapter import T2IAdapter as T2IAdapter

NAMES = lazily(__name__)
