package keys

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

// secretSize is the length of symmetric keys, in bytes.
const secretSize = 32

// SealOverhead is how many bytes longer a sealed text is than its plain text:
// the nonce (24) and the tag (16).
const SealOverhead = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead

// Sealer encrypts and authenticates with XChaCha20-Poly1305, whose nonce is
// long enough to be random for every text. It may be used from several
// goroutines.
type Sealer struct {
	mask
	aead cipher.AEAD
}

// NewSealer returns a Sealer whose key is derived (HKDF-SHA256) from a secret
// of 32 bytes for one purpose: what is sealed for one purpose does not open
// for another.
func NewSealer(secret []byte, purpose string) (*Sealer, error) {
	if len(secret) != secretSize {
		return nil, fmt.Errorf("sealing key has %d bytes, want %d", len(secret), secretSize)
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "gatehouse seal "+purpose, chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive sealing key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return &Sealer{mask: "sealing key", aead: aead}, nil
}

// Seal encrypts plain. Open needs the same aad (the place where the sealed
// text belongs), so that sealed texts cannot be exchanged.
func (s *Sealer) Seal(plain, aad []byte) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSizeX, len(plain)+SealOverhead)
	rand.Read(nonce) // never fails
	return s.aead.Seal(nonce, nonce, plain, aad)
}

// Open decrypts what Seal returned.
func (s *Sealer) Open(sealed, aad []byte) ([]byte, error) {
	if len(sealed) < SealOverhead {
		return nil, fmt.Errorf("sealed text has %d bytes, fewer than %d", len(sealed), SealOverhead)
	}
	plain, err := s.aead.Open(nil, sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:], aad)
	if err != nil {
		return nil, errors.New("sealed text does not open: it was changed, moved, or sealed with another key")
	}
	return plain, nil
}

// Pepper keys the index under which credentials are looked up.
type Pepper struct {
	mask
	secret []byte
	hashes sync.Pool // of hash.Hash: keying one costs as much as using it
}

// NewPepper returns the Pepper with a secret of 32 bytes.
func NewPepper(secret []byte) (*Pepper, error) {
	if len(secret) != secretSize {
		return nil, fmt.Errorf("pepper has %d bytes, want %d", len(secret), secretSize)
	}
	p := &Pepper{mask: "pepper", secret: bytes.Clone(secret)}
	p.hashes.New = func() any { return hmac.New(sha256.New, p.secret) }
	return p, nil
}

// Index is the HMAC-SHA256 of canonical, cut to 16 bytes. It may be used from
// several goroutines.
func (p *Pepper) Index(canonical []byte) [16]byte {
	h := p.hashes.Get().(hash.Hash)
	defer p.hashes.Put(h)
	h.Reset()
	h.Write(canonical)
	var sum [sha256.Size]byte
	return [16]byte(h.Sum(sum[:0]))
}

// Blobs seals what goes from the CRM to the controller of this pepper, both of
// which have it.
func (p *Pepper) Blobs() (*Sealer, error) { return NewSealer(p.secret, sealBlobs) }

// Generation names a pepper without telling anything of it: what was made with
// another one has another name.
func (p *Pepper) Generation() string {
	sum := p.Index([]byte("\x00gatehouse pepper\x00"))
	return hex.EncodeToString(sum[:])
}

// Equal reports whether two peppers are the same.
func (p *Pepper) Equal(q *Pepper) bool { return hmac.Equal(p.secret, q.secret) }
