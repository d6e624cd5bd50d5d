"""The connector: the tunnel's inner end and the proxies, next to the services they guard.

`config` reads the stand-alone file, `upstreams` its service descriptions, `directory` answers who
sits at an inner address, `admission` asks the policy before a session exists, `service` opens one
proxy for each socket.
"""
