"""One query's bytes in, one answer's bytes out.

Source: RFC 1035 §4.2 (truncation), RFC 5936 (transfers are refused), RFC 2308 §2.
"""

from border0.dns import message
from border0.dns.message import AXFR, IN, IXFR, NOERROR, NXDOMAIN, REFUSED, SERVFAIL, SOA
from border0.dns.zone import NEGATIVE_TTL, TTL, Zone

_ASKED = message.pointer(message.HEADER_SIZE)


def respond(data: bytes, zone: Zone | None, *, datagram: bool) -> bytes:
    """Answer a query; without a zone, that we do not know now.

    :param datagram: it came over UDP, so a long answer is cut.
    :raises ProtocolError: it must not be answered at all.
    """
    query = message.read_query(data)
    limit = query.size if datagram else 65535
    if query.problem:
        return message.build_answer(query, query.problem, limit=limit)
    if query.klass != IN or query.kind in (AXFR, IXFR):
        return message.build_answer(query, REFUSED, limit=limit)
    if zone is None:
        return message.build_answer(query, SERVFAIL, limit=limit)
    rcode, records, with_soa = zone.ask(query.name, query.kind)
    answers = [(_ASKED, kind, TTL, found) for kind, found in records]
    authorities = []
    if with_soa:
        # The zone is the end of the name that was asked for.
        owner = message.pointer(message.HEADER_SIZE + len(query.name) - len(zone.origin))
        authorities.append((owner, SOA, NEGATIVE_TTL, zone.soa))
    return message.build_answer(
        query, rcode, answers, authorities,
        authoritative=rcode in (NOERROR, NXDOMAIN), limit=limit,
    )  # fmt: skip
