-- Limit how long a declaration waits for another transaction.
SET lock_timeout = '10s'
