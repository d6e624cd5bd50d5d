"""The `border0` program: finds the command, runs it, turns errors into one line and a status."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from border0.audit.reading import printable
from border0.errors import Border0Error

NOUNS = (
    "quickstart",
    "login",
    "logout",
    "whoami",
    "client",
    "node",
    "connector",
    "control",
    "relay",
    "socket",
    "policy",
    "device",
    "user",
    "group",
    "service-account",
    "token",
    "session",
    "recording",
    "audit",
    "key",
    "version",
)

DESCRIPTION = "The self-hosted, application-aware VPN."
EPILOG = """\
examples:
  border0 quickstart                     everything on this machine, with two demo services
  border0 login URL --ca sha256:...      an account at a control plane, confirmed in a browser
  border0 node join URL CODE --ca ...    this machine as a device of yours
  border0 connector invite NAME          the one command that makes a machine a connector
  border0 connector start --config FILE  a connector from your own file; also: --example
  border0 socket create NAME --upstream postgres://user@host/db
  border0 policy explain NAME --email alice@example.org
  border0 client hosts                   the services that this device reaches
  border0 client psql NAME               psql through the tunnel; also: ssh, tcp, socks
  border0 session ls                     who was where; also: show, kill
  border0 recording play ID              watch a recorded terminal session
  border0 device export --wg-quick       a device's file for a stock WireGuard client
"""


def parser(noun: str = "") -> argparse.ArgumentParser:
    """The command tree; of a known `noun` that branch alone, so that no other code is loaded."""
    root = argparse.ArgumentParser(
        prog="border0",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in (noun,) if noun in NOUNS else NOUNS:
        module = name.replace("-", "_")
        importlib.import_module(f"border0.cli.{module}").register(commands)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    options = parser(words[0] if words else "").parse_args(words)
    try:
        return int(options.run(options))
    except Border0Error as error:
        # What somebody else's server said may be part of it.
        lines = str(error).split("\n")
        print("border0: " + "\n".join(map(printable, lines)), file=sys.stderr)
        return status_of(error)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def status_of(error: Border0Error) -> int:
    """2 for a command line that cannot be meant, 3 for what one may not do, else 1."""
    # an answer of a control plane has its HTTP status
    denied = getattr(error, "status", 0) in (401, 403)
    return int(getattr(error, "exit_status", 3 if denied else 1))


if __name__ == "__main__":
    sys.exit(main())
