"""One module per process that `twistd` runs; only here are rooms of one level joined.

`connector` composes the connector's services, `tunnel` joins WireGuard and the TCP/IP stack,
`logs` and `health` are what every process shares.
"""
