package osdp

import (
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
)

// Command is what a panel asks. AppendBinary appends the frame's data, without
// the code.
type Command interface {
	Command() CommandCode
	encoding.BinaryAppender
}

// Reply is what a peripheral answers, or tells when it is polled.
// AppendBinary appends the frame's data, without the code.
type Reply interface {
	Reply() ReplyCode
	encoding.BinaryAppender
}

// ErrMessage is the error of data that are no such command or reply. It comes
// wrapped, with what is wrong, and never repeats the data.
var ErrMessage = errors.New("malformed message")

// reading takes a message's data apart. Its methods give zero once there is
// too little; end then says so.
type reading struct {
	b     []byte
	short bool
}

func (r *reading) next(n int) []byte {
	if r.short || n > len(r.b) {
		r.short = true
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reading) u8() byte    { return r.next(1)[0] }
func (r *reading) u16() uint16 { return binary.LittleEndian.Uint16(r.next(2)) }
func (r *reading) u32() uint32 { return binary.LittleEndian.Uint32(r.next(4)) }

// sized takes n bytes that a length before them told; n comes from outside.
func (r *reading) sized(n int) Secret {
	if r.short || n > len(r.b) {
		r.short = true
		return nil
	}
	return append(Secret(nil), r.next(n)...)
}

func (r *reading) rest() Secret { return r.sized(len(r.b)) }

// end is the error of a message that was not read to its exact end.
func (r *reading) end(what fmt.Stringer) error {
	switch {
	case r.short:
		return fmt.Errorf("%w: %v: too short", ErrMessage, what)
	case len(r.b) > 0:
		return fmt.Errorf("%w: %v: %d bytes too many", ErrMessage, what, len(r.b))
	}
	return nil
}

// parsed gives a message that was read, or the error of its reading.
func parsed[M any](r *reading, code fmt.Stringer, m M) (M, error) {
	if err := r.end(code); err != nil {
		var none M
		return none, err
	}
	return m, nil
}

// appendSized appends a length of two bytes, and the bytes.
func appendSized(b []byte, data []byte, what fmt.Stringer) ([]byte, error) {
	if len(data) > MaxFrame {
		return nil, fmt.Errorf("%w: %v: %d bytes of data are more than a frame has room for", ErrMessage, what, len(data))
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...), nil
}
