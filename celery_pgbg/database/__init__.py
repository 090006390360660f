"""All communication with PostgreSQL."""
