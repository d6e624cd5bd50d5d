"""Which way to a peer: authenticated probes, data receipts, scores, path MTU, and the choice.

Does not: read sockets or clocks; the tunnel hands datagrams in and carries datagrams out.
"""
