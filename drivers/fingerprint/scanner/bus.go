package scanner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/gatehouse-acs/gatehouse/badge"
	"github.com/gatehouse-acs/gatehouse/biometric"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint"
	"github.com/gatehouse-acs/gatehouse/drivers/fingerprint/zfm"
	"github.com/gatehouse-acs/gatehouse/drivers/serial"
)

// ErrClosed is told of every scanner of a driver that was closed.
var ErrClosed = errors.New("the driver is closed")

// Bus is the modules of a controller.
type Bus struct {
	settings Settings
	log      *slog.Logger
	end      context.CancelFunc
	ctx      context.Context // until Close
	keeping  sync.WaitGroup

	mu    sync.Mutex
	ports map[string]bool // that are in use
}

// Open opens the driver. It fails for nothing: a module that is not there is
// the fault of its scanner.
func Open(s *Settings, log *slog.Logger) (*Bus, error) {
	ctx, end := context.WithCancel(context.Background())
	return &Bus{settings: *s, log: log, end: end, ctx: ctx, ports: make(map[string]bool)}, nil
}

// Scanner gives out the module on a port, and begins to look for it.
func (b *Bus) Scanner(d *Device) (biometric.Scanner, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	password, err := readPassword(d.PasswordFile)
	if err != nil {
		return nil, err
	}
	// Serial ports have several names.
	port := filepath.Clean(d.Port)
	if real, err := filepath.EvalSymlinks(port); err == nil {
		port = real
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ctx.Err() != nil:
		return nil, ErrClosed
	case b.ports[port]:
		return nil, fmt.Errorf("port %q is already in use", d.Port)
	}
	b.ports[port] = true
	s := newScanner(d, way{
		line:     func(baud int) (fingerprint.Line, error) { return openLine(d.Port, baud) },
		password: password,
		wait:     b.settings.wait,
	}, &b.settings, b.log)
	b.keeping.Go(func() { s.keep(b.ctx) })
	return s, nil
}

// openLine keeps a nil port from looking like a line.
func openLine(port string, baud int) (fingerprint.Line, error) {
	p, err := serial.Open(port, baud)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// maxPassword bounds what is read of a password file.
const maxPassword = 64

// readPassword reads a module's password from a file that nobody else may
// read. No error repeats it.
func readPassword(path string) (zfm.Password, error) {
	if path == "" {
		return 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("password_file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("password_file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("password_file: %q is no file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return 0, fmt.Errorf("password_file: others can read %q (mode %04o): run chmod 600 on it", path, info.Mode().Perm())
	}
	text := make([]byte, maxPassword)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("password_file: %w", err)
	}
	p, err := zfm.ParsePassword(string(bytes.TrimSpace(text[:n])))
	if err != nil {
		return 0, fmt.Errorf("password_file: %q: %w", path, err)
	}
	return p, nil
}

// Reader, Strike, Input and Indicator are what this driver does not have.
type (
	Reader interface {
		Read(ctx context.Context) (badge.Read, error)
	}
	Strike interface {
		Lock() error
		Unlock() error
	}
	Input interface {
		Watch(ctx context.Context, changed func(active bool)) error
	}
	Indicator interface{ Show(pattern string) error }
)

// Reader is an error: a badge is read by another driver's.
func (b *Bus) Reader(*Device, []*badge.Format) (Reader, error) { return nil, errNoPart("reader") }

// Strike is an error.
func (b *Bus) Strike(*Device) (Strike, error) { return nil, errNoPart("strike") }

// Input is an error.
func (b *Bus) Input(*Device) (Input, error) { return nil, errNoPart("input") }

// Indicator is an error: the module's lamp shows how its own scans go.
func (b *Bus) Indicator(*Device) (Indicator, error) { return nil, errNoPart("indicator") }

// Close closes all lines, and makes every call that waits or comes later fail
// with ErrClosed.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.end()
	b.mu.Unlock()
	b.keeping.Wait()
	return nil
}
