-- +goose Up

-- Times are microseconds since 1970, UTC. Hashes are 32 bytes.

CREATE TABLE controllers (
    name           TEXT    NOT NULL PRIMARY KEY,
    key            INTEGER NOT NULL, -- the one that may send now
    approved       INTEGER NOT NULL,
    revoked        INTEGER,          -- NULL: may send
    online         INTEGER NOT NULL DEFAULT 0,
    seen           INTEGER NOT NULL DEFAULT 0, -- the last message
    sessions       TEXT    NOT NULL DEFAULT '', -- the last few, newest first
    reported_epoch TEXT    NOT NULL DEFAULT '', -- the head that it last reported
    reported_size  INTEGER NOT NULL DEFAULT 0,
    policy_version INTEGER NOT NULL DEFAULT 0   -- the highest in a checked record
) STRICT;

-- Keys are kept after they are replaced: old epochs are verified with them.
CREATE TABLE keys (
    id          INTEGER NOT NULL PRIMARY KEY,
    controller  TEXT    NOT NULL,
    jwk         TEXT    NOT NULL,
    vkey        TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL, -- of the client certificate
    approved    INTEGER NOT NULL,
    UNIQUE (controller, jwk)
) STRICT;

CREATE TABLE epochs (
    id         INTEGER NOT NULL PRIMARY KEY,
    controller TEXT    NOT NULL,
    epoch      TEXT    NOT NULL,
    key        INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    root       BLOB    NOT NULL,
    checkpoint TEXT    NOT NULL, -- at size, signed by the log
    cosigned   TEXT    NOT NULL, -- the newest with our cosignature; its size may be below
    checked    INTEGER NOT NULL DEFAULT 0,  -- records below this sequence are checked
    first_seen INTEGER NOT NULL,
    received   INTEGER NOT NULL, -- the last new record
    UNIQUE (controller, epoch)
) STRICT;

CREATE TABLE records (
    id       INTEGER NOT NULL PRIMARY KEY, -- in the order of arrival
    log      INTEGER NOT NULL REFERENCES epochs (id),
    seq      INTEGER NOT NULL,
    leaf     BLOB    NOT NULL,
    jws      TEXT    NOT NULL,
    received INTEGER NOT NULL,
    checked  TEXT CHECK (checked IN ('ok', 'bad')), -- NULL: not yet
    fault    TEXT,
    -- For search, from the payload once it is checked.
    type     TEXT,
    subject  TEXT,
    time     INTEGER,
    door     TEXT,
    decision TEXT,
    reason   TEXT,
    UNIQUE (log, seq)
) STRICT;
CREATE INDEX records_time ON records (time) WHERE time IS NOT NULL;
CREATE INDEX records_subject ON records (subject, time) WHERE subject IS NOT NULL;

-- Tree nodes above the leaves, by tlog's stored hash index.
CREATE TABLE nodes (
    log  INTEGER NOT NULL REFERENCES epochs (id),
    ix   INTEGER NOT NULL,
    hash BLOB    NOT NULL,
    PRIMARY KEY (log, ix)
) STRICT, WITHOUT ROWID;

-- Records seen ahead of their turn.
CREATE TABLE early (
    controller TEXT    NOT NULL,
    epoch      TEXT    NOT NULL,
    seq        INTEGER NOT NULL,
    jws        TEXT    NOT NULL,
    received   INTEGER NOT NULL,
    PRIMARY KEY (controller, epoch, seq)
) STRICT;

CREATE TABLE alarms (
    id         INTEGER NOT NULL PRIMARY KEY,
    kind       TEXT    NOT NULL,
    controller TEXT    NOT NULL,
    epoch      TEXT    NOT NULL, -- empty: of the controller as a whole
    seq        INTEGER,
    detail     TEXT    NOT NULL,
    raised     INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    cleared    INTEGER,
    cleared_by TEXT
) STRICT;
-- While an alarm is open, the same again only counts.
CREATE UNIQUE INDEX alarms_open ON alarms (kind, controller, epoch) WHERE cleared IS NULL;

-- +goose Down
DROP TABLE alarms;
DROP TABLE early;
DROP TABLE nodes;
DROP TABLE records;
DROP TABLE epochs;
DROP TABLE keys;
DROP TABLE controllers;
