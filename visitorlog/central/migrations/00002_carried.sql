-- +goose Up

-- Records of epochs that cannot be gone on with, as records of later epochs
-- carried them. None is in its own epoch's tree.
CREATE TABLE carried (
    id         INTEGER NOT NULL PRIMARY KEY, -- in the order of arrival
    controller TEXT    NOT NULL,
    epoch      TEXT    NOT NULL,
    seq        INTEGER NOT NULL,
    leaf       BLOB    NOT NULL,
    jws        TEXT    NOT NULL,
    carrier    INTEGER NOT NULL REFERENCES records (id), -- the first that carried it
    UNIQUE (controller, epoch, seq, leaf)                -- two of one sequence: a fork
) STRICT;
CREATE INDEX carried_carrier ON carried (carrier);

-- +goose Down
DROP TABLE carried;
