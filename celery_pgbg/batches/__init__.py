"""SQL tasks that go through a table in batches, each a transaction of its own."""
