-- Whether a statement of this task runs now, launched by any session, and has left no outcome yet. On any session.
SELECT EXISTS (
    SELECT FROM celery_pgbg.live_attempts() AS live
    WHERE live.owner = (SELECT celery_pgbg.owner()) AND live.task_id = %(task_id)s::text
        AND NOT EXISTS (
            SELECT FROM celery_pgbg.outcome AS outcome
            WHERE outcome.task_id = live.task_id AND outcome.attempt = live.attempt AND outcome.owner = live.owner
        )
) AS running
