-- One letter a message: how long the message was (the value may be cut), how many of its ticks were refused, the numbers
-- of the first of them, and how many for each reason, as JSON. NULL in letters of before.

ALTER TABLE dead_letters ADD COLUMN original_bytes BIGINT;
ALTER TABLE dead_letters ADD COLUMN refused INTEGER;
ALTER TABLE dead_letters ADD COLUMN ticks INTEGER[];
ALTER TABLE dead_letters ADD COLUMN reasons VARCHAR;
