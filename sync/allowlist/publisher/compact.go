package publisher

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/gatehouse-acs/gatehouse/sync/wire"
)

const (
	// mostDeltas is how many deltas there may be before a snapshot is made of them,
	// and keepDeltas how many of them stay, for controllers that were away shortly.
	mostDeltas = 48
	keepDeltas = 16
	// smallDeltas is how many bytes of deltas there may be whatever the size of the
	// snapshot.
	smallDeltas = 1 << 20
)

// tooMany says whether the deltas are more than a snapshot is worth.
func tooMany(all []wire.Blob) bool {
	var snapshot, deltas uint64
	for _, b := range all {
		if b.From == 0 {
			snapshot += b.Bytes
		} else {
			deltas += b.Bytes
		}
	}
	return len(all) > 1+mostDeltas || deltas > smallDeltas && deltas > snapshot/2
}

// compact makes a snapshot of the one before and the deltas since, if there are
// many. It says the same as they do: the version stays.
func (p *Publisher) compact(ctx context.Context, controller string) error {
	lock := p.one(controller)
	lock.Lock()
	defer lock.Unlock()
	all, err := current(ctx, p.store.r, controller)
	if err != nil || !tooMany(all) {
		return err
	}
	return p.compactAll(ctx, controller, all)
}

// makeRoom makes a snapshot where a manifest can name no further delta: only
// commands have published for long, which leave that to the daemon. The
// controller's lock is held.
func (p *Publisher) makeRoom(ctx context.Context, controller string) error {
	all, err := current(ctx, p.store.r, controller)
	if err != nil || len(all) <= wire.MaxDeltas {
		return err
	}
	return p.compactAll(ctx, controller, all)
}

// compactAll makes a snapshot of all blobs of a controller.
func (p *Publisher) compactAll(ctx context.Context, controller string, all []wire.Blob) error {
	v, err := readPublished(ctx, p.store.r, controller)
	if err != nil {
		return err
	}
	secret, err := p.o.Secret(controller)
	if err != nil {
		return err
	}
	if secret.Generation() != v.generation || all[0].From != 0 || all[len(all)-1].To != v.version {
		return nil // another version is on its way
	}
	blob, err := p.merge(secret, controller, v.version, all)
	if err != nil {
		return fmt.Errorf("make a snapshot for %s: %w", controller, err)
	}
	err = p.store.transact(ctx, func(tx *sql.Tx) error { return p.exchange(ctx, tx, v, blob) })
	if err != nil {
		err = errors.Join(err, os.Remove(p.blobPath(blob.ID)))
	}
	if errors.Is(err, errOvertaken) {
		return nil // the next one will try
	}
	return err
}

// exchange puts a snapshot into the place of the one before, and of the deltas
// that are too old or too large to be kept beside it.
func (p *Publisher) exchange(ctx context.Context, tx *sql.Tx, v published, snapshot wire.Blob) error {
	now, err := readPublished(ctx, tx, v.name)
	if err != nil {
		return err
	}
	if now.version != v.version {
		return errOvertaken
	}
	all, err := current(ctx, tx, v.name)
	if err != nil {
		return err
	}
	var size uint64
	for i, b := range slices.Backward(all) {
		size += b.Bytes
		if b.From > 0 && len(all)-i <= keepDeltas && size <= max(smallDeltas, snapshot.Bytes/4) {
			continue
		}
		if err := supersede(ctx, tx, b, p.o.Clock()); err != nil {
			return err
		}
	}
	if err := insertBlob(ctx, tx, v.name, snapshot); err != nil {
		return err
	}
	if err := p.sign(ctx, tx, &now); err != nil {
		return err
	}
	return writeController(ctx, tx, v.version, now)
}

// merge writes the snapshot of a version from the one before and the deltas since.
// The rows of the deltas are in memory meanwhile, those of the snapshot are not.
func (p *Publisher) merge(s Secret, controller string, version uint64, all []wire.Blob) (_ wire.Blob, err error) {
	old, closeOld, err := p.read(s, controller, all[0])
	if err != nil {
		return wire.Blob{}, err
	}
	defer func() { err = errors.Join(err, closeOld()) }()
	document, rows := old.Policy(), make(map[[16]byte][]byte)
	for _, b := range all[1:] {
		if b.To <= all[0].To {
			continue
		}
		newer, err := p.changes(s, controller, b, rows)
		if err != nil {
			return wire.Blob{}, err
		}
		if newer != nil {
			document = newer
		}
	}
	keys := slices.SortedFunc(maps.Keys(rows), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	return p.writeBlob(s, controller, 0, version, func(w *wire.BlobWriter) error {
		if err := w.Policy(document); err != nil {
			return err
		}
		set := func(key [16]byte) error {
			if rows[key] == nil {
				return nil
			}
			return w.Row(wire.Row{Key: key, Entry: rows[key]})
		}
		for {
			row, err := old.Next()
			if err != nil && err != io.EOF {
				return err
			}
			for len(keys) > 0 && (err == io.EOF || bytes.Compare(keys[0][:], row.Key[:]) < 0) {
				if err := set(keys[0]); err != nil {
					return err
				}
				keys = keys[1:]
			}
			if err == io.EOF {
				return nil
			}
			if len(keys) > 0 && keys[0] == row.Key {
				err, keys = set(keys[0]), keys[1:]
			} else {
				err = w.Row(row)
			}
			if err != nil {
				return err
			}
		}
	})
}

// changes adds the rows of a delta, and returns its policy document.
func (p *Publisher) changes(s Secret, controller string, b wire.Blob, rows map[[16]byte][]byte) (document []byte, err error) {
	r, closeFile, err := p.read(s, controller, b)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeFile()) }()
	for {
		row, err := r.Next()
		if err == io.EOF {
			return r.Policy(), nil
		}
		if err != nil {
			return nil, err
		}
		rows[row.Key] = bytes.Clone(row.Entry)
	}
}

// read opens a blob of ours.
func (p *Publisher) read(s Secret, controller string, b wire.Blob) (*wire.BlobReader, func() error, error) {
	f, err := os.Open(p.blobPath(b.ID))
	if err != nil {
		return nil, nil, err
	}
	r, err := wire.OpenBlob(b, s.Blobs, controller, func(n int) ([]byte, error) { return readPart(f, b, n) })
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("blob %s: %w", b.ID, err), f.Close())
	}
	return r, f.Close, nil
}

// readPart reads the sealed bytes of a part.
func readPart(f io.ReaderAt, b wire.Blob, n int) ([]byte, error) {
	part := make([]byte, b.PartSize(n))
	_, err := f.ReadAt(part, int64(n)*wire.MaxPart)
	return part, err
}
