-- +goose Up

-- When something is to be done with an object, such as to end a visit; NULL:
-- never. It is in body too.
ALTER TABLE object ADD COLUMN due INTEGER;
CREATE INDEX object_due ON object (kind, due) WHERE due IS NOT NULL;

-- Where the audit stands for those who wait for changes: lines of exports and of
-- what was looked at have version 0.
CREATE INDEX audit_change ON audit (seq) WHERE version > 0;

-- What a change took away that doors may still know of, as it was before: cards
-- and codes, the rights of groups, and where doors were. A row is that of the
-- table of objects from before the audit's line seq.
CREATE TABLE trace (
    seq     INTEGER NOT NULL PRIMARY KEY,
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    lookup  BLOB,
    body    BLOB    NOT NULL
) STRICT;

-- +goose Down
DROP TABLE trace;
DROP INDEX audit_change;
DROP INDEX object_due;
ALTER TABLE object DROP COLUMN due;
