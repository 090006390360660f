-- Whether the server has the files of pg_background, and whether the database has the extension. Any session.
SELECT default_version, installed_version FROM pg_catalog.pg_available_extensions WHERE name = 'pg_background'
