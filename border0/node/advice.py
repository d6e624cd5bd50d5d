"""What a user is told when a service cannot be reached, and where to look."""

from border0.keys import encode_key
from border0.node.config import ClientConfig, ConnectorEntry
from border0.node.localapi import TunnelError
from border0.node.names import Target


def no_connector(target: Target) -> TunnelError:
    """A control plane names none that this device may know."""
    return TunnelError(
        f"no connector serves {target.name} now; border0 socket show {target.name} says why",
        "service",
    )


def no_service(target: Target) -> TunnelError:
    """The connector answers, the connection stays open."""
    return TunnelError(
        f"{target.name} ({target.host} port {target.port}) does not answer", "service"
    )


def refused(config: ClientConfig, target: Target, connector: ConnectorEntry) -> TunnelError:
    """The connector's own answer: a refusal, or no address of its."""
    look = f"see border0 socket show {target.name}"
    if not config.followed:
        look = "compare its file with this device's"
    return TunnelError(
        f"the connector {connector.name} serves nothing at {target.name} ({target.host} port "
        f"{target.port}): {look}",
        "service",
    )


def silence(config: ClientConfig, target: Target, public_key: bytes) -> TunnelError:
    """No connector of the service answers; `public_key` is this device's."""
    connectors = target.connectors
    first = f"the connector {connectors[0].name} at {connectors[0].where} does not answer"
    if not config.followed:
        return TunnelError(
            f"{first}: does it run, does UDP get there, and does its file have this device's "
            f"public key {encode_key(public_key)}?"
        )
    if len(connectors) > 1:
        listed = ", ".join(one.name for one in connectors)
        first = f"none of the connectors of {target.name} answers ({listed})"
    return TunnelError(
        f"{first}: does UDP get there, and is it online? border0 connector ls says it"
    )
