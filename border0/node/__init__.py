"""A device: what its user's programs need to reach services, without root.

`config` reads client.toml, `names` finds services, `lock` keeps a device key in one process,
`agent` serves that process's tunnel to others over `localapi`, `stdio` and `forwards` ride on it.
"""
