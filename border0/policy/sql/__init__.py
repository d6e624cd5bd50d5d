"""What a SQL statement does, and whether a database grant allows it."""
