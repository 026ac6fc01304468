package serial

import (
	"bytes"
	"io"
	"testing"
	"time"
)

// stub is a port that gives what it is told and then is silent.
type stub struct{ come chan []byte }

func (s stub) Read(b []byte) (int, error) {
	select {
	case more := <-s.come:
		return copy(b, more), nil
	case <-time.After(step):
		return 0, nil
	}
}
func (stub) Write(b []byte) (int, error) { return len(b), nil }
func (stub) Close() error                { return nil }
func (stub) Flush() error                { return nil }

// There may be a template in what comes.
func TestAPortKeepsNoCopyOfWhatWasRead(t *testing.T) {
	o := &opened{held: io.NopCloser(nil), port: stub{make(chan []byte, 64)}, arrived: make(chan struct{}, 1), ended: make(chan struct{})}
	go o.run()
	secret := bytes.Repeat([]byte("SECRET"), 100)
	for range 40 { // more than fits in
		o.port.(stub).come <- bytes.Clone(secret)
	}
	b := make([]byte, 50)
	for range 100 {
		if n, err := o.read(b, 5*time.Second); n == 0 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	o.mu.Lock()
	if o.n > unread || !bytes.Equal(o.buf[o.n:], make([]byte, unread-o.n)) {
		t.Errorf("behind the %d bytes that wait there is more", o.n)
	}
	o.mu.Unlock()
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if o.n != 0 || !bytes.Equal(o.buf[:], make([]byte, unread)) {
		t.Error("Close leaves what was not read")
	}
}
