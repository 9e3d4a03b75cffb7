-- Why forecasts were wrong. Of a score: the regime of its symbol (0 calm, 1 normal, 2 wild) and what part of its inputs lay
-- beyond the central 90 % of a reference, in %; NULL where none is known and in rows of before. Of the worst scores, each
-- at the step at which it was worst: what was near it, and the causes that it has.

ALTER TABLE scores ADD COLUMN regime UTINYINT;
ALTER TABLE scores ADD COLUMN odd_pct UTINYINT;

CREATE TABLE postmortems (
    id UUID NOT NULL,
    symbol VARCHAR NOT NULL,
    as_of_ns BIGINT NOT NULL,
    settled_ns BIGINT NOT NULL,
    model INTEGER NOT NULL,
    step INTEGER NOT NULL,
    loss DOUBLE NOT NULL,
    loss_naive DOUBLE,
    excess DOUBLE,
    rung UTINYINT NOT NULL,
    regime UTINYINT,
    volatility DOUBLE,
    volatility_after DOUBLE,
    bars_since_gap BIGINT,
    bars_since_jump BIGINT,
    bars_to_jump BIGINT,
    odd_pct UTINYINT,
    model_age_ns BIGINT,
    causes VARCHAR[] NOT NULL
);
