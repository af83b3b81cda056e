"""Every claim by its name."""

from collections.abc import Mapping

from stillmotion.claims import architectures, artefacts, cameras, moving, personal, rivals, schedules, sizes, steering
from stillmotion.claims.finding import Claim

_IN_ORDER = (moving, personal, artefacts, cameras, architectures, rivals, steering, schedules, sizes)
CLAIMS: Mapping[str, Claim] = {room.CLAIM.name: room.CLAIM for room in _IN_ORDER}
