-- +goose Up

-- One row for each finger or eye at a scanner. What says whose and which it is
-- stands sealed in body; the columns beside it are bound to it, so that a row
-- whose columns were changed does not open.

CREATE TABLE enrolled (
    id      INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- never given twice: who still holds a removed row means no other
    person  BLOB    NOT NULL, -- keyed hash of the person's id, 16 bytes
    scanner TEXT    NOT NULL, -- its name in the configuration
    serial  TEXT    NOT NULL, -- of the scanner itself
    slot    INTEGER NOT NULL,
    state   INTEGER NOT NULL,
    session BLOB    NOT NULL, -- in which it was enrolled, 16 bytes
    body    BLOB    NOT NULL,
    UNIQUE (scanner, serial, slot)
) STRICT;

CREATE INDEX enrolled_person ON enrolled (person, scanner);

-- Which scanner was last found under a name: the rows of another that had the
-- name before match nobody.
CREATE TABLE scanner (
    name   TEXT NOT NULL PRIMARY KEY,
    serial TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- When the scanners were last compared with the rows, as Unix seconds.
CREATE TABLE checked (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    at  INTEGER NOT NULL
) STRICT;
