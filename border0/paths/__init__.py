"""Which way to a peer: what the outside sees of us, candidates, probes, scores and path MTU.

Pure modules take bytes and the time and give datagrams, events and a deadline; sockets and the
reactor are in `adapters`.
"""
