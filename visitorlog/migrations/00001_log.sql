-- +goose Up
-- rec: one record a row. seq is the leaf's index in the tree, leaf its
-- RFC 6962 leaf hash, body the signed bytes, sealed.
CREATE TABLE rec (
	seq  INTEGER PRIMARY KEY CHECK (seq >= 0),
	leaf BLOB NOT NULL CHECK (length(leaf) = 32),
	body BLOB NOT NULL
) STRICT;

-- node: the hashes of every complete subtree, in tlog's stored-hash numbering.
CREATE TABLE node (
	ix   INTEGER PRIMARY KEY CHECK (ix >= 0),
	hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- state: what decisions use up (one-time codes, passback, lock-outs).
CREATE TABLE state (
	key   TEXT PRIMARY KEY,
	value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- checkpoint: signed notes made while nobody was there to countersign.
CREATE TABLE checkpoint (
	size INTEGER PRIMARY KEY,
	note TEXT NOT NULL
) STRICT;

-- receipt: what the CRM acknowledged, newest last.
CREATE TABLE receipt (
	size           INTEGER PRIMARY KEY,
	root           BLOB NOT NULL CHECK (length(root) = 32),
	checkpoint     TEXT NOT NULL,
	time           TEXT NOT NULL,
	policy_version INTEGER NOT NULL,
	jws            TEXT NOT NULL
) STRICT;

-- meta: whose log this is and how its life began.
CREATE TABLE meta (
	key   TEXT PRIMARY KEY,
	value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
