"""Evaluates a condition clause by clause, so that a decision can say why.

Each clause is met, not met, or unknown (no address, no country). A grant needs every clause met;
a `deny` applies unless some clause is surely not met: what is unknown never helps the one who asks.

Rules where Border0's documents leave a choice:
- `who`: one filled list must match; lists that are empty beside a filled one are ignored. With
  only empty lists (or none) in a `who` that is present, nobody matches. E-mail addresses compare
  without regard to ASCII case; groups by id or name, exactly.
- `country` and `country_not`: an empty list is no restriction; with a filled one an unknown
  country is not known to be met.
- `after` and `time_of_day_after` include their instant, `before` excludes it. A time of day window
  whose beginning is later than its end runs over midnight; one without length is never open.
"""

from dataclasses import dataclass
from datetime import UTC, time
from ipaddress import ip_address

from border0.policy.model import Policy, Situation, Subject, When, Where, Who

MET = "met"
NOT_MET = "not met"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Step:
    """One clause of one policy: `clause` is its path, `detail` what was compared."""

    policy: str
    clause: str
    outcome: str
    detail: str

    def __str__(self) -> str:
        return f"{self.policy}: {self.clause}: {self.outcome} ({self.detail})"


def steps(policy: Policy, subject: Subject, situation: Situation) -> list[Step]:
    """Every clause of the policy's condition with its outcome; empty when there is none.

    :raises ValueError: `situation.time` has no time zone.
    """
    if situation.time.tzinfo is None:
        raise ValueError("the time of a situation needs a time zone")
    found: list[Step] = []
    condition = policy.condition
    if condition.who is not None:
        found.extend(_who(policy.name, condition.who, subject))
    if condition.where is not None:
        found.extend(_where(policy.name, condition.where, situation))
    if condition.when is not None:
        found.extend(_when(policy.name, condition.when, situation))
    return found


def _who(policy: str, who: Who, subject: Subject) -> list[Step]:
    caller = subject.user or subject.service_account or "the caller"
    user = subject.user.lower()
    parts: list[tuple[str, bool, str]] = []
    if who.email:
        hit = bool(user) and user in {email.lower() for email in who.email}
        parts.append(("email", hit, f"{caller} is {'' if hit else 'not '}listed"))
    if who.group:
        hit = not subject.groups.isdisjoint(who.group)
        parts.append(("group", hit, f"{caller} is in {'one' if hit else 'none'} of its groups"))
    if who.service_account:
        account = subject.service_account
        hit = bool(account) and account in who.service_account
        text = f"service account {account} is" if account else f"{caller} is"
        parts.append(("service_account", hit, f"{text} {'' if hit else 'not '}listed"))
    if not parts:
        return [Step(policy, "condition.who", NOT_MET, "all its lists are empty")]
    hits = [part for part in parts if part[1]]
    shown = hits or parts
    if len(shown) > 1 and not hits:
        detail = f"{caller} is in none of its lists"
        return [Step(policy, "condition.who", NOT_MET, detail)]
    return [
        Step(policy, f"condition.who.{name}", MET if hit else NOT_MET, detail)
        for name, hit, detail in shown
    ]


def _where(policy: str, where: Where, situation: Situation) -> list[Step]:
    found = []
    if where.allowed_ip:
        outcome, detail = _address(where, situation.address)
        found.append(Step(policy, "condition.where.allowed_ip", outcome, detail))
    country = situation.country.upper() if situation.country else None
    for key, listed, wanted in (
        ("country", where.country, True),
        ("country_not", where.country_not, False),
    ):
        if not listed:
            continue
        if country is None:
            outcome, detail = UNKNOWN, "the country is unknown"
        else:
            outcome = MET if (country in listed) is wanted else NOT_MET
            detail = f"country {country} is {'' if country in listed else 'not '}listed"
        found.append(Step(policy, f"condition.where.{key}", outcome, detail))
    return found


def _address(where: Where, text: str | None) -> tuple[str, str]:
    if not text:
        return UNKNOWN, "the address is unknown"
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return UNKNOWN, "the address is unknown"
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    for network in where.allowed_ip:
        if address.version == network.version and address in network:
            return MET, f"address {address} is in {network}"
    return NOT_MET, f"address {address} is in none of the listed ranges"


def _when(policy: str, when: When, situation: Situation) -> list[Step]:
    found = []
    now = situation.time.astimezone(UTC)
    shown = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    if when.after is not None:
        hit = now >= when.after
        detail = f"{shown} is {'' if hit else 'not '}after {when.after:%Y-%m-%dT%H:%M:%SZ}"
        found.append(Step(policy, "condition.when.after", MET if hit else NOT_MET, detail))
    if when.before is not None:
        hit = now < when.before
        detail = f"{shown} is {'' if hit else 'not '}before {when.before:%Y-%m-%dT%H:%M:%SZ}"
        found.append(Step(policy, "condition.when.before", MET if hit else NOT_MET, detail))
    found.extend(_time_of_day(policy, when, now.time()))
    return found


def _time_of_day(policy: str, when: When, clock: time) -> list[Step]:
    after, before = when.time_of_day_after, when.time_of_day_before
    shown = clock.strftime("%H:%M:%S UTC")
    if after is not None and before is not None and after > before:
        hit = clock >= after or clock < before
        detail = f"{shown} is {'' if hit else 'not '}between {after} and {before} over midnight"
        clause = "condition.when.time_of_day_after"
        return [Step(policy, clause, MET if hit else NOT_MET, detail)]
    found = []
    if after is not None:
        hit = clock >= after
        detail = f"{shown} is {'' if hit else 'not '}after {after} UTC"
        clause = "condition.when.time_of_day_after"
        found.append(Step(policy, clause, MET if hit else NOT_MET, detail))
    if before is not None:
        hit = clock < before
        detail = f"{shown} is {'' if hit else 'not '}before {before} UTC"
        clause = "condition.when.time_of_day_before"
        found.append(Step(policy, clause, MET if hit else NOT_MET, detail))
    return found
