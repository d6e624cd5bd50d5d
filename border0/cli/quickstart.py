"""`border0 quickstart`: everything on this machine with one command, for this user alone."""

import argparse
import os
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from border0.cli import expose
from border0.cli.quickhome import Home

TEXT = "run a control plane and a connector with two demo services on this machine, for this user"


def register(commands: Any) -> None:
    """Add the command to the tree."""
    command = commands.add_parser("quickstart", help=TEXT, description=TEXT)
    command.add_argument("--home", metavar="DIR", type=Path, help="default: ~/.border0")
    command.add_argument(
        "--listen",
        metavar="ADDR",
        default="127.0.0.1",
        help="an address of this machine that others reach (default: loopback, this machine alone)",
    )
    command.add_argument(
        "--expose",
        metavar="URL",
        action="append",
        default=[],
        help="a service of yours: postgres://user@host/db, ssh://, http://, https://, tcp://",
    )
    command.add_argument(
        "--password", metavar="from:…", default="", help="where the exposed service's password is"
    )
    command.add_argument("--no-demo", action="store_true", help="without the demo services")
    command.add_argument(
        "--demo-as-root", action="store_true", help="let demo-ssh give out a shell of root"
    )
    command.add_argument(
        "--check", action="store_true", help="try all of it in a temporary home, then clean up"
    )
    command.add_argument(
        "--new-link", action="store_true", help="print another link for the first sign-in"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prepare the home, then serve it until Ctrl-C; it says what to type next."""
    if options.check:
        from border0.cli import quickcheck

        return quickcheck.run(options)
    folder = options.home or Path(os.environ.get("BORDER0_HOME") or Path.home() / ".border0")
    home = Home(folder.absolute(), options.listen, say=print)
    choose_demos(home, options)
    home.prepare([expose.parse(url, options.password) for url in options.expose])
    exposed(home)
    # Here, as this brings everything; not a program of its own, which would bring it twice.
    from border0.processes import quickstart

    return quickstart.main(options_of(home, *(["--new-link"] if options.new_link else [])))


def exposed(home: Home) -> None:
    """Say what others reach when it is not this machine alone that does."""
    try:
        if ip_address(home.listen).is_loopback:
            return
    except ValueError:
        if home.listen == "localhost":
            return
    print(
        f"Others can reach {home.listen}: sign-in, API and relay (TCP), WireGuard and STUN (UDP); "
        "the services, only devices that joined."
    )


def choose_demos(home: Home, options: argparse.Namespace) -> None:
    """No demo shell of root unless it is asked for by name, and none where there is no shell."""
    home.demo_http = home.demo_ssh = not options.no_demo
    if not home.is_new or options.no_demo:
        return
    if is_root() and not options.demo_as_root:
        home.demo_ssh = False
        print("demo-ssh is left out: it would be a shell of root (--demo-as-root allows it).")
    elif (shell := login_shell()) and Path(shell).name in ("nologin", "false"):
        home.demo_ssh = False
        print(f"demo-ssh is left out: this user's shell is {shell}.")


def is_root() -> bool:
    """Whether this process runs as root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def login_shell() -> str:
    """This user's shell, "" where nobody knows."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_shell
    except (ImportError, KeyError):
        return ""


def command_line(home: Home, *options: str, level: str = "warn") -> list[str]:
    """Everything as a program of its own."""
    program = [sys.executable, "-P", "-m", "border0.processes.quickstart"]
    return [*program, *options_of(home, *options, level=level)]


def options_of(home: Home, *options: str, level: str = "warn") -> list[str]:
    """What `processes.quickstart` is told; its log shows trouble only."""
    program = Path(sys.argv[0])
    return [
        f"--home={home.folder}",
        f"--log-level={os.environ.get('BORDER0_LOG_LEVEL') or level}",
        f"--program={shorter(program) if program.name == 'border0' else 'border0'}",
        f"--label={label(home.folder)}",
        *options,
    ]


def label(folder: Path) -> str:
    """A home as it is typed in any terminal, whatever its folder."""
    try:
        return f"~/{folder.relative_to(Path.home())}"
    except ValueError:
        return str(folder)


def shorter(path: Path) -> str:
    """A path as a person would type it here."""
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        try:
            return prefix + str(path.absolute().relative_to(base))
        except ValueError:
            continue
    return str(path)
