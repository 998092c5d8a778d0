"""A gateway as in production: PostgreSQL, RabbitMQ, Redis and an S3 server, each a private throwaway instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from living.home import Home, home_in
from living.parts import COMMANDS, ServerPart, TreePart
from living.processes import Gateway, gateway_in
from services import postgresql, rabbitmq, redis_server, s3
from sqlalchemy import select

from audit.reading import reading
from gateway.tables import client_updates, model_versions

PARTS = ("web", "worker", "PostgreSQL", "RabbitMQ", "Redis", "S3")


@dataclass(frozen=True, slots=True)
class Servers:
    """The four servers that a gateway stands on."""

    database: postgresql.PostgreSQL
    broker: rabbitmq.RabbitMQ
    cache: redis_server.RedisServer
    blobs: s3.S3Server

    @contextmanager
    def home(self, directory: Path, **settings: str) -> Iterator[Home]:
        """An empty home on these servers; one at a time, since it empties the broker and the cache."""
        self.broker.empty()
        self.cache.client().flushall()
        chosen = {
            **self.blobs.settings(prefix=uuid4().hex),
            "queue_url": self.broker.url,
            "cache_url": self.cache.url,
            **settings,
        }
        with home_in(directory, self.database, kept_elsewhere=self.kept, **chosen) as home:
            yield home

    def kept(self) -> list[bytes]:
        """Every byte that broker, cache and S3 server keep."""
        cache = self.cache.client()
        cache.config_set("rdbcompression", "no")  # or a dump hides what it holds
        values = [key + (cache.dump(key) or b"") for key in cache.scan_iter()]
        files = [path.read_bytes() for path in self.blobs.directory.rglob("*") if path.is_file()]
        return [*values, *files, self.broker.bytes_kept()]


@dataclass(frozen=True, slots=True)
class Production:
    """A running gateway, and every part of it that may be hit."""

    servers: Servers
    gateway: Gateway

    def part(self, name: str) -> TreePart | ServerPart:
        """The part of that name (one of `PARTS`)."""
        if name in COMMANDS:
            return TreePart(self.gateway, name)
        servers: dict[str, Any] = {
            "PostgreSQL": self.servers.database,
            "RabbitMQ": self.servers.broker,
            "Redis": self.servers.cache,
            "S3": self.servers.blobs,
        }
        return ServerPart(name, servers[name])

    def missing_blobs(self) -> set[str]:
        """Blobs that a row names and that the store has not."""
        with self.gateway.home.stores() as services:
            with reading(services.engine) as conn:
                named = set(conn.execute(select(client_updates.c.blob_id)).scalars())
                urls = conn.execute(select(model_versions.c.model_blob_url)).scalars()
                named |= {url.removeprefix("blob:") for url in urls}
            return named - set(services.blobs.names())


@contextmanager
def servers(database: postgresql.PostgreSQL | None = None, *, s3_kind: str = "s3rver") -> Iterator[Servers]:
    """The servers, started anew (but for a database server that is there)."""
    with ExitStack() as stack:
        yield Servers(
            database or stack.enter_context(postgresql.running()),
            stack.enter_context(rabbitmq.running()),
            stack.enter_context(redis_server.running()),
            stack.enter_context(s3.running(s3_kind)),
        )


@contextmanager
def production(directory: Path) -> Iterator[Production]:
    """A gateway's process tree on servers of its own."""
    with (
        servers() as made,
        made.home(directory / "home") as home,
        gateway_in(home) as gateway,
    ):
        yield Production(made, gateway)
