package central

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// edge is the right edge of a tree: the complete subtrees that make it up, by
// stored hash index. Appending and the root need no other hash, so a batch
// reads none from the database.
type edge map[int64]tlog.Hash

// peaks are the stored hash indexes of the complete subtrees of a tree.
func peaks(size int64) []int64 {
	var ix []int64
	for level, first := 62, int64(0); level >= 0; level-- {
		if width := int64(1) << level; size&width != 0 {
			ix = append(ix, tlog.StoredHashIndex(level, first>>level))
			first += width
		}
	}
	return ix
}

// loadEdge reads the right edge of a tree.
func loadEdge(size int64, r tlog.HashReader) (edge, error) {
	ix := peaks(size)
	hashes, err := r.ReadHashes(ix)
	if err != nil {
		return nil, err
	}
	e := make(edge, len(ix))
	for i := range ix {
		e[ix[i]] = hashes[i]
	}
	return e, nil
}

// grown is a tree with leaves that are not stored yet.
type grown struct {
	size  int64
	known edge // the edge it grew from, and every new hash
	nodes []storedNode
}

type storedNode struct {
	ix   int64
	hash tlog.Hash
}

// grow appends leaves to the tree of a size. It leaves e as it is.
func grow(e edge, size int64, leaves []tlog.Hash) (*grown, error) {
	g := &grown{size: size, known: make(edge, len(e)+2*len(leaves))}
	for ix, h := range e {
		g.known[ix] = h
	}
	for _, leaf := range leaves {
		hashes, err := tlog.StoredHashesForRecordHash(g.size, leaf, g.known)
		if err != nil {
			return nil, err
		}
		first := tlog.StoredHashIndex(0, g.size)
		for i, h := range hashes {
			g.known[first+int64(i)] = h
			if i > 0 { // the leaf itself stands with its record
				g.nodes = append(g.nodes, storedNode{first + int64(i), h})
			}
		}
		g.size++
	}
	return g, nil
}

// trim forgets now and then what is not on the right edge: nothing else is
// needed again.
func (g *grown) trim() (err error) {
	if g.size%checkAtOnce == 0 {
		g.known, err = g.edge()
	}
	return err
}

func (g *grown) root() (tlog.Hash, error) { return tlog.TreeHash(g.size, g.known) }

func (g *grown) edge() (edge, error) { return loadEdge(g.size, g.known) }

// ReadHashes implements tlog.HashReader.
func (e edge) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, ix := range indexes {
		h, ok := e[ix]
		if !ok {
			return nil, fmt.Errorf("tree hash %d is not at hand", ix)
		}
		out[i] = h
	}
	return out, nil
}

// storedHashes reads a log's hashes from the database: leaves from the
// records, the nodes above from theirs.
type storedHashes struct {
	ctx context.Context
	q   queryer
	log int64
}

// ReadHashes implements tlog.HashReader.
func (r storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, ix := range indexes {
		query, at := `SELECT hash FROM nodes WHERE log = $1 AND ix = $2`, ix
		if level, n := tlog.SplitStoredHashIndex(ix); level == 0 {
			query, at = `SELECT leaf FROM records WHERE log = $1 AND seq = $2`, n
		}
		var h []byte
		err := r.q.QueryRowContext(r.ctx, query, r.log, at).Scan(&h)
		if err == nil && len(h) != tlog.HashSize {
			err = fmt.Errorf("it has %d bytes", len(h))
		}
		if errors.Is(err, sql.ErrNoRows) {
			err = errors.New("it is missing")
		}
		if err != nil {
			return nil, fmt.Errorf("tree hash %d: %w", ix, err)
		}
		copy(out[i][:], h)
	}
	return out, nil
}
