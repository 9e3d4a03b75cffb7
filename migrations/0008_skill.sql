-- `skill` is 1 - pinball / pinball of last value, whose quantiles are calibrated too. Of a score: the pinball loss by
-- step in one-bar moves, its own and last value's; NULL in rows of before. Of published figures: pinball and crps are in
-- one-bar moves wherever pinball_naive is known; what stood in `skill` was 1 - MAE / MAE of last value.

ALTER TABLE scores ADD COLUMN loss FLOAT[];
ALTER TABLE scores ADD COLUMN loss_naive FLOAT[];

ALTER TABLE accuracy ADD COLUMN pinball_naive DOUBLE;
ALTER TABLE accuracy ADD COLUMN skill_mae DOUBLE;
UPDATE accuracy SET skill_mae = skill, skill = NULL;

CREATE OR REPLACE VIEW score_steps AS
SELECT
    s.id, s.symbol, s.as_of_ns, s.settled_ns, s.steps[s.i] AS step, s.anchor, s.scale,
    s.anchor + s.actual_from_anchor[s.i] AS actual,
    s.anchor + s.point_from_anchor[s.i] AS point,
    s.pinball[s.i] AS pinball, s.loss[s.i] AS loss, s.loss_naive[s.i] AS loss_naive, s.covered[s.i] AS covered,
    s.actual_from_anchor[s.i] IS NULL AS void,
    m.name AS model, m.version, s.in_sample
FROM (SELECT *, unnest(generate_series(1, len(steps))) AS i FROM scores) s JOIN models m USING (model);
