"""The relay, datagrams by public key over WebSockets in TLS: its protocol, and both of its ends.

`frames` and `handshake` are the wire, `ticket` and `login` say who is there, `queues` and `broker`
are the relay, `client` and `backoff` a node's end. All of it takes bytes and the time, and gives
bytes and deadlines; WebSockets are in `adapters`. docs/protocols/relay.md is the whole protocol.
"""
