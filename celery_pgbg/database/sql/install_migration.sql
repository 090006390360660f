-- Apply one migration, unless it is recorded; the whole installation is one transaction.
DO $migration$
BEGIN
    IF NOT EXISTS (SELECT FROM celery_pgbg.migration WHERE version = {version}) THEN
        EXECUTE {body};
        INSERT INTO celery_pgbg.migration (version, name) VALUES ({version}, {name});
    END IF;
END;
$migration$;
