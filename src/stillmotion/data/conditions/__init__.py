"""What steers a clip: pictures, folders of frames and videos, read as frames of the clip's own size."""

from stillmotion.data.conditions.footage import Footage as Footage
from stillmotion.data.conditions.footage import open_footage as open_footage
from stillmotion.data.conditions.pictures import read_picture as read_picture
from stillmotion.data.conditions.preprocessing import canny as canny
from stillmotion.data.conditions.preprocessing import require_canny as require_canny
