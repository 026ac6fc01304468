package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

var migrations = fstest.MapFS{
	"migrations/00001_t.sql": {Data: []byte("-- +goose Up\nCREATE TABLE t (v INTEGER) STRICT;\n-- +goose Down\nDROP TABLE t;\n")},
}

func TestReadersSeeWhatIsCommittedAndWriteNothing(t *testing.T) {
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "a ?%#b.db"), migrations, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.W.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`INSERT INTO t VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	count := func() (n int) {
		if err := db.R.QueryRow(`SELECT count(*) FROM t`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n != 0 {
		t.Errorf("%d rows before the commit", n)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 1 {
		t.Errorf("%d rows after the commit", n)
	}
	if _, err := db.R.Exec(`DELETE FROM t`); err == nil {
		t.Error("a reader wrote")
	}
}

func TestAFileThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := Open(t.Context(), path, migrations, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("made with mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), path, migrations, 1); !errors.Is(err, ErrShared) {
		t.Errorf("opened: %v", err)
	}
}
