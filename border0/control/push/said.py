"""What a node says of itself, as messages that the server takes; again on each connection."""

from collections.abc import Mapping

from border0.control.push import messages as wire
from border0.control.push.messages import PathOffer, ProtocolError
from border0.control.push.offer import MAX_ENDPOINTS, own


def status_of(refusals: Mapping[str, str]) -> wire.Status:
    """A status that fits into a frame: at most 256 sockets, long reasons cut.

    :raises ValueError: an id that no socket has.
    """
    chosen = sorted(refusals.items())[: wire.MAX_REFUSALS]
    for length in (256, 128, 24):
        status = wire.Status({socket: reason[:length] for socket, reason in chosen})
        frame = wire.encode(status)
        if len(frame) <= wire.MAX_NODE_FRAME:
            break
    try:
        wire.parse_to_server(frame)
    except ProtocolError as error:
        raise ValueError(str(error)) from None
    return status


def report_of(endpoints: list[str], path: PathOffer | None = None) -> wire.Report:
    """A report of the best 16 endpoints, and of the path part that belongs to them.

    :raises ValueError: the path part has another number of kinds, or is none.
    """
    if path is not None and len(path.kinds) != len(endpoints):
        raise ValueError(f"{len(path.kinds)} kinds for {len(endpoints)} endpoints")
    told = endpoints[:MAX_ENDPOINTS]
    return wire.Report(told, own(path, len(told)))
