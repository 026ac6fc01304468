-- +goose Up

-- What belongs to a visit: its decisions, and what became of them.
ALTER TABLE records ADD COLUMN visit TEXT;
CREATE INDEX records_visit ON records (visit, id) WHERE visit IS NOT NULL;

-- Each breaking of the glass owes a review, by somebody else.
CREATE TABLE reviews (
    record    INTEGER NOT NULL PRIMARY KEY REFERENCES records (id), -- break_glass
    person    TEXT    NOT NULL, -- empty: not known
    reviewed  INTEGER,          -- NULL: owed
    reviewer  TEXT,
    justified INTEGER,          -- whether breaking the glass was
    finding   TEXT
) STRICT;
CREATE INDEX reviews_owed ON reviews (record) WHERE reviewed IS NULL;

-- +goose Down
DROP TABLE reviews;
DROP INDEX records_visit;
ALTER TABLE records DROP COLUMN visit;
