"""Every claim by its name."""

from collections.abc import Mapping

from stillmotion.claims import cameras, moving
from stillmotion.claims.finding import Claim

CLAIMS: Mapping[str, Claim] = {claim.name: claim for claim in (moving.CLAIM, cameras.CLAIM)}
