-- +goose Up

-- Times are microseconds since 1970, UTC.

-- What was published for each controller.
CREATE TABLE controller (
    name       TEXT    NOT NULL PRIMARY KEY,
    version    INTEGER NOT NULL, -- never goes down
    revision   INTEGER NOT NULL, -- one more whenever the manifest is another
    created    INTEGER NOT NULL, -- of the version
    generation TEXT    NOT NULL, -- names the pepper
    list       INTEGER NOT NULL, -- its rows and profiles
    head       INTEGER NOT NULL, -- the line of the registry's audit up to which all is published
    taken      INTEGER NOT NULL, -- and up to which all is that takes something away
    rows       INTEGER NOT NULL, -- how many there are
    words      BLOB    NOT NULL, -- what its doors ask for, JSON
    document   BLOB    NOT NULL, -- SHA-256 of the policy document
    urgent     INTEGER NOT NULL,
    manifest   TEXT    NOT NULL, -- JWS
    key        TEXT    NOT NULL, -- id of the key that signed it
    expires    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The rows that a controller has, without what is said in them. A list is made
-- anew beside the one that is in use, and then takes its place.
CREATE TABLE sent (
    list    INTEGER NOT NULL,
    key     BLOB    NOT NULL, -- keyed hash of a credential, by the controller's pepper
    person  TEXT    NOT NULL,
    profile INTEGER NOT NULL,
    active  INTEGER NOT NULL,
    digest  BLOB    NOT NULL, -- keyed hash of the entry
    PRIMARY KEY (list, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX sent_person ON sent (person, list);

-- The profiles by which rows name their rights.
CREATE TABLE profile (
    list   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    source TEXT    NOT NULL,
    rights BLOB    NOT NULL, -- JSON
    PRIMARY KEY (list, number)
) STRICT, WITHOUT ROWID;

-- The blobs that are kept in files.
CREATE TABLE blob (
    id         TEXT    NOT NULL PRIMARY KEY,
    controller TEXT    NOT NULL,
    first      INTEGER NOT NULL, -- the version it begins from; 0: a snapshot
    last       INTEGER NOT NULL, -- the version it brings
    rows       INTEGER NOT NULL,
    bytes      INTEGER NOT NULL,
    parts      BLOB    NOT NULL, -- SHA-256 of each
    superseded INTEGER           -- NULL: the manifest names it
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_controller ON blob (controller, last);

-- When each version was made, and what of the registry is in it.
CREATE TABLE made (
    controller TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    head       INTEGER NOT NULL,
    taken      INTEGER NOT NULL,
    PRIMARY KEY (controller, version)
) STRICT, WITHOUT ROWID;

-- What each controller last said that it uses.
CREATE TABLE reported (
    controller TEXT    NOT NULL PRIMARY KEY,
    version    INTEGER NOT NULL,
    at         INTEGER NOT NULL -- when it first said so
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE reported;
DROP TABLE made;
DROP TABLE blob;
DROP TABLE profile;
DROP TABLE sent;
DROP TABLE controller;
