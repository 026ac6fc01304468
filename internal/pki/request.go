package pki

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/gatehouse-acs/gatehouse/internal/keys"
	"github.com/go-jose/go-jose/v4"
)

// MaxRequest is the largest request that is read, in bytes.
const MaxRequest = 32 << 10

const requestFile = "request.json"

// Request is what a controller asks of a CRM. It is signed with the
// controller's log key, so that one fingerprint stands for all of it.
type Request struct {
	Controller string
	Log        jose.JSONWebKey          // public key of records and checkpoints
	CSR        *x509.CertificateRequest // for the connection to the broker
	Recipient  string                   // to which the CRM seals, with age
}

// requestFileForm is the file: the signed request, wrapped so that the file
// is JSON as its name says.
type requestFileForm struct {
	Request string `json:"request"`
}

type requestPayload struct {
	V          int             `json:"v"`
	Controller string          `json:"controller"`
	Log        json.RawMessage `json:"log"`
	CSR        []byte          `json:"csr"`
	Recipient  string          `json:"recipient"`
}

// WriteRequest makes the request of the controller with these keys and writes
// it into dir, in the place of an older one. It returns the file's path.
func WriteRequest(dir, controller string, k *keys.ControllerKeys) (string, error) {
	b, err := newRequest(controller, k)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, requestFile)
	return path, keys.Replace(path, b)
}

func newRequest(controller string, k *keys.ControllerKeys) ([]byte, error) {
	if err := CheckName(controller); err != nil {
		return nil, err
	}
	if k.TLS == nil || k.Identity == nil {
		return nil, fmt.Errorf("a request needs the keys %q and %q", keys.NameTLS, keys.NameIdentity)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: controller},
	}, k.TLS.Signer())
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	jwk, err := json.Marshal(k.Log.JWK())
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(requestPayload{version, controller, jwk, csr, k.Identity.Recipient()})
	if err != nil {
		return nil, err
	}
	signer, err := k.Log.As(keys.TypeRequest)
	if err != nil {
		return nil, err
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(requestFileForm{jws})
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// ReadRequest reads the request that the controller of dir made.
func ReadRequest(dir string) (*Request, error) {
	path := filepath.Join(dir, requestFile)
	b, err := readFile(path, MaxRequest)
	if err != nil {
		return nil, err
	}
	r, err := ParseRequest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// ParseRequest reads a request's file and verifies that whoever made it holds
// the keys in it. Whether that is the controller it names, only its
// fingerprint tells.
func ParseRequest(file []byte) (*Request, error) {
	if len(file) > MaxRequest {
		return nil, fmt.Errorf("request has %d bytes, more than %d", len(file), MaxRequest)
	}
	var f requestFileForm
	if err := decode(bytes.TrimSpace(file), &f); err != nil {
		return nil, fmt.Errorf("not a request: %w", err)
	}
	var p requestPayload
	if err := peek(f.Request, &p); err != nil {
		return nil, fmt.Errorf("not a request: %w", err)
	}
	if err := checkVersion(p.V); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if err := CheckName(p.Controller); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	log, err := keys.ParseJWK(p.Log)
	if err != nil {
		return nil, fmt.Errorf("request: log key: %w", err)
	}
	v, err := keys.NewVerifier(log, keys.TypeRequest)
	if err != nil {
		return nil, fmt.Errorf("request: log key: %w", err)
	}
	if _, err := v.Verify(f.Request); err != nil {
		return nil, fmt.Errorf("request is not signed by its own log key: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(p.CSR)
	if err != nil {
		return nil, fmt.Errorf("request: certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("request: certificate request is not signed by its own key: %w", err)
	}
	if err := checkP256(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if csr.Subject.String() != (pkix.Name{CommonName: p.Controller}).String() {
		return nil, fmt.Errorf("request of %q asks for a certificate for %q", p.Controller, csr.Subject)
	}
	if len(csr.Extensions) != 0 {
		return nil, errors.New("request: certificate request asks for extensions")
	}
	if err := keys.CheckRecipient(p.Recipient); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return &Request{p.Controller, log, csr, p.Recipient}, nil
}

// Fingerprint is what people compare to know that a request is the one that
// the controller made.
func (r *Request) Fingerprint() string { return keys.Fingerprint(r.Log) }

// peek decodes the payload of a JWS that has yet to be verified: the key to
// verify it with is inside.
func peek(jws string, v any) error {
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return errors.New("not a compact JWS")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	return decode(b, v)
}

func readAll(r io.Reader, path string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, nil
}
