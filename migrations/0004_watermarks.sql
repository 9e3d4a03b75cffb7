-- Where event time stood, once a minute of it: a restart without a snapshot reads from such a place on. Every tick that
-- was accepted below next_offset is at most as new as watermark_ns; NULL = the engine had read nothing before.

CREATE TABLE watermarks (
    source_topic VARCHAR NOT NULL,
    source_partition INTEGER NOT NULL,
    watermark_ns BIGINT,
    next_offset BIGINT NOT NULL
);
