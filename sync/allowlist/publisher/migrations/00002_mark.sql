-- +goose Up

-- What the registry calls the line "taken" of its audit: a registry that was put
-- back to an older state calls it otherwise, or has it not.
ALTER TABLE controller ADD COLUMN mark TEXT NOT NULL DEFAULT '';

-- +goose Down
ALTER TABLE controller DROP COLUMN mark;
