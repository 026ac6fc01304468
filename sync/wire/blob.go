package wire

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
)

// A blob's plain content is one stream: a version, the policy document with its
// length, the keys of the rows that are removed, and the rows that are set. Each
// sort of row is in the order of its keys, with its length before it and a zero
// after the last. The stream is compressed as one (RFC 1951), so that a blob is
// not larger than its rows would be in a gzip file, cut into parts and sealed,
// each part by itself. Neither end has more than a part in memory.

const (
	// MaxEntry is the longest row, without its key, in bytes.
	MaxEntry = 8 << 10
	// MaxPolicyDocument is the longest policy document of a blob, in bytes.
	MaxPolicyDocument = 8 << 20

	blobVersion  = 1
	sealOverhead = 40 // bytes that a part grows by when it is sealed (keys.SealOverhead)
	plainPart    = MaxPart - sealOverhead
)

// Sealer encrypts and authenticates; what aad is bound to is not hidden.
// keys.Pepper.Blobs returns the one that both ends have.
type Sealer interface {
	Seal(plain, aad []byte) []byte
	Open(sealed, aad []byte) ([]byte, error)
}

// Row is one row of an allowlist: the keyed hash of a credential, and what is
// said of it. An Entry that is nil removes the row.
type Row struct {
	Key   [16]byte
	Entry []byte
}

// ErrBlob marks a blob that is not what its manifest says or cannot be read.
var ErrBlob = errors.New("blob is damaged")

// partAAD binds a part to its place.
func partAAD(controller string, b *Blob, n int) []byte {
	return fmt.Appendf(nil, "gatehouse blob\x00%s\x00%s\x00%d\x00%d\x00%d", controller, b.ID, b.From, b.To, n)
}

// BlobWriter writes a blob. Its methods are called in this order: Policy once or
// not at all, then Row for each row, then Close.
type BlobWriter struct {
	controller string
	sealer     Sealer
	out        io.Writer
	blob       Blob
	plain      []byte // of the part that is being filled
	flate      *flate.Writer
	state      blobState
	last       [16]byte
	err        error
}

// blobState is what a blob's stream has come to.
type blobState int

const (
	blobPolicy  blobState = iota // nothing yet
	blobRemoved                  // rows that are removed
	blobSet                      // rows that are set
)

// NewBlobWriter begins the delta from a version to another one, or a snapshot of
// the latter if from is 0. Its sealed parts are written to out one after the
// other: each has MaxPart bytes, but for the last.
func NewBlobWriter(out io.Writer, s Sealer, controller string, from, to uint64) *BlobWriter {
	var id [16]byte
	rand.Read(id[:]) // never fails
	w := &BlobWriter{
		controller: controller, sealer: s, out: out,
		blob: Blob{ID: hex.EncodeToString(id[:]), From: from, To: to, Parts: []Hash{}},
	}
	w.flate, w.err = flate.NewWriter((*partWriter)(w), flate.DefaultCompression)
	w.write([]byte{blobVersion})
	return w
}

// ID is the blob's.
func (w *BlobWriter) ID() string { return w.blob.ID }

func (w *BlobWriter) write(b []byte) {
	if w.err == nil {
		_, w.err = w.flate.Write(b)
	}
}

func (w *BlobWriter) fail(format string, args ...any) error {
	if w.err == nil {
		w.err = fmt.Errorf("write a blob: "+format, args...)
	}
	return w.err
}

// Policy writes the policy document. A delta without one leaves the document as
// it was; a snapshot has one.
func (w *BlobWriter) Policy(document []byte) error {
	switch {
	case w.state != blobPolicy:
		return w.fail("the policy comes before all rows, once")
	case len(document) == 0 || len(document) > MaxPolicyDocument:
		return w.fail("a policy document of %d bytes, want 1 to %d", len(document), MaxPolicyDocument)
	}
	w.write(binary.AppendUvarint(nil, uint64(len(document))))
	w.write(document)
	w.state = blobRemoved
	return w.err
}

// Row writes a row: first those that are removed, then those that are set, both
// in the order of their keys.
func (w *BlobWriter) Row(r Row) error {
	w.begin()
	first := w.blob.Rows == 0
	if r.Entry != nil && w.state == blobRemoved {
		w.write([]byte{0})
		w.state, first = blobSet, true
	}
	switch {
	case r.Entry == nil && w.state == blobSet:
		return w.fail("rows that are removed come before those that are set")
	case r.Entry == nil && w.blob.From == 0:
		return w.fail("a snapshot removes nothing")
	case !first && bytes.Compare(r.Key[:], w.last[:]) <= 0:
		return w.fail("rows are not in the order of their keys")
	case r.Entry != nil && (len(r.Entry) == 0 || len(r.Entry) > MaxEntry):
		return w.fail("a row of %d bytes, want 1 to %d", len(r.Entry), MaxEntry)
	case w.blob.Rows == MaxRows:
		return w.fail("more than %d rows", MaxRows)
	}
	length := uint64(1) // of a row that is removed
	if r.Entry != nil {
		length = uint64(len(r.Entry))
	}
	w.write(binary.AppendUvarint(nil, length))
	w.write(r.Key[:])
	w.write(r.Entry)
	w.last = r.Key
	w.blob.Rows++
	return w.err
}

// begin ends what comes before the rows.
func (w *BlobWriter) begin() {
	if w.state == blobPolicy {
		w.write([]byte{0}) // no policy document
		w.state = blobRemoved
	}
}

// Close writes what is left and returns what a manifest says of the blob.
func (w *BlobWriter) Close() (Blob, error) {
	if w.blob.From == 0 && w.state == blobPolicy {
		w.fail("a snapshot needs a policy document")
	}
	w.begin()
	if w.state == blobRemoved {
		w.write([]byte{0})
	}
	w.write([]byte{0})
	if w.err == nil {
		w.err = w.flate.Close()
	}
	if w.err == nil && len(w.plain) > 0 {
		w.err = w.seal()
	}
	if w.err != nil {
		return Blob{}, w.err
	}
	return w.blob, nil
}

// partWriter takes the compressed stream.
type partWriter BlobWriter

func (p *partWriter) Write(b []byte) (n int, err error) {
	w := (*BlobWriter)(p)
	for len(b) > 0 {
		k := min(len(b), plainPart-len(w.plain))
		w.plain = append(w.plain, b[:k]...)
		b, n = b[k:], n+k
		if len(w.plain) == plainPart {
			if err := w.seal(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (w *BlobWriter) seal() error {
	sealed := w.sealer.Seal(w.plain, partAAD(w.controller, &w.blob, len(w.blob.Parts)))
	w.plain = w.plain[:0]
	if len(sealed) > MaxPart || len(w.blob.Parts) == MaxParts {
		return fmt.Errorf("write a blob: %w", ErrTooLarge)
	}
	if _, err := w.out.Write(sealed); err != nil {
		return fmt.Errorf("write a blob: %w", err)
	}
	w.blob.Parts = append(w.blob.Parts, sha256.Sum256(sealed))
	w.blob.Bytes += uint64(len(sealed))
	return nil
}

// PartSize is how many bytes a part has, sealed.
func (b *Blob) PartSize(n int) int {
	if n < len(b.Parts)-1 {
		return MaxPart
	}
	return int(b.Bytes - uint64(n)*MaxPart)
}

// CheckPart says whether sealed bytes are a part of the blob.
func (b *Blob) CheckPart(n int, sealed []byte) error {
	switch {
	case n < 0 || n >= len(b.Parts):
		return fmt.Errorf("%w: it has no part %d", ErrBlob, n)
	case len(sealed) != b.PartSize(n):
		return fmt.Errorf("%w: part %d has %d bytes, want %d", ErrBlob, n, len(sealed), b.PartSize(n))
	case sha256.Sum256(sealed) != b.Parts[n]:
		return fmt.Errorf("%w: part %d is not the one that was signed", ErrBlob, n)
	}
	return nil
}

// BlobReader reads a blob: what was written, in the same order, or an ErrBlob.
// Nothing that it returned is to be trusted before Next has returned io.EOF: the
// stream may end too soon.
type BlobReader struct {
	blob   Blob
	parts  *partReader
	r      *bufio.Reader
	policy []byte
	state  blobState
	rows   uint64
	first  bool
	last   [16]byte
	entry  []byte
	err    error
}

// OpenBlob begins to read a blob of a controller: part returns the sealed bytes
// of a part, which are compared with the blob's hashes. It is called once for
// each part, in their order.
func OpenBlob(b Blob, s Sealer, controller string, part func(n int) ([]byte, error)) (*BlobReader, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBlob, err)
	}
	parts := &partReader{blob: b, sealer: s, controller: controller, part: part}
	r := &BlobReader{blob: b, parts: parts, r: bufio.NewReader(flate.NewReader(parts)), state: blobRemoved, first: true}
	if err := r.open(); err != nil {
		return nil, blobFault(err)
	}
	return r, nil
}

func (r *BlobReader) open() error {
	version, err := r.r.ReadByte()
	if err != nil {
		return err
	}
	if version != blobVersion {
		return fmt.Errorf("it is of version %d, not %d", version, blobVersion)
	}
	n, err := r.length(MaxPolicyDocument)
	if err != nil || n == 0 {
		if err == nil && r.blob.From == 0 {
			err = errors.New("a snapshot without a policy document")
		}
		return err
	}
	// A length is cheap to write: only what comes is kept.
	var document bytes.Buffer
	if _, err := io.CopyN(&document, r.r, int64(n)); err != nil {
		return err
	}
	r.policy = document.Bytes()
	return nil
}

// length reads a length that is written in the one shortest way.
func (r *BlobReader) length(most uint64) (uint64, error) {
	n, err := binary.ReadUvarint(countingReader{r.r, new(int)})
	if err != nil {
		return 0, err
	}
	if n > most {
		return 0, fmt.Errorf("a length of %d, more than %d", n, most)
	}
	return n, nil
}

// countingReader refuses a number of more bytes than the limits here need.
type countingReader struct {
	*bufio.Reader
	n *int
}

func (c countingReader) ReadByte() (byte, error) {
	b, err := c.Reader.ReadByte()
	if *c.n++; *c.n > 1 && b == 0 && err == nil {
		return 0, errors.New("a length is not written in the shortest way")
	}
	return b, err
}

// Policy is the policy document; nil: it stays as it was.
func (r *BlobReader) Policy() []byte { return r.policy }

// Next returns the next row; its Entry is good until the next call. At the end,
// when all is as it should be, the error is io.EOF.
func (r *BlobReader) Next() (Row, error) {
	if r.err != nil {
		return Row{}, r.err
	}
	row, err := r.next()
	switch {
	case err == io.EOF && r.rows != r.blob.Rows:
		err = fmt.Errorf("%w: it has %d rows, the manifest says %d", ErrBlob, r.rows, r.blob.Rows)
	case err != nil && err != io.EOF:
		err = blobFault(err)
	}
	r.err = err
	return row, err
}

// next is Next; its io.EOF is the end as it should be.
func (r *BlobReader) next() (row Row, err error) {
	n, err := r.length(MaxEntry)
	if err != nil {
		return row, notEOF(err)
	}
	if n == 0 && r.state == blobRemoved {
		r.state, r.first = blobSet, true
		if n, err = r.length(MaxEntry); err != nil {
			return row, notEOF(err)
		}
	}
	if n == 0 {
		if _, err := r.r.ReadByte(); err != io.EOF || !r.parts.ended() {
			return row, errors.Join(errors.New("bytes after the end"), err)
		}
		return row, io.EOF
	}
	if r.rows == r.blob.Rows {
		return row, fmt.Errorf("it has more than the %d rows that the manifest says", r.rows)
	}
	if _, err := io.ReadFull(r.r, row.Key[:]); err != nil {
		return row, notEOF(err)
	}
	if !r.first && bytes.Compare(row.Key[:], r.last[:]) <= 0 {
		return row, errors.New("rows are not in the order of their keys")
	}
	switch {
	case r.state == blobSet:
		r.entry = append(r.entry[:0], make([]byte, n)...)
		if _, err := io.ReadFull(r.r, r.entry); err != nil {
			return row, notEOF(err)
		}
		row.Entry = r.entry
	case n != 1 || r.blob.From == 0:
		return row, errors.New("a removed row with an entry, or in a snapshot")
	}
	r.last, r.first = row.Key, false
	r.rows++
	return row, nil
}

func notEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// blobFault marks what is wrong with a blob itself; where a part could not be
// had, that is the error.
func blobFault(err error) error {
	if _, ok := errors.AsType[*partError](err); ok || errors.Is(err, ErrBlob) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBlob, notEOF(err))
}

// partError is that a part could not be had.
type partError struct{ error }

func (e *partError) Unwrap() error { return e.error }

// partReader is the compressed stream.
type partReader struct {
	blob       Blob
	sealer     Sealer
	controller string
	part       func(n int) ([]byte, error)
	n          int
	plain      []byte
}

func (p *partReader) Read(b []byte) (int, error) {
	if err := p.fill(); err != nil {
		return 0, err
	}
	n := copy(b, p.plain)
	p.plain = p.plain[n:]
	return n, nil
}

// ReadByte keeps the decompressor from reading beyond its end.
func (p *partReader) ReadByte() (byte, error) {
	if err := p.fill(); err != nil {
		return 0, err
	}
	b := p.plain[0]
	p.plain = p.plain[1:]
	return b, nil
}

func (p *partReader) ended() bool { return p.n == len(p.blob.Parts) && len(p.plain) == 0 }

// fill makes sure that there is something to read.
func (p *partReader) fill() error {
	if p.ended() {
		return io.EOF
	}
	if len(p.plain) > 0 {
		return nil
	}
	sealed, err := p.part(p.n)
	if err != nil {
		return &partError{fmt.Errorf("part %d: %w", p.n, err)}
	}
	if err := p.blob.CheckPart(p.n, sealed); err != nil {
		return err
	}
	if p.plain, err = p.sealer.Open(sealed, partAAD(p.controller, &p.blob, p.n)); err != nil {
		return fmt.Errorf("%w: part %d: %w", ErrBlob, p.n, err)
	}
	if len(p.plain) == 0 {
		return fmt.Errorf("%w: part %d is empty", ErrBlob, p.n)
	}
	p.n++
	return nil
}

// Part is the payload of down/chunk, which answers up/fetch, and of down/delta,
// by which the CRM pushes a small delta just before the manifest that names it.
// It is not JSON: base64 would make a third more of it.
type Part struct {
	Blob   string // its id
	Number int    // from 0 on
	Sealed []byte
}

// partHead is the version, the blob's id and the part's number before the bytes.
const partHead = 1 + 16 + 4

// MaxPartFrame is the largest payload of down/chunk and down/delta, in bytes.
const MaxPartFrame = partHead + MaxPart

// Marshal writes the part, or says why nobody would accept it.
func (p *Part) Marshal() ([]byte, error) {
	if err := CheckEpoch(p.Blob); err != nil {
		return nil, fmt.Errorf("part: %w", err)
	}
	id, err := hex.DecodeString(p.Blob)
	if err != nil {
		return nil, fmt.Errorf("part: %w", err)
	}
	if p.Number < 0 || p.Number >= MaxParts || len(p.Sealed) == 0 || len(p.Sealed) > MaxPart {
		return nil, fmt.Errorf("part %d of %d bytes is out of range", p.Number, len(p.Sealed))
	}
	b := make([]byte, 0, partHead+len(p.Sealed))
	b = append(append(b, Version), id...)
	b = binary.BigEndian.AppendUint32(b, uint32(p.Number))
	return append(b, p.Sealed...), nil
}

// ParsePart reads a part. Its bytes are those of the payload.
func ParsePart(payload []byte) (Part, error) {
	switch {
	case len(payload) > MaxPartFrame:
		return Part{}, fmt.Errorf("part: %w: %d bytes, more than %d", ErrTooLarge, len(payload), MaxPartFrame)
	case len(payload) <= partHead:
		return Part{}, fmt.Errorf("part: %d bytes are too few", len(payload))
	case payload[0] != Version:
		return Part{}, fmt.Errorf("part: version is %d, not %d", payload[0], Version)
	}
	p := Part{Blob: hex.EncodeToString(payload[1:17]), Number: int(binary.BigEndian.Uint32(payload[17:])), Sealed: payload[partHead:]}
	if p.Number >= MaxParts {
		return Part{}, fmt.Errorf("part %d is out of range", p.Number)
	}
	return p, nil
}
