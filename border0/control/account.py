"""The account of a user at a control plane: `account.json` in the home, mode 0600.

`{url, ca, authority, token, org, org_name}`; `authority` is the certificate (PEM) that the pin
`ca` stands for, both empty where the system's store decides.
"""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from border0 import privatefile
from border0.control.member.url import parse_url
from border0.errors import Border0Error, ConfigError
from border0.secrets import Secret

NAME = "account.json"
ADVICE = "no account here; sign in: border0 login URL --ca sha256:..."
_LIMIT = 1 << 20


@dataclass
class Account:
    """Who this user is, and where."""

    url: str
    ca: str
    authority: str
    token: Secret
    org: str = ""
    org_name: str = ""

    @property
    def sign_in(self) -> str:
        """The command that makes this account anew."""
        return f"border0 login {self.url}" + (f" --ca {self.ca}" if self.ca else "")


def load(folder: Path) -> Account:
    """The account that is kept in a folder.

    :raises Border0Error: unreadable, open to others, or no account.
    """
    path = folder / NAME
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            raw = file.read(_LIMIT)
    except FileNotFoundError:
        raise Border0Error(ADVICE) from None
    except OSError as error:
        raise Border0Error(f"{path}: {error.strerror}") from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Border0Error(f"{path} is open to others; run: chmod 600 {path}")
    try:
        data = json.loads(raw)
        fields = {name: str(data.get(name, "")) for name in ("url", "ca", "authority", "token")}
        url = parse_url(fields["url"]).text
        token = read_token(fields["token"])
        org, org_name = str(data.get("org", "")), str(data.get("org_name", ""))
    except (ValueError, AttributeError, RecursionError, ConfigError):
        raise Border0Error(f"{path} is no account; sign in again: border0 login URL") from None
    return Account(url, fields["ca"], fields["authority"], token, org, org_name)


def save(folder: Path, account: Account) -> None:
    """Keep an account, in place of an older one.

    :raises Border0Error: the folder cannot be written.
    """
    data = {
        "url": account.url,
        "ca": account.ca,
        "authority": account.authority,
        "token": account.token.reveal(),
        "org": account.org,
        "org_name": account.org_name,
    }
    path = folder / NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        privatefile.replace(path, json.dumps(data, indent=1).encode() + b"\n")
    except OSError as error:
        raise Border0Error(
            f"{path}: {error.strerror}; name another folder with --home DIR"
        ) from None


def read_token(text: str) -> Secret:
    """A token as a header takes it; raises ConfigError, without its text."""
    if not text or not all("!" <= c <= "~" for c in text):
        raise ConfigError("this is no token; a token is one word of plain letters and digits")
    return Secret(text)
