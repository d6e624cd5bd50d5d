"""Names of services: `<socket>.<org>.border0.internal`, answered by a node or a connector.

`message` is the wire format, `zone` holds the names of one organisation, `responder` makes an
answer of a query, `framing` cuts messages out of TCP; `adapters` serve on the user-space stack.
"""
