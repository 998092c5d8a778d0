"""Round seeds: sealed, opened for good, destroyed (RULES 7, 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from compliance.errors import SeedGone
from compliance.keyring.keys import SeedState

if TYPE_CHECKING:
    from conftest import House


def test_a_seed_goes_from_sealed_to_opened_to_absent(house: House) -> None:
    """RULES 8: whether the seed was opened decides whether its spend can be released."""
    keystore = house.keystore
    keystore.new_seed("round-7")
    assert keystore.seed_state("round-7") is SeedState.SEALED

    seed = keystore.open_seed("round-7")

    assert len(seed) == 32
    assert keystore.seed_state("round-7") is SeedState.OPENED
    assert keystore.open_seed("round-7") == seed
    assert keystore.seeds() == ["round-7"]
    assert keystore.destroy_seed("round-7")
    assert keystore.seed_state("round-7") is SeedState.ABSENT


def test_a_destroyed_seed_cannot_be_opened(house: House) -> None:
    """RULES 7: a round whose seed is gone fails."""
    house.keystore.new_seed("round-7")
    house.keystore.destroy_seed("round-7")

    with pytest.raises(SeedGone):
        house.keystore.open_seed("round-7")


def test_a_seed_that_is_there_is_kept(house: House) -> None:
    """RULES 5: one noise for one cohort, however often the round is prepared."""
    house.keystore.new_seed("round-7")
    seed = house.keystore.open_seed("round-7")

    house.keystore.new_seed("round-7")

    assert house.keystore.open_seed("round-7") == seed
    assert house.keystore.seed_state("round-7") is SeedState.OPENED
