"""`fl-gateway round`: open a round, see the rounds, halt one, put its deadline off, end its intake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import click

from aggregation.errors import PolicyError
from audit.reading import reading
from gateway.cli.opening import open_console
from gateway.paths import insist_number
from gateway.rounds.closing import close_round
from gateway.rounds.deadlines import put_off
from gateway.rounds.pausing import pause as pause_round
from gateway.rounds.pausing import resume as resume_round
from gateway.rounds.record import Round, list_rounds
from gateway.services import utc_now

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
_NUMBER = click.argument("number", type=click.IntRange(min=1))
_LONGEST_S = 3650 * 86_400


class _Time(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value} is no time such as 2026-12-24T18:00:00Z", param, ctx)
        if time.tzinfo is None:
            self.fail(f"{value} has no zone: add Z for UTC", param, ctx)
        return time


@click.group("round")
def round_() -> None:
    """Training rounds."""


@round_.command()
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--planned", "planned_clients", type=int, help="How many clients are planned.")
@click.option("--min", "min_clients", type=int, help="Fewest updates that make a model.")
@click.option("--base", "base_version", help="Model version to build on; the current one if not given.")
@click.option(
    "--duration", "duration_s", type=click.IntRange(1, _LONGEST_S), help="Seconds until the deadline."
)
@click.option("--deadline", type=_Time(), help="The deadline, as 2026-12-24T18:00:00Z.")
@click.option("--select", "strategy", help="Which clients: all, random, fair or poisson.")
@click.option("--mechanism", help="Privacy mechanism: none or gaussian.")
@click.option("--unit", help="Privacy unit: client or record.")
@click.option("--clip-norm", type=float, help="Norm to which updates are clipped.")
@click.option("--noise-multiplier", type=float, help="Noise, in multiples of the clipping norm.")
@click.option("--epsilon", type=float, help="Epsilon of this round, instead of a noise multiplier.")
@click.option("--delta", type=float, help="Delta of the epsilon.")
@_AS_JSON
def start(*, file: IO[bytes] | None, as_json: bool, **options: Any) -> None:
    """Open a round as FILE says, in the JSON form of `POST /api/v1/rounds` (- reads standard input).

    Options add to FILE, or replace what it says.
    """
    # The API and numpy take their time to load, and the other commands need neither.
    from gateway.api.rounds import RoundWish, round_request
    from gateway.rounds.opening import open_round
    from gateway.wire import parse_json

    with open_console() as services:
        body = parse_json(dict[str, Any], file.read()) if file else {}
        wished = json.dumps(_wish(body, options))
        request = round_request(parse_json(RoundWish, wished), services)
        try:
            made = open_round(services, request, remember=lambda _: lambda _: None)
        except PolicyError as error:
            raise click.UsageError(f"{error.field}: {error}") from error
    _print(made, f"round {made.round_number} is {made.status.value}", as_json=as_json)


@round_.command()
@click.option("--last", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@_AS_JSON
def status(*, last: int, as_json: bool) -> None:
    """Show the last rounds, the newest first."""
    with open_console() as services, reading(services.engine) as conn:
        found, _ = list_rounds(conn, limit=last, offset=0)
    if as_json:
        click.echo(json.dumps([_told(one) for one in found]))
        return
    for one in found:
        end = one.failure or one.result_version or f"until {one.deadline:%Y-%m-%d %H:%M:%S}Z"
        state = "paused" if one.paused_at else one.status.value
        click.echo(f"round {one.round_number:<6}{state:<12}base {one.base_version:<10}{end}")


@round_.command()
@_NUMBER
@_AS_JSON
def close(*, number: int, as_json: bool) -> None:
    """End the intake of round NUMBER: what came is aggregated, or the round fails below its minimum.

    A round that is still drawing its clients, and a Poisson round, end without a model.
    """
    with open_console() as services:
        closed = close_round(services, insist_number(number))
    _print(closed, f"round {number} takes no more updates", as_json=as_json)


@round_.command()
@_NUMBER
@_AS_JSON
def pause(*, number: int, as_json: bool) -> None:
    """Take no updates for round NUMBER until `round resume`; its deadline waits."""
    with open_console() as services:
        paused = pause_round(services, insist_number(number))
    _print(paused, f"round {number} is paused", as_json=as_json)


@round_.command()
@_NUMBER
@_AS_JSON
def resume(*, number: int, as_json: bool) -> None:
    """Let the paused round NUMBER go on; its deadline moves by the time that it was paused."""
    with open_console() as services:
        resumed = resume_round(services, insist_number(number))
    _print(resumed, f"round {number} goes on until {_shown(resumed.deadline)}", as_json=as_json)


@round_.command()
@_NUMBER
@click.option("--by", "by_s", type=click.IntRange(1, _LONGEST_S), help="Seconds from now.")
@click.option("--deadline", type=_Time(), help="The new deadline, as 2026-12-24T18:00:00Z.")
@_AS_JSON
def extend(*, number: int, by_s: int | None, deadline: datetime | None, as_json: bool) -> None:
    """Put the deadline of round NUMBER off."""
    if (by_s is None) == (deadline is None):
        raise click.UsageError("give either --by or --deadline")
    with open_console() as services:
        until = deadline or services.clock() + timedelta(seconds=by_s or 0)
        extended = put_off(services, insist_number(number), until)
    _print(extended, f"round {number} goes on until {_shown(extended.deadline)}", as_json=as_json)


def _wish(body: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The body that the API would be sent."""
    given = {name: value for name, value in options.items() if value is not None}
    if "duration_s" in given and "deadline" in given:
        raise click.UsageError("give either --duration or --deadline")
    wish = dict(body)
    if "duration_s" in given:
        given["deadline"] = utc_now() + timedelta(seconds=given.pop("duration_s"))
    if "deadline" in given:
        given["deadline"] = given["deadline"].isoformat()
    if "strategy" in given:
        wish["selection"] = _member(wish, "selection") | {"strategy": given.pop("strategy")}
    top = {
        name: given.pop(name)
        for name in ("planned_clients", "min_clients", "base_version", "deadline")
        if name in given
    }
    if given:
        wish["privacy"] = _member(wish, "privacy") | given
    return wish | top


def _member(wish: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = wish.get(name) or {}
    if not isinstance(found, dict):
        raise click.UsageError(f"{name} in FILE is no object")
    return found


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _print(one: Round, said: str, *, as_json: bool) -> None:
    click.echo(json.dumps(_told(one)) if as_json else said)


def _told(one: Round) -> dict[str, Any]:
    return {
        "round_number": one.round_number,
        "status": one.status.value,
        "paused": one.paused_at is not None,
        "base_version": one.base_version,
        "result_version": one.result_version,
        "num_updates": one.num_updates,
        "deadline": one.deadline.isoformat(),
        "failure": one.failure,
    }
