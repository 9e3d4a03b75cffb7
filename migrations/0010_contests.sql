-- Contests: what a model that answers beside the one that serves lost over the same labels, by block of event time. And
-- what was decided about models, by whom, and with which evidence. `upkeep` has what the daemon goes on from.

CREATE TABLE contest_blocks (
    contest VARCHAR NOT NULL,
    number BIGINT NOT NULL,
    ended_ns BIGINT NOT NULL,
    labels BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    loss DOUBLE NOT NULL,
    loss_challenger DOUBLE NOT NULL
);

CREATE TABLE decisions (
    sequence BIGINT PRIMARY KEY,
    at_ns BIGINT NOT NULL,
    action VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    route VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    champion VARCHAR NOT NULL,
    why JSON NOT NULL,
    evidence_json JSON NOT NULL,
    given_by VARCHAR NOT NULL
);

CREATE TABLE upkeep (state_json JSON NOT NULL);
