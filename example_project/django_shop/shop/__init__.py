"""A small Django project whose nightly work is SQL."""

from shop.celery import app

__all__ = ["app"]
