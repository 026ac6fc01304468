-- +goose Up

-- Times are microseconds since 1970, UTC. Hashes are keyed and have 16 bytes.

-- Whatever is registered: a row for each person, credential, group and so on.
-- What is said of it stands sealed in body, bound to the columns before it.
CREATE TABLE object (
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL, -- 1, and one more with each change
    changed INTEGER NOT NULL,
    lookup  BLOB,             -- of a card: its keyed hash
    body    BLOB    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX object_lookup ON object (lookup) WHERE lookup IS NOT NULL;

-- What an object names. Nothing that is named can be removed.
CREATE TABLE link (
    kind      TEXT NOT NULL,
    id        TEXT NOT NULL,
    to_kind   TEXT NOT NULL,
    to_id     TEXT NOT NULL,
    PRIMARY KEY (kind, id, to_kind, to_id),
    FOREIGN KEY (kind, id) REFERENCES object (kind, id) ON DELETE CASCADE,
    FOREIGN KEY (to_kind, to_id) REFERENCES object (kind, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX link_to ON link (to_kind, to_id, kind, id);

-- A line for each change, each bound to the one before it.
CREATE TABLE audit (
    seq     INTEGER NOT NULL PRIMARY KEY, -- from 1, without a gap
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    why     TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL, -- after the change; 0: it is no object
    before  BLOB    NOT NULL, -- hash of what was said; empty: there was none
    after   BLOB    NOT NULL, -- empty: there is none any more
    chain   BLOB    NOT NULL  -- hash of this line and the chain before it
) STRICT;
CREATE INDEX audit_object ON audit (kind, id, seq);

-- One value each: the head of the audit lines, and something sealed that tells
-- whether the key is the right one.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE meta;
DROP TABLE audit;
DROP TABLE link;
DROP TABLE object;
