"""Events, session records and recordings: what happened, written down once and never changed."""
