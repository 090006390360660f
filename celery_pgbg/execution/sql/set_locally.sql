-- Set configuration parameters until the end of this transaction; a worker launched in it inherits them.
SELECT set_config(key, value, true) FROM jsonb_each_text(%(settings)s::jsonb)
