"""border0: the self-hosted, application-aware VPN.

One folder is one component: `wireguard` (tunnel), `netstack` (TCP/IP in user space), `policy`
(who may do what), `proxies` (one package per protocol), `audit` (what happened), `connector`
(all of it next to the services), `processes` (what `twistd` runs) and `cli` (`border0 ...`).
docs/architecture.md draws the picture.
"""

__version__ = "0.1.0"
