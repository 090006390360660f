"""The launching session of a statement that stands alone: its launch, its record, its end."""
