-- The values of some configuration parameters in this session; an empty text for one that is not there.
SELECT jsonb_object_agg(name, coalesce(current_setting(name, true), ''))
FROM unnest(%(names)s::text[]) AS name
