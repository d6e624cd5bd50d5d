"""HTTP/1.1: a reverse proxy and a file server, one request at a time per connection.

`wire` knows the syntax, `reader` cuts a byte stream into messages, `fields` decides which header
fields cross, `session` is the proxy's machine, `files` the file server's. `adapters/` joins them
to transports and to the disk.
"""
