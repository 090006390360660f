"""What a process does to attempts that it does not wait for: list, stop, pause."""
