-- What a person had to know: a row when an alert was raised, each time it was repeated, and when it ended.

CREATE TABLE alerts (
    at_ns BIGINT NOT NULL,
    name VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    event VARCHAR NOT NULL,
    severity VARCHAR NOT NULL,
    detail VARCHAR NOT NULL,
    first_ns BIGINT NOT NULL,
    last_ns BIGINT NOT NULL,
    ended_ns BIGINT,
    raised_by VARCHAR NOT NULL
);
