"""The room's Twisted side: sockets, the routing table, HTTP to the gateway."""
