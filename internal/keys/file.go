package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
)

// The types of PEM blocks in key files. Symmetric secrets have types of their
// own, so that one file in another's place is noticed.
const (
	pemPrivateKey = "PRIVATE KEY" // PKCS#8
	pemSeal       = "GATEHOUSE SEALING KEY"
	pemPepper     = "GATEHOUSE PEPPER"
)

const ageSecretPrefix = "AGE-SECRET-KEY-PQ-1"

// GenerateKey makes a signing or TLS key and returns the content of its file:
// PKCS#8 in PEM.
func GenerateKey(alg Algorithm) ([]byte, error) {
	var key crypto.PrivateKey
	var err error
	switch alg {
	case ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("unknown algorithm %q: want %s or %s", alg, ES256, EdDSA)
	}
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), nil
}

// GenerateSeal makes a sealing key and returns the content of its file.
func GenerateSeal() []byte { return encodeSecret(pemSeal, newSecret()) }

// GeneratePepper makes a pepper and returns the content of its file.
func GeneratePepper() []byte { return encodeSecret(pemPepper, newSecret()) }

// GenerateIdentity makes an age identity and returns the content of its file.
// It is of age's hybrid sort, which a quantum computer does not open later.
func GenerateIdentity() ([]byte, error) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return nil, fmt.Errorf("generate age identity: %w", err)
	}
	return []byte(id.String() + "\n"), nil
}

func newSecret() []byte {
	b := make([]byte, secretSize)
	rand.Read(b) // never fails
	return b
}

func encodeSecret(typ string, secret []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: secret})
}

// PrivateKey is a key whose use is not signing JWS: a TLS or CA key.
type PrivateKey struct {
	mask
	key crypto.Signer
}

// Signer gives the key to a function that signs with it. Do not print it.
func (k *PrivateKey) Signer() crypto.Signer { return k.key }

// Public is the public key.
func (k *PrivateKey) Public() crypto.PublicKey { return k.key.Public() }

// ParsePrivateKey reads the content of a key file: one PKCS#8 PEM block with
// an ECDSA P-256 or Ed25519 key.
func ParsePrivateKey(content []byte) (*PrivateKey, error) {
	key, err := parsePKCS8(content)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{"private key", key}, nil
}

// ParseSigner reads the content of a key file as a Signer of JWS of one sort.
func ParseSigner(content []byte, typ string) (*Signer, error) {
	key, err := parsePKCS8(content)
	if err != nil {
		return nil, err
	}
	return NewSigner(key, typ)
}

// ParseCosignerKey reads the content of a key file as a Cosigner.
func ParseCosignerKey(content []byte, name string) (*Cosigner, error) {
	key, err := parsePKCS8(content)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("a cosigner's key must be Ed25519")
	}
	return NewCosigner(ed, name)
}

// ParseSeal reads the content of a sealing key's file, for one purpose.
func ParseSeal(content []byte, purpose string) (*Sealer, error) {
	b, err := parseSecret(content, pemSeal)
	if err != nil {
		return nil, err
	}
	return NewSealer(b, purpose)
}

// ParsePepper reads the content of a pepper's file.
func ParsePepper(content []byte) (*Pepper, error) {
	b, err := parseSecret(content, pemPepper)
	if err != nil {
		return nil, err
	}
	return NewPepper(b)
}

// Identity opens what was sealed to this controller with age.
type Identity struct {
	mask
	id *age.HybridIdentity
}

// ParseIdentity reads the content of an age identity's file.
func ParseIdentity(content []byte) (*Identity, error) {
	s := strings.TrimSpace(string(content))
	if !strings.HasPrefix(s, ageSecretPrefix) || strings.ContainsAny(s, " \r\n\t") {
		return nil, fmt.Errorf("file is not one age identity (%s…)", ageSecretPrefix)
	}
	id, err := age.ParseHybridIdentity(s)
	if err != nil {
		// age's own message repeats the secret.
		return nil, errors.New("file is a damaged age identity")
	}
	return &Identity{"age identity", id}, nil
}

// Recipient is the public part, age1pq1….
func (i *Identity) Recipient() string { return i.id.Recipient().String() }

// Open decrypts what SealTo sealed to this identity.
func (i *Identity) Open(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), i.id)
	if err != nil {
		return nil, fmt.Errorf("open what was sealed with age: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("open what was sealed with age: %w", err)
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("sealed text has more than %d bytes", maxFile)
	}
	return b, nil
}

// SealTo encrypts plain to the Identity with the given Recipient. Anybody can
// do that: sign the result.
func SealTo(recipient string, plain []byte) ([]byte, error) {
	r, err := parseRecipient(recipient)
	if err != nil {
		return nil, err
	}
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, r)
	if err != nil {
		return nil, fmt.Errorf("seal with age: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("seal with age: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal with age: %w", err)
	}
	return sealed.Bytes(), nil
}

// CheckRecipient reports what is wrong with the text of a Recipient.
func CheckRecipient(recipient string) error {
	_, err := parseRecipient(recipient)
	return err
}

func parseRecipient(s string) (*age.HybridRecipient, error) {
	r, err := age.ParseHybridRecipient(s)
	if err != nil {
		return nil, fmt.Errorf("age recipient: %w", err)
	}
	return r, nil
}

// parsePKCS8 never repeats the content in an error.
func parsePKCS8(content []byte) (crypto.Signer, error) {
	b, err := parsePEM(content, pemPrivateKey)
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(b)
	if err != nil {
		return nil, errors.New("file is not a PKCS#8 private key")
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("file holds a %T, want ECDSA P-256 or Ed25519", k)
	}
	if _, err := algorithmOf(s.Public()); err != nil {
		return nil, err
	}
	return s, nil
}

func parseSecret(content []byte, typ string) ([]byte, error) {
	b, err := parsePEM(content, typ)
	if err != nil {
		return nil, err
	}
	if len(b) != secretSize {
		return nil, fmt.Errorf("file holds %d bytes, want %d", len(b), secretSize)
	}
	return b, nil
}

func parsePEM(content []byte, typ string) ([]byte, error) {
	block, rest := pem.Decode(content)
	switch {
	case block == nil:
		return nil, fmt.Errorf("file is not PEM, want one block %q", typ)
	case block.Type != typ:
		return nil, fmt.Errorf("file is a %q, want a %q", block.Type, typ)
	case len(block.Headers) != 0:
		return nil, errors.New("PEM block has headers: an encrypted key cannot be read")
	case len(strings.TrimSpace(string(rest))) != 0:
		return nil, errors.New("file has more than one PEM block")
	}
	return block.Bytes, nil
}

// MakeDir makes a folder that only its owner can reach. One that exists
// already must be so.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", dir)
	}
	return onlyOwner(dir, info)
}

// Create writes a new file that only its owner can read, durably and whole. It
// never overwrites: the error is then an fs.ErrExist.
func Create(path string, content []byte) error {
	return write(path, content, func(temp string) error {
		if err := os.Link(temp, path); err != nil {
			return err
		}
		return os.Remove(temp)
	})
}

// Replace writes a file that only its owner can read, durably and whole, in
// the place of the one that may be there.
func Replace(path string, content []byte) error {
	return write(path, content, func(temp string) error { return os.Rename(temp, path) })
}

func write(path string, content []byte, place func(temp string) error) (err error) {
	dir := filepath.Dir(path)
	suffix := make([]byte, 8)
	rand.Read(suffix) // never fails
	temp := filepath.Join(dir, "."+filepath.Base(path)+"."+hex.EncodeToString(suffix))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: errors.Unwrap(err)} // the temporary name says nothing to people
	}
	defer func() {
		if err != nil {
			os.Remove(temp)
		}
	}()
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err = place(temp); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
