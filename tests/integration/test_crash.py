"""Killed under load again and again, a server still has what it acknowledged; see `helpers.crash` for the rules."""

import pytest
from helpers.crash import CAMPAIGN_ROUNDS, Campaign


@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_what_was_acknowledged_survives_being_killed(tmp_path, seed):
    """Ten rounds in one directory; `make torture` runs hundreds, each directory with another seed."""
    campaign = Campaign(tmp_path, seed)
    await campaign.run(CAMPAIGN_ROUNDS, print)  # shown with the seed when it fails
    assert campaign.model.acknowledged > 50_000
