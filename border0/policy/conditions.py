"""Parses `condition`: who, where and when.

Times are RFC 3339 or a plain date (midnight UTC) for `after` and `before`, `HH:MM UTC` or
`HH:MM:SS UTC` for the time of day. Addresses are CIDR ranges or single addresses.

Source: Border0's policy document, version 2; RFC 3339 section 5.6.
"""

import re
from datetime import UTC, date, datetime, time
from ipaddress import IPv4Network, IPv6Network, ip_network

from border0.policy.model import Condition, When, Where, Who
from border0.policy.reading import Reader

_TIME_OF_DAY = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))? UTC\Z", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII
)
_COUNTRY = re.compile(r"[A-Za-z]{2}\Z", re.ASCII)


def parse_condition(root: Reader) -> Condition:
    """The `condition` key of a document; absent means that it always holds.

    :raises PolicyError: an unknown key, a wrong type or value.
    """
    reader = root.child("condition", ("who", "where", "when"))
    if reader is None:
        return Condition()
    return Condition(_who(reader), _where(reader), _when(reader))


def _who(condition: Reader) -> Who | None:
    reader = condition.child("who", ("email", "group", "service_account"))
    if reader is None:
        return None
    return Who(reader.strings("email"), reader.strings("group"), reader.strings("service_account"))


def _where(condition: Reader) -> Where | None:
    reader = condition.child("where", ("allowed_ip", "country", "country_not"))
    if reader is None:
        return None
    networks: list[IPv4Network | IPv6Network] = []
    for index, text in enumerate(reader.strings("allowed_ip") or ()):
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            raise reader.error(
                f"allowed_ip[{index}]", f'"{text}" is no address and no range in CIDR notation'
            ) from None
    return Where(tuple(networks), _countries(reader, "country"), _countries(reader, "country_not"))


def _countries(reader: Reader, key: str) -> tuple[str, ...]:
    countries = reader.strings(key) or ()
    for index, country in enumerate(countries):
        if not _COUNTRY.match(country):
            raise reader.error(
                f"{key}[{index}]", f'"{country}" is no two-letter country code (ISO 3166-1)'
            )
    return tuple(country.upper() for country in countries)


def _when(condition: Reader) -> When | None:
    keys = ("after", "before", "time_of_day_after", "time_of_day_before")
    reader = condition.child("when", keys)
    if reader is None:
        return None
    return When(
        _instant(reader, "after"),
        _instant(reader, "before"),
        _time_of_day(reader, "time_of_day_after"),
        _time_of_day(reader, "time_of_day_before"),
    )


def _instant(reader: Reader, key: str) -> datetime | None:
    text = reader.string(key)
    if not text:
        return None
    try:
        if _DATE.match(text):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        match = _RFC3339.match(text)
        if match:
            day, clock, fraction, zone = match.groups()
            micros = ((fraction or ".")[1:] + "000000")[:6]
            zone = "+00:00" if zone in "Zz" else zone
            return datetime.fromisoformat(f"{day}T{clock}.{micros}{zone}").astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise reader.error(
        key, f'"{text}" is no time; write 2026-01-31T08:00:00Z or the date 2026-01-31'
    )


def _time_of_day(reader: Reader, key: str) -> time | None:
    text = reader.string(key)
    if not text:
        return None
    match = _TIME_OF_DAY.match(text)
    if not match:
        raise reader.error(key, f'"{text}" is no time of day; write 07:00 UTC or 07:00:30 UTC')
    hour, minute, second = match.groups()
    return time(int(hour), int(minute), int(second or 0))
