"""The declarative route table: validation, permission, audit, limits and OpenAPI in one place.

A `table.Table` holds the routes, `resource.ApiResource` serves them on twisted.web, `site.ApiSite`
cuts slow and oversized requests before they are complete, and `guard.Guard` knows which host names
and browser origins are ours. No route is of this room: the rooms that have state register theirs.
"""
