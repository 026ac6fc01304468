-- +goose Up

-- What records used up for ever, such as one-time codes: it goes back to the
-- controller with the answers to its states, so that a restored card revives none.
CREATE TABLE used (
    controller TEXT    NOT NULL,
    what       TEXT    NOT NULL,
    received   INTEGER NOT NULL, -- the record that says so
    PRIMARY KEY (controller, what)
) STRICT, WITHOUT ROWID;
CREATE INDEX used_newest ON used (controller, received);

-- What became of commands, by the records that say so.
CREATE TABLE commands (
    controller TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    result     TEXT    NOT NULL,
    time       INTEGER NOT NULL, -- the controller's clock
    received   INTEGER NOT NULL,
    PRIMARY KEY (controller, id)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE commands;
DROP INDEX used_newest;
DROP TABLE used;
