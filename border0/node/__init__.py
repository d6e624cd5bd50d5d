"""A device: what its user's programs need to reach services, without root.

`config` reads client.toml, `followed` what a control plane's statements say instead, `choice` picks
a service's connector, `names` finds services, `lock` keeps a device key in one process,
`agent` serves that process's tunnel to others over `localapi`, `stdio` and `forwards` ride on it.
"""
