-- What a running stream leaves behind. Prices of forecasts and scores are kept as FLOAT distances from the DOUBLE
-- anchor: half the bytes of DOUBLE, and exact to 6e-8 of the distance, where a FLOAT price would be off by 0.004 at 60,000.

-- One row, changed by every transaction: an update of one row costs a third of an upsert of many. See the view offsets.
CREATE TABLE commits (unit BIGINT NOT NULL, positions JSON NOT NULL);
INSERT INTO commits VALUES (0, '[]');

CREATE TABLE deployment (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);

CREATE TABLE models (
    model INTEGER PRIMARY KEY,
    digest VARCHAR NOT NULL UNIQUE,
    name VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    transform VARCHAR NOT NULL,
    horizon INTEGER NOT NULL,
    levels DOUBLE[] NOT NULL,
    card JSON NOT NULL,
    first_seen_ns BIGINT NOT NULL
);

CREATE TABLE bars (
    symbol VARCHAR NOT NULL,
    ordinal BIGINT NOT NULL,
    as_of_ns BIGINT NOT NULL,
    tie INTEGER NOT NULL,
    open DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    close DOUBLE NOT NULL,
    volume DOUBLE NOT NULL,
    ticks BIGINT NOT NULL,
    mask BOOLEAN NOT NULL,
    gap BOOLEAN NOT NULL,
    source_topic VARCHAR,
    source_partition INTEGER,
    source_offset BIGINT NOT NULL
);

CREATE TABLE forecasts (
    id UUID NOT NULL,
    symbol VARCHAR NOT NULL,
    as_of_ns BIGINT NOT NULL,
    tie INTEGER NOT NULL,
    ordinal BIGINT NOT NULL,
    model INTEGER NOT NULL,
    rung UTINYINT NOT NULL,
    flags UTINYINT NOT NULL,
    anchor DOUBLE NOT NULL,
    scale DOUBLE NOT NULL,
    quantiles_from_anchor FLOAT[] NOT NULL,
    step_ns BIGINT,
    target_ns BIGINT[],
    confidence FLOAT,
    input_hash UBIGINT NOT NULL,
    source_topic VARCHAR,
    source_partition INTEGER,
    source_offset BIGINT NOT NULL
);

CREATE TABLE scores (
    id UUID NOT NULL,
    symbol VARCHAR NOT NULL,
    as_of_ns BIGINT NOT NULL,
    model INTEGER NOT NULL,
    settled_ns BIGINT NOT NULL,
    anchor DOUBLE NOT NULL,
    scale DOUBLE NOT NULL,
    steps INTEGER[] NOT NULL,
    actual_from_anchor FLOAT[] NOT NULL,
    point_from_anchor FLOAT[] NOT NULL,
    pinball FLOAT[] NOT NULL,
    covered BOOLEAN[] NOT NULL,
    in_sample BOOLEAN NOT NULL
);

CREATE TABLE accuracy (
    as_of_ns BIGINT NOT NULL,
    model VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    symbol_group VARCHAR NOT NULL,
    horizon INTEGER NOT NULL,
    span VARCHAR NOT NULL,
    n BIGINT NOT NULL,
    void BIGINT NOT NULL,
    pending BIGINT NOT NULL,
    mae DOUBLE,
    mae_naive DOUBLE,
    mae_pct DOUBLE,
    rmse DOUBLE,
    rmse_pct DOUBLE,
    mape DOUBLE,
    smape DOUBLE,
    r2 DOUBLE,
    r2_returns DOUBLE,
    pinball DOUBLE,
    crps DOUBLE,
    coverage JSON NOT NULL,
    width DOUBLE,
    directional DOUBLE,
    directional_base DOUBLE,
    calibration DOUBLE,
    skill DOUBLE
);

CREATE TABLE dead_letters (
    source_topic VARCHAR NOT NULL,
    source_partition INTEGER NOT NULL,
    source_offset BIGINT NOT NULL,
    key BLOB,
    value BLOB NOT NULL,
    reason VARCHAR NOT NULL,
    stage VARCHAR NOT NULL,
    watermark_ns BIGINT
);
