"""What a SQL task is, until something runs it."""
