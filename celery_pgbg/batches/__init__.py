"""SQL tasks that walk a table in batches, each batch in its own transaction."""
