"""A machine's membership: what it keeps on disk, how it joins, how it follows its organisation."""
