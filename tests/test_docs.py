"""What the pages tell people to type and to write is accepted by the real parsers."""

import argparse
import base64
import contextlib
import io
import json
import os
import re
import shlex
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

import border0
from border0.cli.main import NOUNS, parser
from border0.connector import config as connector
from border0.control import config as control
from border0.errors import Border0Error
from border0.node import config as node
from border0.node import followed
from border0.policy.parse import parse_policy
from border0.processes import relayconfig
from border0.processes.connector import Options as ConnectorOptions
from border0.processes.control import Options as ControlOptions
from border0.processes.nodeoptions import Options as NodeOptions
from border0.processes.relay import Options as RelayOptions
from border0.trust import PrivateCA

ROOT = Path(border0.__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(```|~~~)(\w*)\n(.*?)^\1$", re.M | re.S)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
KEY = base64.b64encode(bytes(range(32))).decode()
HOST_KEY = "ssh-ed25519 " + base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes(32)).decode()
PIN = "sha256:" + "0" * 64
SSH_KEY = (
    Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    .decode()
)


class Found(NamedTuple):
    """A piece of a page."""

    page: str
    text: str
    mentioned: bool = False  # within a sentence


def pages() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        yield str(path.relative_to(ROOT)), path.read_text("utf-8")


def blocks(language: str) -> list[Found]:
    return [
        Found(page, body)
        for page, text in pages()
        for _, kind, body in FENCE.findall(text)
        if kind == language
    ]


# -- commands -------------------------------------------------------------------------------


def lines_of_code() -> Iterator[Found]:
    """Lines of fenced and of indented code, continued ones joined."""
    for page, text in pages():
        fenced = [body for _, kind, body in FENCE.findall(text) if kind in ("", "sh")]
        indented = re.findall(r"^    (?! )((?:.*\\\n)*.*)$", FENCE.sub("", text), re.M)
        for body in (*fenced, *indented):
            for line in body.replace("\\\n", " ").splitlines():
                yield Found(page, line.strip().removeprefix("$ "))


def typed() -> Iterator[Found]:
    """Every command line of border0, in code and within sentences."""
    for page, line, _ in lines_of_code():
        for part in re.split(r"\s*(?:&&|;|\s#\s)\s*", line):
            command = re.sub(r"^(\.venv/bin/|sudo )", "", part)
            if command.startswith("border0 ") and not re.match(r"border0 [0-9]", command):
                yield Found(page, command)
    for page, text in pages():
        body = re.sub(r"^    .*$", "", FENCE.sub("", text), flags=re.M)
        for code in INLINE.findall(body):
            if code.startswith("border0 ") and not code.endswith(" v1"):  # what is signed begins so
                yield Found(page, code, True)
            elif code.partition(" ")[0] in NOUNS and page.endswith(
                ("command-line.md", "guide-client.md")
            ):
                yield Found(page, f"border0 {code}", True)


def readings(command: str) -> list[list[str]]:
    """The words after `border0`, once for each alternative of `ls|show`."""
    text = re.sub(r"\[[^]]*\]", " ", command.replace("\\|", "|"))  # what may be left out
    text = text.replace("…", "...").replace("URL --ca ...", f"URL --ca {PIN}")
    words = [word for word in shlex.split(text, comments=True)[1:] if word != "..."]
    found: list[list[str]] = [[]]
    for place, word in enumerate(words):
        choices = word.split("|") if place < 2 or word.count("|") else [word]
        found = [[*before, choice] for before in found for choice in choices]
    return found


def branch(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The deepest parser that the words lead to, and the words behind it."""
    place = parser(words[0] if words else "")
    rest = list(words)
    while rest:
        verbs = [one for one in place._actions if isinstance(one, argparse._SubParsersAction)]
        if not verbs or rest[0] not in verbs[0].choices:
            break
        place = verbs[0].choices[rest.pop(0)]
    return place, rest


class Commands(SynchronousTestCase):
    def refusal(self, words: list[str], mentioned: bool = True) -> str:
        """Why the command line is not one, or "".

        :param mentioned: in a sentence, where a command may stand without its arguments.
        """
        place, rest = branch(words)
        if mentioned and (not rest or rest[0].startswith("--")):
            options = {word.partition("=")[0] for word in rest if word.startswith("--")}
            unknown = options - set(place._option_string_actions)
            return f"unknown: {unknown}" if unknown else ""
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
                parser(words[0]).parse_args(words)
        except SystemExit as end:
            return errors.getvalue().strip().rpartition("\n")[2] if end.code else ""
        return ""

    def test_every_command_line_parses(self) -> None:
        wrong, seen = [], 0
        for found in typed():
            page, command, _ = found
            for words in readings(command):
                seen += 1
                if refusal := self.refusal(words, found.mentioned):
                    wrong.append(f"{page}: {command}: {refusal}")
        self.assertFalse(wrong, "\n".join(wrong))
        self.assertGreater(seen, 100)

    def test_a_wrong_one_would_be_seen(self) -> None:
        for command in ("border0 soket ls", "border0 socket ls --nothing", "border0 connector joi"):
            self.assertNotEqual("", self.refusal(readings(command)[0]), command)

    def test_every_command_for_twistd_parses(self) -> None:
        seen = 0
        kinds = {
            "border0-connector": ConnectorOptions,
            "border0-control": ControlOptions,
            "border0-node": NodeOptions,
            "border0-relay": RelayOptions,
        }
        for page, text in pages():
            for name, rest in re.findall(r"twistd -n (border0-\w+)([^`\n#|]*)", text):

                class Words(kinds[name]):  # type: ignore[misc]
                    def postOptions(self) -> None:
                        """The file is not there."""

                try:
                    Words().parseOptions(shlex.split(rest))
                except usage.UsageError as error:
                    self.fail(f"{page}: twistd -n {name}{rest}: {error}")
                seen += 1
        self.assertGreater(seen, 1)


# -- files ----------------------------------------------------------------------------------


def filled(text: str) -> str:
    """An example with values in the places that a reader fills."""
    text = re.sub(r'(public_key = )"[^"]*"', rf'\1"{KEY}"', text)
    text = re.sub(r'host_keys = \["[^"]*…"\]', f'host_keys = ["{HOST_KEY}"]', text)
    return text.replace("sha256:…", PIN).replace('"/srv/share"', '"."')


def completed(data: dict[str, Any]) -> dict[str, Any]:
    """A part of a connector's file as a whole one: a name, and the policies that it names."""
    data.setdefault("connector", {"name": "lab"})
    if "control" not in data:
        known = {policy["name"] for policy in data.get("policy", [])}
        named = {name for one in data.get("socket", []) for name in one.get("policies", [])}
        more = [{"name": name, "policy_data": {"permissions": {}}} for name in named - known]
        data["policy"] = [*data.get("policy", []), *more]
    return data


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def refer(self, text: str) -> None:
        """Make what the references of an example lead to."""
        names = re.findall(r'"from:env:(\w+)"', text)
        self.patch(os, "environ", {**os.environ, **dict.fromkeys(names, "postgresql:///x")})
        authority = PrivateCA.open(self.folder / "authority", time.time())
        for name in re.findall(r'"from:file:([^"]+)"', text):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{KEY}\n")
            if name.endswith(".pem"):
                path.write_bytes(authority.certificate)
            elif name.startswith("keys/"):
                path.write_text(SSH_KEY)

    def read(self, text: str) -> str:
        """Read an example as what it is; the name of that file."""
        data = tomllib.loads(text)
        self.refer(text)
        file = self.folder / "example.toml"
        if "relay" in data:
            relayconfig.read(data, file)
            return "relay.toml"
        top = data.get("control", {})
        if "connector" not in data and {"url", "listen"} & set(top):
            control.read(data, file)
            return "control.toml"
        if isinstance(data.get("connector"), list) or ("control" in data and "url" not in top):
            if "control" in data:
                followed.read_place(data, file)
            else:
                node.read(data, file)
            return "client.toml"
        connector.read(completed(data), file)
        return "connector.toml"

    def test_every_toml_example_is_read(self) -> None:
        kinds = set()
        for page, text, _ in blocks("toml"):
            if re.fullmatch(r"(\w+ = .*\n)+", text):  # one permission a line, each for itself
                for line in text.splitlines():
                    parse_policy("example", {"permissions": tomllib.loads(line)})
                continue
            try:
                kinds.add(self.read(filled(text)))
            except (Border0Error, tomllib.TOMLDecodeError) as error:
                self.fail(f"{page}: {error}\n{text}")
        self.assertEqual({"connector.toml", "client.toml", "control.toml", "relay.toml"}, kinds)

    def test_every_policy_in_json_is_read(self) -> None:
        seen = 0
        for page, text, _ in blocks("json"):
            if '"permissions"' not in text:
                continue
            try:
                parse_policy("example", json.loads(text))
            except (Border0Error, ValueError) as error:
                self.fail(f"{page}: {error}\n{text}")
            seen += 1
        self.assertGreater(seen, 0)


class Links(SynchronousTestCase):
    def test_every_link_between_pages_leads_somewhere(self) -> None:
        for path in PAGES:
            for target, _ in LINK.findall(INLINE.sub("", FENCE.sub("", path.read_text("utf-8")))):
                if "://" not in target:
                    self.assertTrue((path.parent / target).exists(), f"{path.name}: {target}")
