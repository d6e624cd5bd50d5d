"""The PostgreSQL proxy.

`codec` frames messages, `startup` is the client's side before the relay, `login` the upstream's,
`session` (with `replies`, `names`, `denial`) the relay that asks policy for every statement,
`cancel` the cancel keys. `adapters` is the Twisted side.
"""
