package osdp

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
)

// What is wrong with a frame of a Secure Channel. Either way the channel is
// over: the standard has both sides begin anew.
var (
	ErrMAC   = errors.New("a frame's MAC is wrong: it was altered, repeated or is another's")
	ErrClear = errors.New("a frame came in clear text within the Secure Channel")
)

// SecureChannel is one session between a panel and a peripheral: it encrypts,
// and chains every frame to the one before it by a MAC. Both sides have one,
// made of the same key and the same random numbers. It is not safe for
// concurrent use.
type SecureChannel struct {
	enc, mac1, mac2 cipher.Block
	server, client  [16]byte
	command, reply  [16]byte // last MAC of each direction
}

// Format keeps the session's keys out of every log.
func (s *SecureChannel) Format(f fmt.State, _ rune) { io.WriteString(f, "[secure channel]") }

// NewSecureChannel derives a session's keys: a is the panel's random number, b
// the peripheral's. Each is made of a good random source, once.
func NewSecureChannel(key Key, a, b [8]byte) *SecureChannel {
	base := newAES(key)
	derive := func(kind byte) cipher.Block {
		in := [16]byte{0x01, kind}
		copy(in[2:], a[:6])
		return newAES(encryptBlock(base, in))
	}
	s := &SecureChannel{enc: derive(0x82), mac1: derive(0x01), mac2: derive(0x02)}
	var ab, ba [16]byte
	copy(ab[copy(ab[:], a[:]):], b[:])
	copy(ba[copy(ba[:], b[:]):], a[:])
	s.client = encryptBlock(s.enc, ab)
	s.server = encryptBlock(s.enc, ba)
	s.reply = encryptBlock(s.mac2, encryptBlock(s.mac1, s.server))
	return s
}

// newAES cannot fail: the key has 16 bytes.
func newAES(key [16]byte) cipher.Block {
	b, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	return b
}

func encryptBlock(b cipher.Block, in [16]byte) (out [16]byte) {
	b.Encrypt(out[:], in[:])
	return out
}

// ClientCryptogram is the peripheral's proof that it has the key.
func (s *SecureChannel) ClientCryptogram() [16]byte { return s.client }

// ServerCryptogram is the panel's proof that it has the key.
func (s *SecureChannel) ServerCryptogram() [16]byte { return s.server }

// InitialRMAC is the first link of the chain of MACs. It holds before the
// first Seal and Open only.
func (s *SecureChannel) InitialRMAC() [16]byte { return s.reply }

// Seal encrypts the frame's data and gives its bytes with the MAC. What is
// sent again must be the same bytes again, not sealed anew.
func (s *SecureChannel) Seal(f Frame) ([]byte, error) {
	iv, own := s.chain(f.Reply)
	f.Block = []byte{sealedType(f.Reply, len(f.Data) > 0)}
	if len(f.Data) > 0 {
		padded := pad(f.Data)
		cipher.NewCBCEncrypter(s.enc, inverse(*iv)).CryptBlocks(padded, padded)
		f.Data = padded
	}
	b, err := f.body()
	if err != nil {
		return nil, err
	}
	mac := s.mac(b, *iv)
	*own = mac
	return f.appendCheck(append(b, mac[:macSize]...)), nil
}

// Open verifies a frame, as it stood on the line without a mark byte, and
// decrypts its data. When it fails the chain has not moved.
func (s *SecureChannel) Open(raw []byte) (Frame, error) {
	f, err := ParseFrame(raw)
	if err != nil {
		return Frame{}, err
	}
	if !hasMAC(f.Block) {
		return Frame{}, ErrClear
	}
	iv, own := s.chain(f.Reply)
	mac := s.mac(raw[:len(raw)-checkSize(f.Control)-macSize], *iv)
	if subtle.ConstantTimeCompare(mac[:macSize], f.MAC[:]) != 1 {
		return Frame{}, ErrMAC
	}
	if len(f.Block) != 1 {
		return Frame{}, fmt.Errorf("%w: a security block of %d bytes", ErrFrame, len(f.Block))
	}
	switch encrypted := f.Block[0] == sealedType(f.Reply, true); {
	case f.Block[0] != sealedType(f.Reply, encrypted):
		return Frame{}, fmt.Errorf("%w: its security block is of the other direction", ErrFrame)
	case !encrypted && len(f.Data) > 0:
		return Frame{}, ErrClear
	case len(f.Data)%aes.BlockSize != 0:
		return Frame{}, fmt.Errorf("%w: %d encrypted bytes", ErrFrame, len(f.Data))
	case len(f.Data) > 0:
		cipher.NewCBCDecrypter(s.enc, inverse(*iv)).CryptBlocks(f.Data, f.Data)
		if f.Data, err = unpad(f.Data); err != nil {
			return Frame{}, err
		}
	}
	*own = mac
	return f, nil
}

// chain gives what a frame's MAC begins with, the other direction's last MAC,
// and where its own is kept.
func (s *SecureChannel) chain(reply bool) (iv, own *[16]byte) {
	if reply {
		return &s.command, &s.reply
	}
	return &s.reply, &s.command
}

func sealedType(reply, data bool) byte {
	t := byte(blockCommandMAC)
	if reply {
		t = blockReplyMAC
	}
	if data {
		t += blockCommandData - blockCommandMAC
	}
	return t
}

// mac is a CBC-MAC whose last block has a key of its own. Unlike data, a body
// that fills its last block is not padded.
func (s *SecureChannel) mac(body []byte, iv [16]byte) [16]byte {
	if len(body)%aes.BlockSize != 0 {
		body = pad(body)
	}
	for ; len(body) > 0; body = body[aes.BlockSize:] {
		for i := range iv {
			iv[i] ^= body[i]
		}
		if len(body) > aes.BlockSize {
			iv = encryptBlock(s.mac1, iv)
		} else {
			iv = encryptBlock(s.mac2, iv)
		}
	}
	return iv
}

// pad gives a copy with 0x80 and zeros up to whole blocks.
func pad(b []byte) []byte {
	padded := make([]byte, (len(b)/aes.BlockSize+1)*aes.BlockSize)
	copy(padded, b)
	padded[len(b)] = 0x80
	return padded
}

func unpad(b []byte) ([]byte, error) {
	for i := len(b) - 1; i >= 0 && i >= len(b)-aes.BlockSize; i-- {
		switch b[i] {
		case 0:
		case 0x80:
			return b[:i], nil
		default:
			return nil, fmt.Errorf("%w: its padding is wrong", ErrFrame)
		}
	}
	return nil, fmt.Errorf("%w: its padding is wrong", ErrFrame)
}

// inverse makes the data's initial vector of the MAC's.
func inverse(iv [16]byte) []byte {
	for i := range iv {
		iv[i] = ^iv[i]
	}
	return iv[:]
}
