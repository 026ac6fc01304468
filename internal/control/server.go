// Package control is how a command talks with the running daemon: a Unix
// socket in the data directory, which only the daemon's own user and root can
// use. The command is a dumb terminal: it prints what it is told, and sends
// what a person answers. Each connection is one request.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the socket's name in a controller's data directory.
const SocketName = "control.sock"

const (
	maxConns     = 8                // at a time
	askWithin    = 10 * time.Second // for the first line
	writeTimeout = 5 * time.Second
	dialTimeout  = time.Second
)

var (
	// ErrStopped ends a request that the command asked to stop.
	ErrStopped = errors.New("stopped at the terminal")
	// ErrGone ends a request whose command has gone away.
	ErrGone = errors.New("the terminal has gone away")
)

// Server is the daemon's end.
type Server struct {
	listener *net.UnixListener
	turns    chan struct{}
}

// Listen makes the socket. One that a dead process left behind is replaced; one
// on which somebody answers is an error.
func Listen(path string) (*Server, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Whoever connects before this is refused by who they are.
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return &Server{listener: l, turns: make(chan struct{}, maxConns)}, nil
}

func removeStale(path string) error {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("control socket: %q is something else: move it away", path)
	}
	if conn, err := net.DialTimeout("unix", path, dialTimeout); err == nil {
		return errors.Join(fmt.Errorf("control socket: another process listens on %q", path), conn.Close())
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// Serve lets handle answer requests, each on a goroutine of its own, until ctx
// ends. It returns when every handle has.
func (s *Server) Serve(ctx context.Context, handle func(context.Context, Request, *Conn) error) error {
	var running sync.WaitGroup
	defer running.Wait()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return errors.Join(fmt.Errorf("control socket: %w", err), s.listener.Close())
		}
		running.Go(func() {
			defer conn.Close()
			c := &Conn{conn: conn, answers: make(chan string, 1), patience: writeTimeout}
			select {
			case s.turns <- struct{}{}:
				defer func() { <-s.turns }()
				c.end(c.serve(ctx, handle))
			default:
				c.end(errors.New("too many commands talk with the daemon at the moment: try again"))
			}
		})
	}
}

// Close closes the socket of a server that does not serve.
func (s *Server) Close() error {
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Conn is the terminal of one request. Its methods may be used from several
// goroutines, but for Ask.
type Conn struct {
	conn     *net.UnixConn
	answers  chan string
	gone     context.CancelCauseFunc
	patience time.Duration // with a command that takes nothing

	mu     sync.Mutex // held while writing
	failed bool       // a line was not taken as a whole: no other can follow it
}

func (c *Conn) serve(ctx context.Context, handle func(context.Context, Request, *Conn) error) error {
	if err := checkPeer(c.conn); err != nil {
		return err
	}
	daemon := ctx
	ctx, c.gone = context.WithCancelCause(ctx)
	defer c.gone(nil)
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	if err := c.conn.SetReadDeadline(time.Now().Add(askWithin)); err != nil {
		return err
	}
	if !lines.Scan() {
		return fmt.Errorf("no request came: %w", errors.Join(lines.Err(), ErrGone))
	}
	m, err := parseClient(lines.Bytes())
	if err == nil && m.Request == nil {
		err = errors.New("the first line is no request")
	}
	if err != nil {
		return err
	}
	if err := c.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	var hearing sync.WaitGroup
	hearing.Go(func() { c.gone(c.hear(lines)) })
	defer hearing.Wait()
	defer c.conn.CloseRead() // ends hear
	err = handle(ctx, *m.Request, c)
	switch {
	case err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()):
		return err
	case daemon.Err() != nil:
		return errEnding
	}
	return context.Cause(ctx)
}

var errEnding = errors.New("the daemon is ending")

// hear takes what the command sends, until it says nothing more.
func (c *Conn) hear(lines *bufio.Scanner) error {
	for lines.Scan() {
		m, err := parseClient(lines.Bytes())
		switch {
		case err != nil:
			return err
		case m.Stop:
			return ErrStopped
		case m.Answer == nil:
			return errors.New("a second request came")
		}
		select {
		case c.answers <- strings.TrimSpace(*m.Answer):
		default:
			return errors.New("an answer came, and nothing was asked")
		}
	}
	return ErrGone
}

// checkPeer refuses every user but the daemon's own and root.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) { peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("who asks is not known: %w", failed)
	}
	return permit(peer.Uid, os.Geteuid())
}

func permit(uid uint32, own int) error {
	if uid != 0 && int64(uid) != int64(own) {
		return fmt.Errorf("user %d may not use the daemon's socket: only its own user and root may", uid)
	}
	return nil
}

// write writes a line. A command that takes none is taken to be gone.
func (c *Conn) write(m fromServer) error {
	line, err := format(m)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed {
		return ErrGone
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.patience)); err == nil {
		_, err = c.conn.Write(line)
		if err == nil {
			return nil
		}
	}
	c.failed = true
	if c.gone != nil {
		c.gone(ErrGone)
	}
	return ErrGone
}

// Say prints a line.
func (c *Conn) Say(text string) { _ = c.write(fromServer{Say: &text}) }

// Progress tells how far long work has come.
func (c *Conn) Progress(what string, done, total int) {
	_ = c.write(fromServer{Progress: &progress{what, done, total}})
}

// Result sends a value of the result, for a program to read.
func (c *Conn) Result(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.write(fromServer{Result: b})
}

// Ask asks until the answer is one of the choices, or the beginning of one
// alone. Where there are no choices every line is an answer.
func (c *Conn) Ask(ctx context.Context, text string, choices ...string) (string, error) {
	for {
		select {
		case <-c.answers: // to a question that was given up
		default:
		}
		if err := c.write(fromServer{Ask: &question{text, choices}}); err != nil {
			return "", err
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case answer := <-c.answers:
			if len(choices) == 0 {
				return answer, nil
			}
			if choice, ok := choose(answer, choices); ok {
				return choice, nil
			}
			c.Say("Answer with one of: " + strings.Join(choices, ", ") + ".")
		}
	}
}

func choose(answer string, choices []string) (choice string, ok bool) {
	for _, c := range choices {
		switch {
		case c == answer:
			return c, true
		case answer != "" && strings.HasPrefix(c, answer):
			if ok {
				return "", false
			}
			choice, ok = c, true
		}
	}
	return choice, ok
}

// end writes the last line.
func (c *Conn) end(err error) {
	var e end
	if err != nil {
		e.Error = err.Error()
		if e.Error == "" {
			e.Error = "it failed, and does not say why"
		}
		if len(e.Error) > maxLine/8 {
			e.Error = strings.ToValidUTF8(e.Error[:maxLine/8], "")
		}
	}
	_ = c.write(fromServer{End: &e})
}
