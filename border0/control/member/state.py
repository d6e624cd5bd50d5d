"""What a member machine keeps in one folder (mode 0700): who it is and what it believes.

| file | what it holds |
|---|---|
| node.json | the organisation, the node's id and role, the network, where the control plane is |
| machine.key | the Ed25519 key that proves which node this is; it never leaves the machine |
| authority.pem | the control plane's pinned authority; absent where the system's store decides |
| ledger | what was believed last (`Ledger.dump`) |
| map | what the control plane sent last (`NodeMap.dump`) |
| contact.json | when the control plane was last there; endpoints of nodes; STUN servers |

Every file is replaced whole (`privatefile`), mode 0600. A lost map costs one download. A ledger
that is lost or damaged is an error: an empty one would believe old statements.
"""

import base64
import json
import os
import stat
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0 import privatefile
from border0.control.member.url import ControlUrl, parse_url
from border0.control.push.nodemap import NodeMap
from border0.control.stun import MAX_SERVERS
from border0.errors import Border0Error, ConfigError, ProtocolError
from border0.prefixes import Network4And6, read_network
from border0.statements import Ledger
from border0.tables import Table
from border0.trust import parse_pin

ROLES = ("connector", "device")
NETWORK = ("services_v4", "services_v6", "devices_v4", "devices_v6")
LEDGER_FILE, MAP_FILE, NODE_FILE = "ledger", "map", "node.json"
KEY_FILE, AUTHORITY_FILE, CONTACT_FILE = "machine.key", "authority.pem", "contact.json"


@dataclass
class Contact:
    """When the control plane was last in sync (Unix seconds; 0 = never), and who was where.

    `stun`: the STUN servers that it named last, as it named them.
    """

    last: float = 0.0
    endpoints: dict[str, list[str]] = field(default_factory=dict)
    stun: list[str] = field(default_factory=list)


class MemberState:
    """One membership, in memory; the `save_...` methods write its files.

    `approved` and `addresses` are what joining just told; they are not kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        url: str,
        ca: str,
        org: str,
        org_name: str,
        node: str,
        name: str,
        role: str,
        network: Network4And6,
        machine_key: Ed25519PrivateKey,
        authority: bytes | None = None,
    ) -> None:
        self.folder = folder
        self.url, self.ca = url, ca
        self.org, self.org_name = org, org_name
        self.node, self.name, self.role = node, name, role
        self.network = network
        self.machine_key = machine_key
        self.authority = authority
        self.approved = True
        self.addresses: list[str] = []

    @property
    def control(self) -> ControlUrl:
        """The address of the control plane."""
        return parse_url(self.url)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether this machine has joined; `folder` is the one that holds node.json."""
        return (folder / NODE_FILE).exists()

    @classmethod
    def open(cls, folder: Path) -> "MemberState":
        """The membership in `folder`.

        :raises ConfigError: there is none, or its files are unreadable, damaged or open to others.
        """
        path = folder / NODE_FILE
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ConfigError(f"{folder}: this machine has not joined an organisation") from None
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except ValueError:
            raise _damaged(path, "not JSON") from None
        try:
            table = Table(data if isinstance(data, dict) else {}, path, "")
            table.number("v", 1, 1)
            url = parse_url(table.text("url")).text
            ca = table.get("ca", str)
            found = {key: table.text(key) for key in ("org", "org_name", "node", "name")}
            role = table.choice("role", ROLES)
            network = read_network(table.table("network"))
            pinned = parse_pin(ca) if ca else ""
        except ConfigError as error:
            raise _damaged(path, str(error)) from None
        authority = _read(folder / AUTHORITY_FILE)
        if pinned and authority is None:
            raise _damaged(folder / AUTHORITY_FILE, "it is missing")
        return cls(
            folder,
            url=url,
            ca=pinned,
            role=role,
            network=network,
            machine_key=load_machine_key(folder, create=False),
            authority=authority if pinned else None,
            **found,
        )

    def save_node(self) -> None:
        """Write who this node is; raises OSError."""
        network = {name: str(getattr(self.network, name)) for name in NETWORK}
        data = {
            "v": 1,
            "url": self.url,
            "ca": self.ca,
            "org": self.org,
            "org_name": self.org_name,
            "node": self.node,
            "name": self.name,
            "role": self.role,
            "network": network,
        }
        privatefile.replace(self.folder / NODE_FILE, json.dumps(data, indent=1).encode() + b"\n")

    def save_authority(self) -> None:
        """Write the pinned authority, or remove the file where there is none; raises OSError."""
        if self.authority is None:
            (self.folder / AUTHORITY_FILE).unlink(missing_ok=True)
        else:
            privatefile.replace(self.folder / AUTHORITY_FILE, self.authority)

    def load_ledger(self) -> Ledger:
        """What this node believed last.

        :raises ConfigError: missing, damaged or another organisation's; the remedy is to join
            again.
        """
        path = self.folder / LEDGER_FILE
        data = _read(path)
        if data is None:
            raise _damaged(path, "it is missing")
        try:
            ledger = Ledger.load(data)
        except ProtocolError as error:
            raise _damaged(path, str(error)) from None
        if ledger.org != self.org:
            raise _damaged(path, "it is another organisation's")
        return ledger

    def save_ledger(self, ledger: Ledger) -> None:
        """Write what this node believes; it is on the disk when this returns. Raises OSError."""
        privatefile.replace(self.folder / LEDGER_FILE, ledger.dump(), sync=True)

    def load_map(self) -> NodeMap:
        """What the control plane sent last; empty when there is nothing that can be read."""
        try:
            data = _read(self.folder / MAP_FILE)
            return NodeMap() if data is None else NodeMap.load(data)
        except Border0Error:
            return NodeMap()

    def save_map(self, held: NodeMap) -> None:
        """Write what the control plane sent; raises OSError."""
        privatefile.replace(self.folder / MAP_FILE, held.dump())

    def load_contact(self) -> Contact:
        """The last contact; none when the file cannot be read (so nothing counts as recent)."""
        try:
            data = json.loads(_read(self.folder / CONTACT_FILE) or b"{}")
            endpoints = {
                str(node): [str(each) for each in found]
                for node, found in dict(data.get("endpoints", {})).items()
            }
            last = float(data.get("last", 0.0))
            stun = [str(each) for each in data.get("stun", [])][:MAX_SERVERS]
            return Contact(last if isfinite(last) else 0.0, endpoints, stun)
        except (Border0Error, ValueError, TypeError, AttributeError):
            return Contact()

    def save_contact(self, contact: Contact) -> None:
        """Write the last contact; raises OSError."""
        data = {"last": contact.last, "endpoints": contact.endpoints, "stun": contact.stun}
        privatefile.replace(self.folder / CONTACT_FILE, json.dumps(data).encode())

    def forget(self) -> None:
        """Remove what belongs to another membership: the map and the contact; raises OSError."""
        for name in (MAP_FILE, CONTACT_FILE):
            (self.folder / name).unlink(missing_ok=True)


def load_machine_key(folder: Path, *, create: bool) -> Ed25519PrivateKey:
    """The key in `folder`, made when it is absent and `create` is true.

    :raises ConfigError: missing, unreadable, no key, or open to others.
    """
    path = folder / KEY_FILE
    data = _read(path)
    if data is None:
        if not create:
            raise _damaged(path, "it is missing")
        key = Ed25519PrivateKey.generate()
        privatefile.replace(path, base64.b64encode(key.private_bytes_raw()) + b"\n", sync=True)
        return key
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{path} is open to others; run: chmod 600 {path}")
    try:
        return Ed25519PrivateKey.from_private_bytes(base64.b64decode(data.strip(), validate=True))
    except ValueError:
        raise _damaged(path, "not a machine key") from None


def make_folder(folder: Path) -> None:
    """The folder of a membership, for its owner alone.

    :raises ConfigError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.name == "posix":
            folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None


def _read(path: Path) -> bytes | None:
    """The bytes of a file, None when there is none; raises ConfigError when it is unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _damaged(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path}: {what}; join again (border0 node join, or border0 connector join) with a new code"
    )
