-- The values of some configuration parameters in this session; an empty text for a missing one.
SELECT jsonb_object_agg(name, coalesce(current_setting(name, true), ''))
FROM unnest(%(names)s::text[]) AS name
