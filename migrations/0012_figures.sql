-- Figures in windows of event time, too (`span`), with intervals and how much they rest on: of too few independent blocks
-- (`insufficient`) all but the counts is NULL. In rows of before these columns are NULL.

ALTER TABLE accuracy ADD COLUMN outside BIGINT;
ALTER TABLE accuracy ADD COLUMN blocks BIGINT;
ALTER TABLE accuracy ADD COLUMN insufficient BOOLEAN;
ALTER TABLE accuracy ADD COLUMN mase DOUBLE;
ALTER TABLE accuracy ADD COLUMN directional_low DOUBLE;
ALTER TABLE accuracy ADD COLUMN directional_high DOUBLE;
ALTER TABLE accuracy ADD COLUMN intervals JSON;
ALTER TABLE accuracy ADD COLUMN class_accuracy DOUBLE;
ALTER TABLE accuracy ADD COLUMN class_accuracy_base DOUBLE;
ALTER TABLE accuracy ADD COLUMN log_loss DOUBLE;
ALTER TABLE accuracy ADD COLUMN calibration_error DOUBLE;
