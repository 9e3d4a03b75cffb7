-- What a model of classes says beside its quantiles: how likely down, flat and up are at the last step; NULL of others.

ALTER TABLE forecasts ADD COLUMN probs FLOAT[];
