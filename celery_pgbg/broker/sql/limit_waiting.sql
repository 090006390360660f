-- Let no declaration wait for ever for another's transaction.
SET lock_timeout = '10s'
