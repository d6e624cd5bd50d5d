"""`[control]`: which control plane a connector follows, and what it does without contact."""

import re
from dataclasses import dataclass
from pathlib import Path

from border0.control.member.url import parse_url
from border0.errors import ConfigError
from border0.secrets import Secret, resolve
from border0.tables import Table
from border0.trust import parse_pin

FOLDER = "connector"  # below state_dir; a home may also hold a device's membership
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)


@dataclass(frozen=True)
class ControlEntry:
    """One `[control]` table.

    :param ca: the pin of the control plane's authority; "" = the system's store decides.
    :param token: a reference to the code to join with when this machine has not joined; "" = none.
    :param offline_limit: seconds without contact after which `offline_policy` decides.
    :param offline_policy: `deny` (no new session, live ones end) or `keep`.
    """

    url: str
    ca: str
    token: str
    offline_limit: float
    offline_limit_text: str
    offline_policy: str
    base: Path

    def code(self) -> Secret | None:
        """The code to join with; raises ConfigError when the reference leads nowhere."""
        return resolve(self.token, self.base) if self.token else None


def read_control(table: Table, base: Path) -> ControlEntry:
    """The `[control]` table.

    :raises ConfigError: an unknown key, no address of a control plane, no pin, no duration.
    """
    url = table.text("url")
    try:
        url = parse_url(url).text
    except ConfigError as error:
        raise table.error(str(error), "url") from None
    ca = table.text("ca", "")
    try:
        ca = parse_pin(ca) if ca else ""
    except ConfigError as error:
        raise table.error(str(error), "ca") from None
    limit = table.text("offline_limit", "24h")
    entry = ControlEntry(
        url=url,
        ca=ca,
        token=table.text("token", ""),
        offline_limit=_seconds(table, limit),
        offline_limit_text=limit,
        offline_policy=table.choice("offline_policy", ("deny", "keep"), "deny"),
        base=base,
    )
    table.close()
    return entry


def _seconds(table: Table, text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None or not int(found[1]):
        raise table.error(
            f'{text!r} is no duration: write "24h", "90m", "7d" or "30s"', "offline_limit"
        )
    return float(int(found[1]) * _UNITS[found[2]])
