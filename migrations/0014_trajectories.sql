-- What was fitted and searched for, with which parameters, on data of which kind, and what came of it: a row for each
-- job that is done and whose data set says what it is like; in rows of before, none does. What is no number is NULL.

ALTER TABLE datasets ADD COLUMN signature JSON;
ALTER TABLE trials ADD COLUMN origin VARCHAR DEFAULT '';

CREATE VIEW trajectories AS
WITH ended AS (
    SELECT *, CASE kind WHEN 'optimize' THEN order_json -> '$.fit' ELSE order_json END AS fit
    FROM jobs WHERE state = 'done' AND kind IN ('train', 'optimize')
), found AS (
    SELECT *, coalesce(result_json -> '$.content.best.params', fit -> '$.model_params') AS params FROM ended
)
SELECT
    f.id AS job, f.kind AS made_by, f.fit ->> '$.kind' AS kind, f.fit, f.params,
    coalesce(f.order_json ->> '$.metric', '') AS metric,
    TRY_CAST(f.result_json ->> '$.metrics.skill' AS DOUBLE) AS skill,
    TRY_CAST(f.result_json ->> '$.metrics.skill_low' AS DOUBLE) AS skill_low,
    TRY_CAST(f.result_json ->> '$.metrics.skill_high' AS DOUBLE) AS skill_high,
    TRY_CAST(v.card_json ->> '$.cost_us' AS DOUBLE) AS cost_us,
    d.signature, f.ended_ns AS at_ns
FROM found f
JOIN datasets d ON d.hash = f.result_json ->> '$.content.dataset.hash'
LEFT JOIN versions v ON v.digest = f.result_json ->> '$.content.registered.digest'
WHERE json_type(f.fit) = 'OBJECT' AND json_type(f.params) = 'OBJECT' AND json_type(d.signature) = 'OBJECT';
