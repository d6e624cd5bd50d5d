"""Who somebody is: local users, second factors, browser sessions, device codes and tokens.

`model` holds the records and the storage that this room asks for, `passwords`, `totp`, `sessions`,
`links`, `grants` and `tokens` one mechanism each, `authenticate` answers the API's question, and
`resource` serves the five pages. Sign-in by other issuers is not here.
"""
