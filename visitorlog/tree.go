package visitorlog

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// tree is the right edge of a Merkle tree: all that appending to it and
// computing its root need, so that neither reads the database.
type tree struct {
	size int64
	edge [63]tlog.Hash // edge[l] is the newest complete subtree of 2^l leaves
}

// ReadHashes gives tlog the hashes of the right edge; it asks for no others
// when it appends or computes the present root.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, ix := range indexes {
		level, n := tlog.SplitStoredHashIndex(ix)
		if n != t.size>>level-1 {
			return nil, fmt.Errorf("hash %d is not on the right edge of a tree of %d", ix, t.size)
		}
		out[i] = t.edge[level]
	}
	return out, nil
}

// add appends a leaf and returns the nodes to store from
// StoredHashIndex(0, size before) on: the leaf itself and each subtree that
// it completes.
func (t *tree) add(leaf tlog.Hash) ([]tlog.Hash, error) {
	hashes, err := tlog.StoredHashesForRecordHash(t.size, leaf, t)
	if err != nil {
		return nil, err
	}
	copy(t.edge[:], hashes)
	t.size++
	return hashes, nil
}

func (t *tree) root() (tlog.Hash, error) { return tlog.TreeHash(t.size, t) }

// last is the leaf of the newest record.
func (t *tree) last() (leaf tlog.Hash, ok bool) { return t.edge[0], t.size > 0 }

// loadTree reads the right edge of a tree of the given size.
func loadTree(size int64, r tlog.HashReader) (*tree, error) {
	t := &tree{size: size}
	var indexes []int64
	for level := 0; size>>level > 0; level++ {
		indexes = append(indexes, tlog.StoredHashIndex(level, size>>level-1))
	}
	hashes, err := r.ReadHashes(indexes)
	if err != nil {
		return nil, err
	}
	copy(t.edge[:], hashes)
	return t, nil
}

// Root computes the root of a log from its leaves as they come, in memory for
// one leaf a level. The zero Root is that of an empty log.
type Root struct{ t tree }

// Add appends a leaf.
func (r *Root) Add(leaf tlog.Hash) error {
	_, err := r.t.add(leaf)
	return err
}

// Size is the number of leaves.
func (r *Root) Size() uint64 { return uint64(r.t.size) }

// Hash is the root of the leaves so far.
func (r *Root) Hash() (tlog.Hash, error) { return r.t.root() }
