"""WireGuard in user space: datagrams in, checked inner IP packets out, and back.

The pure core is `device.Device`; the UDP socket and the stored clock are in `adapters`.
"""
