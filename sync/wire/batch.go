package wire

import (
	"bytes"
	"fmt"
)

// Almost all of a batch are its records. A compact JWS has no character that
// JSON writes in another way, so they are copied and need no JSON parser,
// which would cost more than storing them. The rest of the batch, with one
// placeholder for the records, goes the way of all payloads.

const (
	recordsKey  = `"records":`
	placeholder = recordsKey + `["-"]`
)

// plain says that JSON writes the characters of a compact JWS as they are.
var plain = func() (is [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.") {
		is[c] = true
	}
	return is
}()

func isPlain(s string) bool {
	for i := range len(s) {
		if !plain[s[i]] {
			return false
		}
	}
	return true
}

// cut takes the records out of a batch's payload. It says no where the payload
// is to be looked at as a whole, be it only to find what is wrong with it.
func cut(payload []byte) (envelope []byte, records []string, ok bool) {
	// In a string before it the quotes would be escaped.
	at := bytes.Index(payload, []byte(recordsKey+`["`))
	if at < 0 {
		return nil, nil, false
	}
	rest := payload[at+len(recordsKey)+len("["):]
	all := string(rest) // one copy that the records share
	for i := 0; ; {
		if i >= len(all) || all[i] != '"' || len(records) > MaxBatchRecords {
			return nil, nil, false
		}
		i++
		from := i
		for i < len(all) && plain[all[i]] {
			i++
		}
		if i+1 >= len(all) || all[i] != '"' {
			return nil, nil, false
		}
		records = append(records, all[from:i])
		i += 2
		switch all[i-1] {
		case ',':
		case ']':
			envelope = append(envelope, payload[:at]...)
			envelope = append(envelope, placeholder...)
			return append(envelope, rest[i:]...), records, true
		default:
			return nil, nil, false
		}
	}
}

// paste is the reverse of cut: it writes the batch, which was checked.
func (b *Batch) paste() ([]byte, error) {
	size := 0
	for _, r := range b.Records {
		if !isPlain(r) {
			return encode(b)
		}
		size += len(r) + len(`"",`)
	}
	e := *b
	e.Records = []string{"-"}
	envelope, err := encode(&e)
	if err != nil {
		return nil, err
	}
	before, after, _ := bytes.Cut(envelope, []byte(placeholder))
	out := make([]byte, 0, len(envelope)+size)
	out = append(out, before...)
	out = append(out, recordsKey+`[`...)
	for i, r := range b.Records {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = append(out, r...)
		out = append(out, '"')
	}
	out = append(out, ']')
	return append(out, after...), nil
}

// Marshal writes the batch, or says why nobody would accept it.
func (b *Batch) Marshal() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	out, err := b.paste()
	if err != nil {
		return nil, fmt.Errorf("batch: %w", err)
	}
	if len(out) > MaxBatch {
		return nil, fmt.Errorf("batch: %w: %d bytes, more than %d", ErrTooLarge, len(out), MaxBatch)
	}
	return out, nil
}

// ParseBatch reads a batch.
func ParseBatch(payload []byte) (*Batch, error) {
	b := new(Batch)
	if len(payload) <= MaxBatch {
		if envelope, records, ok := cut(payload); ok {
			if err := parse(envelope, b, MaxBatch, "batch"); err != nil {
				return nil, err
			}
			b.Records = records
			if err := b.check(); err != nil {
				return nil, fmt.Errorf("batch: %w", err)
			}
			return b, nil
		}
	}
	if err := parse(payload, b, MaxBatch, "batch"); err != nil {
		return nil, err
	}
	return b, nil
}
