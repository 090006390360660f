-- Send a notification, to learn whether it arrives in another session.
SELECT pg_notify(%(channel)s::text, %(payload)s::text)
