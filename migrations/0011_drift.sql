-- Drift: a family of streams in a partition each time that its evidence was published, and each alarm that began or ended
-- (`event`). `streams` are those with most evidence, as JSON.

CREATE TABLE drift (
    as_of_ns BIGINT NOT NULL,
    family VARCHAR NOT NULL,
    source_topic VARCHAR NOT NULL,
    source_partition INTEGER NOT NULL,
    event VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    statistic DOUBLE NOT NULL,
    threshold DOUBLE NOT NULL,
    bars DOUBLE NOT NULL,
    since_ns BIGINT NOT NULL,
    alarms BIGINT NOT NULL,
    watched BIGINT NOT NULL,
    streams JSON NOT NULL
);
