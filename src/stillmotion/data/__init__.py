"""Clips on disk: written frame by frame, read back, described, and the record that travels inside them."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.data.cache_folder import CacheHeader as CacheHeader
    from stillmotion.data.camera import CAMERA_MOTIONS as CAMERA_MOTIONS
    from stillmotion.data.camera import CameraConfig as CameraConfig
    from stillmotion.data.camera import CameraMotion as CameraMotion
    from stillmotion.data.camera import camera_path as camera_path
    from stillmotion.data.conditions import Footage as Footage
    from stillmotion.data.conditions import canny as canny
    from stillmotion.data.conditions import open_footage as open_footage
    from stillmotion.data.conditions import read_picture as read_picture
    from stillmotion.data.conditions import require_canny as require_canny
    from stillmotion.data.filming import Filmed as Filmed
    from stillmotion.data.filming import Filming as Filming
    from stillmotion.data.filming import Kept as Kept
    from stillmotion.data.filming import Skipped as Skipped
    from stillmotion.data.filming import film as film
    from stillmotion.data.formats import FORMATS as FORMATS
    from stillmotion.data.formats import ClipFormat as ClipFormat
    from stillmotion.data.interpolation import Interpolator as Interpolator
    from stillmotion.data.interpolation import require_interpolation as require_interpolation
    from stillmotion.data.latents import Encode as Encode
    from stillmotion.data.latents import LatentCache as LatentCache
    from stillmotion.data.latents import recipe_on_cache as recipe_on_cache
    from stillmotion.data.latents import vae_fingerprint as vae_fingerprint
    from stillmotion.data.metadata import read_metadata as read_metadata
    from stillmotion.data.preparing import Prepared as Prepared
    from stillmotion.data.preparing import prepare as prepare
    from stillmotion.data.reading import ClipInfo as ClipInfo
    from stillmotion.data.reading import probe as probe
    from stillmotion.data.reading import read_clip as read_clip
    from stillmotion.data.reading import read_frames as read_frames
    from stillmotion.data.sampling import ClipRecipe as ClipRecipe
    from stillmotion.data.sampling import check_flip as check_flip
    from stillmotion.data.sampling import fit as fit
    from stillmotion.data.sampling import nearest_size as nearest_size
    from stillmotion.data.sampling import positions as positions
    from stillmotion.data.sheet import SheetWriter as SheetWriter
    from stillmotion.data.sheet import contact_sheet as contact_sheet
    from stillmotion.data.sources import ClipItem as ClipItem
    from stillmotion.data.sources import ClipSource as ClipSource
    from stillmotion.data.sources import Quarantine as Quarantine
    from stillmotion.data.sources import open_source as open_source
    from stillmotion.data.video import ClipWriter as ClipWriter
    from stillmotion.data.video import WrittenClip as WrittenClip
    from stillmotion.data.video import file_name as file_name
    from stillmotion.data.video import format_of as format_of
    from stillmotion.data.video import write_clip as write_clip
    from stillmotion.data.warping import along_path as along_path
    from stillmotion.data.warping import move_camera as move_camera

NAMES = lazily(__name__)
