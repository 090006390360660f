"""The ways in which an order gets its background worker, and the choice of one."""
