package osdp

import (
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
)

// Secret is bytes that a log must not show: card data, PINs, templates, keys
// in a message. Every way of printing one shows its length only.
type Secret []byte

func (s Secret) String() string               { return fmt.Sprintf("[%d bytes]", len(s)) }
func (s Secret) Format(f fmt.State, _ rune)   { io.WriteString(f, s.String()) }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Key is a Secure Channel base key (SCBK), AES-128. Every way of printing one
// shows that it is a key and no more.
type Key [16]byte

func (k Key) String() string               { return "[key]" }
func (k Key) Format(f fmt.State, _ rune)   { io.WriteString(f, k.String()) }
func (k Key) LogValue() slog.Value         { return slog.StringValue(k.String()) }
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Equal compares in constant time.
func (k Key) Equal(other Key) bool { return subtle.ConstantTimeCompare(k[:], other[:]) == 1 }

// ParseKey reads a key of 32 hexadecimal digits. Its errors do not repeat them.
func ParseKey(text string) (Key, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(Key{}) {
		return Key{}, fmt.Errorf("a key has 32 hexadecimal digits")
	}
	return Key(b), nil
}

// DefaultKey is SCBK-D, which everybody knows: a peripheral takes it while it
// has no key of its own. This package uses it in Peripheral.Install and
// nowhere else.
func DefaultKey() Key {
	var k Key
	for i := range k {
		k[i] = 0x30 + byte(i)
	}
	return k
}
