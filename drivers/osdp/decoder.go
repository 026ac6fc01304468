package osdp

import "bytes"

// Decoder finds the frames in what comes from a line. The zero Decoder is
// ready.
type Decoder struct {
	buf []byte
	// Skipped counts bytes that belonged to no frame; mark bytes are not counted.
	Skipped uint64
	// Broken counts what began as a peripheral's reply and was none in the end:
	// cut short, or with a wrong check.
	Broken uint64
}

// Write takes bytes of the line, in whatever pieces they come. It never fails.
func (d *Decoder) Write(b []byte) (int, error) {
	d.buf = append(d.buf, b...)
	return len(b), nil
}

// Next gives the next whole frame, with its bytes as they stood on the line.
// Bytes that are no frame are passed over: the search goes on behind the first
// of them, so that a frame inside a broken one is found. When final is set,
// what has begun will not be finished, for the line has been silent for longer
// than a gap between two bytes may be.
func (d *Decoder) Next(final bool) (f Frame, raw []byte, ok bool) {
	for {
		d.seek()
		if len(d.buf) == 0 {
			return Frame{}, nil, false
		}
		n, err := frameLength(d.buf)
		if err == nil && (n == 0 || n > len(d.buf)) {
			if !final {
				return Frame{}, nil, false
			}
			err = ErrFrame
		}
		if err == nil {
			if f, err = ParseFrame(d.buf[:n]); err == nil {
				raw = bytes.Clone(d.buf[:n])
				d.drop(n)
				return f, raw, true
			}
		}
		if len(d.buf) > 1 && d.buf[1]&replyBit != 0 {
			d.Broken++
		}
		d.Skipped++
		d.drop(1)
	}
}

// seek drops what stands before the next start of a frame.
func (d *Decoder) seek() {
	n := bytes.IndexByte(d.buf, startOfMessage)
	if n < 0 {
		n = len(d.buf)
	}
	d.Skipped += uint64(n - bytes.Count(d.buf[:n], []byte{markByte}))
	d.drop(n)
}

// Waiting reports whether a frame has begun.
func (d *Decoder) Waiting() bool { return len(d.buf) > 0 }

// Reset forgets what has begun.
func (d *Decoder) Reset() { d.drop(len(d.buf)) }

// drop removes the first n bytes and leaves no copy of them behind.
func (d *Decoder) drop(n int) {
	left := copy(d.buf, d.buf[n:])
	clear(d.buf[left:])
	d.buf = d.buf[:left]
}
