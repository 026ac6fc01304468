package follower

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

// spool keeps parts of blobs in files until all are there: a folder for each blob,
// a file for each part. It is not synced: what a power cut spoils is found by its
// hash and fetched again. Parts are sealed, as they came.
type spool struct{ dir string }

var blobFolder = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (s spool) path(b *wire.Blob, n int) string {
	return filepath.Join(s.dir, b.ID, strconv.Itoa(n))
}

// has finds out which parts of a blob are there, and removes what is not one.
func (s spool) has(b *wire.Blob) ([]bool, error) {
	has := make([]bool, len(b.Parts))
	for n := range has {
		sealed, err := s.read(b, n)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case b.CheckPart(n, sealed) == nil:
			has[n] = true
		default:
			if err := os.Remove(s.path(b, n)); err != nil {
				return nil, err
			}
		}
	}
	return has, nil
}

// read returns a part as it lies there.
func (s spool) read(b *wire.Blob, n int) ([]byte, error) {
	info, err := os.Lstat(s.path(b, n))
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > wire.MaxPart {
		return nil, fmt.Errorf("%s is not a part of an allowlist: remove it", s.path(b, n))
	}
	return os.ReadFile(s.path(b, n))
}

// keep writes a part that was checked.
func (s spool) keep(b *wire.Blob, n int, sealed []byte) error {
	path := s.path(b, n)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	aside := path + ".new"
	if err := os.WriteFile(aside, sealed, 0o600); err != nil {
		return err
	}
	return os.Rename(aside, path)
}

// retain removes all blobs but the given ones.
func (s spool) retain(blobs []wire.Blob) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	wanted := make(map[string]bool)
	for _, b := range blobs {
		wanted[b.ID] = true
	}
	var errs []error
	for _, e := range entries {
		if blobFolder.MatchString(e.Name()) && !wanted[e.Name()] {
			errs = append(errs, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}
