package osdp

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Addresses.
const (
	MaxAddress = 0x7E // of a peripheral; the first is 0
	Broadcast  = 0x7F // every peripheral listens to it: for a line with one
)

// MaxFrame is the longest frame, in bytes, that this package sends or takes.
// It bounds what a false length can make a receiver wait for.
const MaxFrame = 1440

const (
	startOfMessage = 0x53
	markByte       = 0xFF // may stand before a frame, and is no part of it
	replyBit       = 0x80 // of the address
	headerSize     = 5    // start, address, length, control
	macSize        = 4    // of a MAC's 16 bytes, those that are sent
)

// Control is a frame's control byte. Bits that are not named here are kept as
// they came.
type Control byte

// Bits of the control byte; the two lowest are the sequence number.
const (
	ControlCRC   Control = 1 << 2 // ends in a CRC; otherwise in a checksum
	ControlBlock Control = 1 << 3 // has a security block
	ControlMulti Control = 1 << 7 // a part of a message: see Fragment
)

// Sequence is the number of the command, 0 to 3. A reply has its command's; a
// repeated command has the same again.
func (c Control) Sequence() byte { return byte(c & 3) }

// Block types of the Secure Channel, the first byte of a security block.
const (
	blockChallenge        = 0x11
	blockClientCryptogram = 0x12
	blockServerCryptogram = 0x13
	blockInitialRMAC      = 0x14
	blockCommandMAC       = 0x15 // no data
	blockReplyMAC         = 0x16
	blockCommandData      = 0x17 // encrypted data
	blockReplyData        = 0x18
)

// Frame is one frame of the line.
type Frame struct {
	Address byte // 0 to MaxAddress, or Broadcast
	Reply   bool // from a peripheral, not from a panel
	Control Control
	Block   []byte // security block: its type, then its data; nil: none
	Code    byte   // a CommandCode or, in a reply, a ReplyCode
	Data    Secret // still encrypted, where the block says so
	MAC     [macSize]byte
}

// hasMAC reports whether a frame with this security block ends in a MAC.
func hasMAC(block []byte) bool {
	return len(block) > 0 && block[0] >= blockCommandMAC && block[0] <= blockReplyData
}

// String shows who speaks and what about, and nothing of the data.
func (f Frame) String() string {
	to, name := "to", CommandCode(f.Code).String()
	if f.Reply {
		to, name = "from", ReplyCode(f.Code).String()
	}
	s := fmt.Sprintf("%s %d, number %d: %s, %d bytes", to, f.Address, f.Control.Sequence(), name, len(f.Data))
	if len(f.Block) > 0 {
		s += fmt.Sprintf(", security block %#02x", f.Block[0])
	}
	return s
}

// Bytes is the frame as it stands on the line, without a mark byte. Control's
// bit for the security block follows Block.
func (f Frame) Bytes() ([]byte, error) {
	b, err := f.body()
	if err != nil {
		return nil, err
	}
	if hasMAC(f.Block) {
		b = append(b, f.MAC[:]...)
	}
	return f.appendCheck(b), nil
}

// body is what a MAC is made of: all up to the end of the data. The length
// counts the MAC and the check already.
func (f Frame) body() ([]byte, error) {
	if f.Address > Broadcast {
		return nil, fmt.Errorf("address %#02x is above %#02x", f.Address, Broadcast)
	}
	n := f.size()
	if n > MaxFrame {
		return nil, fmt.Errorf("a frame of %d bytes is longer than %d", n, MaxFrame)
	}
	if f.Block != nil && (len(f.Block) == 0 || len(f.Block) > 254) {
		return nil, fmt.Errorf("a security block of %d bytes: it has 1 to 254", len(f.Block))
	}
	address, control := f.Address, f.Control&^ControlBlock
	if f.Reply {
		address |= replyBit
	}
	if f.Block != nil {
		control |= ControlBlock
	}
	b := make([]byte, 0, n)
	b = append(b, startOfMessage, address, byte(n), byte(n>>8), byte(control))
	if f.Block != nil {
		b = append(b, byte(len(f.Block)+1))
		b = append(b, f.Block...)
	}
	b = append(b, f.Code)
	return append(b, f.Data...), nil
}

func (f Frame) appendCheck(b []byte) []byte {
	if f.Control&ControlCRC != 0 {
		return binary.LittleEndian.AppendUint16(b, crc16(b))
	}
	return append(b, checksum(b))
}

// size is the frame's length on the line.
func (f Frame) size() int {
	n := headerSize + 1 + len(f.Data) + checkSize(f.Control)
	if f.Block != nil {
		n += 1 + len(f.Block)
	}
	if hasMAC(f.Block) {
		n += macSize
	}
	return n
}

func checkSize(c Control) int {
	if c&ControlCRC != 0 {
		return 2
	}
	return 1
}

// What is wrong with bytes that are no frame.
var (
	ErrFrame = errors.New("not a frame")
	ErrCheck = errors.New("the frame's CRC or checksum is wrong")
)

// ParseFrame reads a frame that fills b, without a mark byte. The frame keeps
// nothing of b. It does not verify a MAC: see SecureChannel.Open.
func ParseFrame(b []byte) (Frame, error) {
	n, err := frameLength(b)
	switch {
	case err != nil:
		return Frame{}, err
	case n == 0 || n != len(b):
		return Frame{}, fmt.Errorf("%w: its length says %d bytes, and there are %d", ErrFrame, n, len(b))
	}
	f := Frame{Address: b[1] &^ replyBit, Reply: b[1]&replyBit != 0, Control: Control(b[4])}
	body, check := b[:n-checkSize(f.Control)], b[n-checkSize(f.Control):]
	if f.Control&ControlCRC != 0 {
		if binary.LittleEndian.Uint16(check) != crc16(body) {
			return Frame{}, ErrCheck
		}
	} else if check[0] != checksum(body) {
		return Frame{}, ErrCheck
	}
	rest := body[headerSize:]
	if f.Control&ControlBlock != 0 {
		size := int(rest[0])
		if size < 2 || size > len(rest) {
			return Frame{}, fmt.Errorf("%w: a security block of %d bytes in %d", ErrFrame, size, len(rest))
		}
		f.Block, rest = append([]byte{}, rest[1:size]...), rest[size:]
	}
	if hasMAC(f.Block) {
		if len(rest) < macSize {
			return Frame{}, fmt.Errorf("%w: too short for its MAC", ErrFrame)
		}
		f.MAC, rest = [macSize]byte(rest[len(rest)-macSize:]), rest[:len(rest)-macSize]
	}
	if len(rest) == 0 {
		return Frame{}, fmt.Errorf("%w: it has no code", ErrFrame)
	}
	f.Code = rest[0]
	if len(rest) > 1 {
		f.Data = append(Secret{}, rest[1:]...)
	}
	return f, nil
}

// frameLength is the length that a frame's first bytes tell; 0, nil: there are
// too few bytes to say.
func frameLength(b []byte) (int, error) {
	if len(b) > 0 && b[0] != startOfMessage {
		return 0, fmt.Errorf("%w: it does not begin with %#02x", ErrFrame, startOfMessage)
	}
	if len(b) < headerSize {
		return 0, nil
	}
	n := int(binary.LittleEndian.Uint16(b[2:]))
	if least := headerSize + 1 + checkSize(Control(b[4])); n < least || n > MaxFrame {
		return 0, fmt.Errorf("%w: a length of %d bytes", ErrFrame, n)
	}
	return n, nil
}

// crcTable is of the polynomial 0x1021, the high bit first.
var crcTable = func() (t [256]uint16) {
	for i := range t {
		c := uint16(i) << 8
		for range 8 {
			carry := c & 0x8000
			c <<= 1
			if carry != 0 {
				c ^= 0x1021
			}
		}
		t[i] = c
	}
	return t
}()

// crc16 is the frame's CRC: it begins with 0x1D0F, and nothing is reflected.
func crc16(b []byte) uint16 {
	c := uint16(0x1D0F)
	for _, v := range b {
		c = c<<8 ^ crcTable[byte(c>>8)^v]
	}
	return c
}

// checksum makes the sum of all bytes, itself included, zero.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum += v
	}
	return -sum
}
