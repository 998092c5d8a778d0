"""The noise seeds of rounds: sealed, opened once for the frozen cohort, destroyed (RULES 7, 8)."""

from __future__ import annotations

import os

from sqlalchemy import Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from audit.reading import reading
from compliance.clock import Clock
from compliance.errors import SeedGone
from compliance.keyring.keys import SeedState
from compliance.keyring.tables import round_seeds
from compliance.keyring.wrapping import KEY_BYTES, MasterKey


class RoundSeeds:
    """Keeps each round's seed until its release has committed."""

    def __init__(self, engine: Engine, master: MasterKey, clock: Clock) -> None:
        self._engine = engine
        self._master = master
        self._clock = clock

    def make(self, round_id: str) -> None:
        """Commit a seed for the round; one that is there already is kept."""
        row = {
            "round_id": round_id,
            "state": SeedState.SEALED.value,
            "wrapped": self._master.wrap(os.urandom(KEY_BYTES), "round_seeds", round_id),
            "created_at": self._clock(),
        }
        try:
            with self._engine.begin() as conn:
                conn.execute(insert(round_seeds).values(row))
        except IntegrityError:
            if self.state(round_id) is SeedState.ABSENT:
                raise

    def open(self, round_id: str) -> bytes:
        """The seed itself; that it was opened is committed first: its spend can then not be released."""
        opened = (
            update(round_seeds)
            .where(round_seeds.c.round_id == round_id, round_seeds.c.state == SeedState.SEALED.value)
            .values(state=SeedState.OPENED.value, opened_at=self._clock())
        )
        with self._engine.begin() as conn:
            conn.execute(opened)
            query = select(round_seeds.c.wrapped).where(round_seeds.c.round_id == round_id)
            wrapped = conn.execute(query).scalar_one_or_none()
        if wrapped is None:
            raise SeedGone(round_id)
        return self._master.unwrap(wrapped, "round_seeds", round_id)

    def state(self, round_id: str) -> SeedState:
        """Whether the seed is there, and whether it was ever opened."""
        query = select(round_seeds.c.state).where(round_seeds.c.round_id == round_id)
        with reading(self._engine) as conn:
            state = conn.execute(query).scalar_one_or_none()
        return SeedState.ABSENT if state is None else SeedState(state)

    def destroy(self, round_id: str) -> bool:
        """Delete the seed; True if there was one."""
        with self._engine.begin() as conn:
            gone = conn.execute(delete(round_seeds).where(round_seeds.c.round_id == round_id))
        return gone.rowcount > 0

    def rounds(self) -> list[str]:
        """The rounds that have a seed."""
        with reading(self._engine) as conn:
            return list(
                conn.execute(select(round_seeds.c.round_id).order_by(round_seeds.c.round_id)).scalars()
            )
