"""`border0 login URL`: a token for this user, confirmed in a browser.

Source: RFC 8628 §3.4 and §3.5 (polling, slow_down). Nothing is opened by force: the address and the
code are shown, and whoever is signed in there decides. The code that brings the token goes only
over a connection that verified the server.
"""

import argparse
import re
import socket
import time
from typing import Any

from border0.cli import command, format
from border0.errors import Border0Error
from border0.tables import NAME

INTERVAL = 5.0
LONGEST_INTERVAL = 60.0
LONGEST_WAIT = 3600.0
DENIED = 3


def register(commands: Any) -> None:
    """Add the command to the tree."""
    text = "sign in at a control plane, with a code that you confirm in a browser"
    parser = commands.add_parser("login", help=text, description=text)
    command.add_home(parser)
    parser.add_argument(
        "url", metavar="URL", nargs="?", help="https://HOST:PORT (default: that of the account)"
    )
    parser.add_argument(
        "--ca", metavar="sha256:...", help="the pin of its authority, as it was printed there"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run)


class LoginDenied(Border0Error):
    """Somebody said no in the browser."""

    exit_status = DENIED


def run(options: argparse.Namespace) -> int:
    """Sign in."""
    # Here, so that nothing else starts with HTTP and TLS.
    from border0.cli import account
    from border0.cli.api import Client, UntrustedError, read_url

    folder = command.home(options)
    kept = None
    if command.has_file(options):
        try:
            kept = account.load(folder)
        except Border0Error:
            if options.url is None:
                raise
            # signing in is what repairs it
    elif options.url is None:
        raise command.UsageError("name the control plane: border0 login URL --ca sha256:...")
    url = read_url(options.url)[0] if options.url or kept is None else kept.url
    ca = (options.ca or "").strip().lower()
    if not ca and kept is not None and kept.url == url:
        ca = kept.ca
    authority = account.contact(url, ca)
    again = f"border0 login {url}" + (f" --ca {ca}" if ca else "")
    hint = again if ca else f"{again} --ca sha256:..."
    client = Client(url, authority=authority.encode() if authority else None, sign_in=hint)
    try:
        result = confirm(client, machine_name(), "login", json=options.json)
    except UntrustedError:
        if ca:
            raise
        raise Border0Error(
            f"this system does not trust the certificate of {url}; nothing was sent to it. "
            f"Give the pin that the control plane printed: {hint}"
        ) from None
    if not result.get("token"):
        raise Border0Error(f"{url} confirmed, but sent no token; try again")
    made = account.Account(
        url,
        ca,
        authority,
        account.read_token(str(result["token"])),
        str(result.get("org", "")),
        str(result.get("org_name", "")),
    )
    account.save(folder, made)
    who = account.open_client(folder, made).get("/whoami").body
    facts: dict[str, Any] = {"url": url, "org": made.org, "org_name": made.org_name}
    facts |= {name: who.get(name) for name in ("name", "role")}
    organisation = made.org_name or made.org
    text = f"Signed in as {who.get('name')} ({who.get('role')}) of {organisation}."
    return command.done(options, facts, text)


def confirm(client: Any, name: str, purpose: str, *, json: bool = False) -> dict[str, Any]:
    """Ask for a code, show it, and wait until it was confirmed; what came back.

    :raises Border0Error: denied, or too late.
    """
    from border0.keys import encode_key, generate_private_key, public_key

    # The key of this one sign-in: only who has started it can finish it.
    public = public_key(generate_private_key())
    key = encode_key(public)
    started = client.post(
        "/device_authorizations", {"public_key": key, "name": name, "purpose": purpose}
    )
    page = str(started.get("verification_uri_complete") or started.get("verification_uri", ""))
    code = str(started.get("user_code", ""))
    if json:
        format.print_json([{"verification_uri": page, "user_code": code}])
    show_code(code, page, public)
    interval = seconds(started.get("interval"), INTERVAL)
    deadline = time.monotonic() + min(seconds(started.get("expires_in"), 600.0), LONGEST_WAIT)
    body = {"device_code": str(started.get("device_code", "")), "public_key": key}
    while time.monotonic() < deadline:
        time.sleep(interval)
        answer = client.post("/device_authorizations/poll", body)
        status = answer.get("status")
        if status == "approved":
            result = answer.get("result")
            return dict(result) if isinstance(result, dict) else {}
        if status == "denied":
            raise LoginDenied("nobody was signed in: it was refused in the browser")
        if status not in ("pending", "slow_down"):
            break
        asked = seconds(answer.get("interval"), interval)
        interval = max(asked, interval + INTERVAL) if status == "slow_down" else asked
        interval = min(interval, LONGEST_INTERVAL)
    raise Border0Error("the code was not confirmed in time; run the command again")


def show_code(code: str, page: str, key: bytes) -> None:
    """Say where to confirm this machine, and what the page must show.

    :param key: the public key that is confirmed, 32 bytes.
    """
    from border0.keys import fingerprint

    command.say(f"Open {page}")
    command.say("sign in, and allow it if the page shows the same code and key as here:")
    command.say(f"  code  {code}")
    command.say(f"  key   {fingerprint(key)}")
    command.say("Waiting; Ctrl-C gives up.")


def seconds(value: Any, default: float) -> float:
    """A number of seconds from an answer, at least one."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return max(1.0, float(value)) if usable and value == value else default


def machine_name() -> str:
    """This machine's host name as a DNS label."""
    label = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().partition(".")[0].lower())
    label = label[:63].strip("-")
    return label if NAME.fullmatch(label) else "machine"
