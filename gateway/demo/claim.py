"""The privacy claim of a run in plain sentences, never stronger than the run was (promise 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from gateway.demo.plan import PLANNED_RECORDS, Plan, Unit


@dataclass(frozen=True, slots=True)
class Sentence:
    """One aspect of the claim, and what is so."""

    aspect: str
    said: str


def privacy_claim(plan: Plan, epsilon_spent: float | None) -> tuple[Sentence, ...]:
    """What the released models hide, from whom, and what they do not hide."""
    if plan.unit is Unit.NONE or epsilon_spent is None:
        return (
            Sentence("Claim", "None. No noise was drawn: the models may reveal the silos' records."),
            Sentence("Log and erasure", "Work all the same; only the mathematical protection is missing."),
        )
    common = (
        Sentence(
            "Spent",
            f"epsilon {epsilon_spent:.4f} of {plan.epsilon:g}, at delta {plan.delta:g}, over all rounds",
        ),
        Sentence("Adjacency", f"add or remove one {plan.unit.value}"),
        Sentence("Mechanism", _mechanism(plan)),
        Sentence("Sampling", "none: every silo is asked in every round, and no amplification is claimed"),
    )
    return (*_unit_sentences(plan), *common, *_limits(plan))


def _mechanism(plan: Plan) -> str:
    return (
        "discrete Gaussian noise, added once a round by the gateway to an exact integer sum; "
        f"noise multiplier {plan.noise_multiplier:g}, clipping norm {plan.clip_norm:g}, "
        f"{plan.rounds} rounds composed exactly"
    )


def _unit_sentences(plan: Plan) -> tuple[Sentence, ...]:
    match plan.unit:
        case Unit.RECORD:
            return (
                Sentence("Unit", "one record, that is one image of a digit in one silo"),
                Sentence(
                    "Planned count", f"every round divides by {PLANNED_RECORDS} records, a public number"
                ),
                Sentence(
                    "Trust",
                    "Each silo is trusted to clip every record's step to the clipping norm; the gateway "
                    f"cannot see records. It bounds each silo's whole sum to {plan.silo_norm:g} itself.",
                ),
            )
        case Unit.CLIENT:
            return (
                Sentence("Unit", "one silo with all that it sends"),
                Sentence("Planned count", f"every round divides by {plan.clients} clients, a public number"),
                Sentence("Trust", "None in the silos: the gateway clips each update itself."),
                Sentence(
                    "What to expect",
                    f"Little. The noise that hides one client among {plan.clients} drowns most of what they "
                    "teach; this unit is for hundreds of clients and more.",
                ),
            )
        case Unit.NONE:
            return ()
    assert_never(plan.unit)


def _limits(plan: Plan) -> tuple[Sentence, ...]:
    several = (
        ""
        if plan.unit is Unit.CLIENT
        else " Somebody with several records is protected less (group privacy)."
    )
    return (
        Sentence(
            "Not covered",
            f"Who took part is not hidden; the claim is about the models' weights.{several} "
            "The gateway's operator, who holds the keys, is trusted with the un-noised updates.",
        ),
        Sentence(
            "Accuracy", "measured on 360 held-out images that no silo has, which the claim does not protect"
        ),
    )


def erasure_limit(plan: Plan) -> str:
    """What an erasure leaves behind in the models that were released before it."""
    match plan.unit:
        case Unit.RECORD:
            return (
                "The models released before cannot forget the silo. The claim above bounds what they reveal of each "
                "single record, not of the silo as a whole."
            )
        case Unit.CLIENT:
            return "The models released before cannot forget the silo; the claim above bounds what they reveal of it."
        case Unit.NONE:
            return "The models released before cannot forget the silo, and nothing bounds what they reveal of it."
    assert_never(plan.unit)
