-- The store as people ask for it: positions by partition, forecasts and scores by step, in prices.

CREATE VIEW offsets AS
SELECT unnest(from_json(positions, '[{"source_topic": "VARCHAR", "source_partition": "INTEGER",
    "next_offset": "BIGINT", "watermark_ns": "BIGINT"}]'), recursive := true)
FROM commits;

CREATE VIEW forecast_steps AS
SELECT
    f.id, f.symbol, f.as_of_ns, f.tie, f.step,
    coalesce(f.target_ns[f.step], f.as_of_ns + f.step * f.step_ns) AS target_ns,
    f.anchor, f.scale, m.levels,
    list_transform(f.part, lambda distance: f.anchor + distance) AS quantiles,
    f.anchor + f.part[list_position(m.levels, 0.5)] AS point,
    m.name AS model, m.version,
    ['naive', 'seasonal', 'holt', 'model', 'fallback'][f.rung + 1] AS rung,
    f.flags, f.confidence
FROM (
    SELECT *, quantiles_from_anchor[1 + (step - 1) * width : step * width] AS part
    FROM (
        SELECT f.*, len(m.levels) AS width,
            unnest(generate_series(1, len(f.quantiles_from_anchor) // len(m.levels))) AS step
        FROM forecasts f JOIN models m USING (model)
    )
) f JOIN models m USING (model);

CREATE VIEW score_steps AS
SELECT
    s.id, s.symbol, s.as_of_ns, s.settled_ns, s.steps[s.i] AS step, s.anchor, s.scale,
    s.anchor + s.actual_from_anchor[s.i] AS actual,
    s.anchor + s.point_from_anchor[s.i] AS point,
    s.pinball[s.i] AS pinball, s.covered[s.i] AS covered,
    s.actual_from_anchor[s.i] IS NULL AS void,
    m.name AS model, m.version, s.in_sample
FROM (SELECT *, unnest(generate_series(1, len(steps))) AS i FROM scores) s JOIN models m USING (model);
