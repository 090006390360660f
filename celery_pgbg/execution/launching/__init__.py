"""Sessions that launch background workers, and the handles that they have."""
