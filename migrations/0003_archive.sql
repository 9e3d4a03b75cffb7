-- Days that were moved to Parquet: a row is written in the transaction that deletes the rows from their table.

CREATE TABLE archive_files (
    table_name VARCHAR NOT NULL,
    slice VARCHAR NOT NULL,
    part INTEGER NOT NULL,
    file VARCHAR NOT NULL,
    row_count BIGINT NOT NULL
);
