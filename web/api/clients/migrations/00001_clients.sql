-- +goose Up

-- Times are microseconds since 1970, UTC.

-- Who may call the API. A row stays when its client may not any more, so that a
-- name in the registry's audit never stands for another.
CREATE TABLE client (
    name        TEXT    NOT NULL PRIMARY KEY,
    kind        TEXT    NOT NULL, -- token or certificate
    hash        BLOB    NOT NULL, -- SHA-256 of the token's secret, or of the certificate
    scopes      TEXT    NOT NULL, -- separated by spaces
    made        INTEGER NOT NULL,
    made_by     TEXT    NOT NULL,
    made_why    TEXT    NOT NULL,
    until       INTEGER NOT NULL, -- exclusive
    used        INTEGER NOT NULL, -- to the minute or so; 0: never
    revoked     INTEGER NOT NULL, -- 0: it is not
    revoked_by  TEXT    NOT NULL,
    revoked_why TEXT    NOT NULL,
    seal        BLOB    NOT NULL -- of all but used: it is made with the registry's key
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX client_hash ON client (kind, hash);

-- What was answered to a request with a key of idempotency, sealed, for a day.
CREATE TABLE answer (
    client  TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    request BLOB    NOT NULL, -- keyed hash of the request
    body    BLOB    NOT NULL,
    PRIMARY KEY (client, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answer_at ON answer (at);

-- +goose Down
DROP TABLE answer;
DROP TABLE client;
