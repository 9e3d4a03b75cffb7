-- What was ordered, what was fitted, and what served when. Commands and promotions are only ever added; of a command
-- its reply comes later. A job and a trial are what they last said of themselves.

CREATE TABLE commands (
    sequence BIGINT PRIMARY KEY,
    id VARCHAR NOT NULL UNIQUE,
    audience VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    role VARCHAR NOT NULL,
    command VARCHAR NOT NULL,
    args_json JSON NOT NULL,
    digest VARCHAR NOT NULL,
    received_ns BIGINT NOT NULL,
    state VARCHAR NOT NULL,
    reply_json JSON,
    done_ns BIGINT NOT NULL,
    previous VARCHAR NOT NULL,
    hash VARCHAR NOT NULL
);

CREATE TABLE versions (
    digest VARCHAR PRIMARY KEY,
    name VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    parent VARCHAR NOT NULL,
    dataset_hash VARCHAR NOT NULL,
    card_json JSON NOT NULL,
    origin VARCHAR NOT NULL,
    created_ns BIGINT NOT NULL,
    registered_ns BIGINT NOT NULL,
    tombstone_ns BIGINT
);

-- A digest of NULL: since then the route has no model of its own.
CREATE TABLE promotions (
    sequence BIGINT PRIMARY KEY,
    at_ns BIGINT NOT NULL,
    route VARCHAR NOT NULL,
    digest VARCHAR,
    action VARCHAR NOT NULL,
    evidence_json JSON NOT NULL,
    given_by VARCHAR NOT NULL,
    command_id VARCHAR NOT NULL,
    positions_json JSON NOT NULL
);

CREATE TABLE jobs (
    id VARCHAR PRIMARY KEY,
    kind VARCHAR NOT NULL,
    command_id VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    why VARCHAR NOT NULL,
    order_json JSON NOT NULL,
    created_ns BIGINT NOT NULL,
    started_ns BIGINT NOT NULL,
    ended_ns BIGINT NOT NULL,
    step BIGINT NOT NULL,
    steps BIGINT NOT NULL,
    result_json JSON
);

CREATE TABLE trials (
    job VARCHAR NOT NULL,
    number INTEGER NOT NULL,
    state VARCHAR NOT NULL,
    params JSON NOT NULL,
    value DOUBLE,
    epochs INTEGER NOT NULL,
    seconds DOUBLE NOT NULL,
    why VARCHAR NOT NULL,
    PRIMARY KEY (job, number)
);

CREATE TABLE datasets (
    hash VARCHAR PRIMARY KEY,
    source VARCHAR NOT NULL,
    rule JSON NOT NULL,
    symbols INTEGER NOT NULL,
    bars BIGINT NOT NULL,
    from_ns BIGINT NOT NULL,
    to_ns BIGINT NOT NULL,
    added_ns BIGINT NOT NULL
);

CREATE VIEW served AS
SELECT
    p.route, p.digest, v.name, v.version, p.action, p.given_by, p.at_ns AS from_ns,
    lead(p.at_ns) OVER (PARTITION BY p.route ORDER BY p.sequence) AS to_ns
FROM promotions p LEFT JOIN versions v USING (digest);

CREATE VIEW stages AS
SELECT
    v.digest, v.name, v.version,
    CASE
        WHEN v.tombstone_ns IS NOT NULL THEN 'retired'
        WHEN count(s.route) FILTER (s.to_ns IS NULL AND s.route <> 'shadow') > 0 THEN 'active'
        WHEN count(s.route) FILTER (s.to_ns IS NULL) > 0 THEN 'shadow'
        WHEN count(s.route) > 0 THEN 'retired'
        ELSE 'candidate'
    END AS stage
FROM versions v LEFT JOIN served s USING (digest)
GROUP BY v.digest, v.name, v.version, v.tombstone_ns;
