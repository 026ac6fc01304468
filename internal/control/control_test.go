package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve serves until the test ends.
func serve(t *testing.T, handle func(context.Context, Request, *Conn) error) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl") // short, for the socket's path
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, SocketName)
	s, err := Listen(path)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, handle) }()
	stop = sync.OnceFunc(func() {
		cancel()
		must(t, <-ended)
	})
	t.Cleanup(stop)
	return path, stop
}

// screen is a Terminal that remembers.
type screen struct {
	mu    sync.Mutex
	lines []string
	asked chan string
}

func newScreen() *screen { return &screen{asked: make(chan string, 16)} }

func (s *screen) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *screen) Say(text string) { s.add("%s", text) }
func (s *screen) Ask(text string, choices []string) {
	s.add("%s %q", text, choices)
	s.asked <- text
}
func (s *screen) Progress(what string, done, total int) { s.add("%s %d/%d", what, done, total) }

func (s *screen) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

func TestARequestIsATalkWithAResult(t *testing.T) {
	path, _ := serve(t, func(ctx context.Context, r Request, c *Conn) error {
		c.Say("hello " + r.Args["person"])
		c.Progress("counting", 1, 2)
		free, err := c.Ask(ctx, "Who?")
		if err != nil {
			return err
		}
		choice, err := c.Ask(ctx, "Which?", "again", "all", "skip")
		if err != nil {
			return err
		}
		return errors.Join(c.Result(free), c.Result(choice), errors.New("and yet it failed"))
	})
	lines := make(chan string)
	s := newScreen()
	go func() {
		for _, answer := range []string{" ada ", "a", "nonsense", "ag"} {
			<-s.asked
			lines <- answer
		}
	}()
	results, err := Do(t.Context(), path, Request{Do: "greet", Args: map[string]string{"person": "ada"}}, lines, s)
	if err == nil || err.Error() != "and yet it failed" {
		t.Errorf("ended with %v", err)
	}
	if got := fmt.Sprintf("%s", results); got != `["ada" "again"]` {
		t.Errorf("results %s", got)
	}
	which := `Which? ["again" "all" "skip"]`
	hint := "Answer with one of: again, all, skip."
	want := []string{"hello ada", "counting 1/2", "Who? []", which, hint, which, hint, which}
	if !slices.Equal(s.all(), want) {
		t.Errorf("screen %q, want %q", s.all(), want)
	}
}

// TestWhoeverStopsOrGoesAwayEndsTheRequest ends a request that waits for an
// answer in each way that there is.
func TestWhoeverStopsOrGoesAwayEndsTheRequest(t *testing.T) {
	for _, tt := range []struct {
		name string
		want error // that the daemon's side sees
		said string
	}{
		{"Ctrl-C", ErrStopped, ErrStopped.Error()},
		{"the end of the input", ErrStopped, ErrStopped.Error()},
		{"the end of the daemon", context.Canceled, "the daemon is ending"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			saw := make(chan error, 1)
			path, stopDaemon := serve(t, func(ctx context.Context, _ Request, c *Conn) error {
				_, err := c.Ask(ctx, "Who?")
				saw <- context.Cause(ctx)
				c.Say("everything is undone")
				return err
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			lines, s := make(chan string), newScreen()
			go func() {
				<-s.asked
				switch tt.name {
				case "Ctrl-C":
					cancel()
				case "the end of the input":
					close(lines)
				default:
					stopDaemon()
				}
			}()
			_, err := Do(ctx, path, Request{Do: "wait"}, lines, s)
			if err == nil || err.Error() != tt.said {
				t.Errorf("ended with %v", err)
			}
			if cause := <-saw; !errors.Is(cause, tt.want) {
				t.Errorf("the daemon saw %v", cause)
			}
			if all := s.all(); all[len(all)-1] != "everything is undone" {
				t.Errorf("screen %q", all)
			}
		})
	}
	t.Run("a connection that breaks", func(t *testing.T) {
		saw := make(chan error, 1)
		path, _ := serve(t, func(ctx context.Context, _ Request, c *Conn) error {
			_, err := c.Ask(ctx, "Who?")
			saw <- context.Cause(ctx)
			return err
		})
		conn, err := net.Dial("unix", path)
		must(t, err)
		_, err = io.WriteString(conn, `{"request":{"do":"wait"}}`+"\n")
		must(t, err)
		_, err = bufio.NewReader(conn).ReadString('\n')
		must(t, err)
		must(t, conn.Close())
		if cause := <-saw; !errors.Is(cause, ErrGone) {
			t.Errorf("the daemon saw %v", cause)
		}
	})
}

func TestADaemonThatDiesIsSaid(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl")
	must(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, SocketName)
	l, err := net.Listen("unix", path)
	must(t, err)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, _ = bufio.NewReader(conn).ReadString('\n')
			conn.Close()
		}
	}()
	if _, err := Do(t.Context(), path, Request{Do: "x"}, nil, newScreen()); !errors.Is(err, errDaemonGone) {
		t.Errorf("ended with %v", err)
	}
	l.Close()
	if _, err := Do(t.Context(), path, Request{Do: "x"}, nil, newScreen()); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), "systemctl start gatehouse") {
		t.Errorf("without a daemon: %v", err)
	}
}

// TestWhatIsNoRequestIsRefused sends lines by hand, and reads the end.
func TestWhatIsNoRequestIsRefused(t *testing.T) {
	path, _ := serve(t, func(ctx context.Context, _ Request, c *Conn) error {
		_, err := c.Ask(ctx, "Who?")
		if err == nil {
			<-ctx.Done()
			err = ctx.Err()
		}
		return err
	})
	for _, tt := range []struct{ name, send, want string }{
		{"no JSON", "hello\n", "not of this protocol"},
		{"no request", `{"answer":"x"}` + "\n", "the first line is no request"},
		{"two things", `{"request":{"do":"x"},"stop":true}` + "\n", "2 things"},
		{"nothing", `{}` + "\n", "0 things"},
		{"more", `{"request":{"do":"x"}} {}` + "\n", "more follows"},
		{"an unknown field", `{"request":{"do":"x"},"root":true}` + "\n", "unknown field"},
		{"a long line", `{"request":{"do":"` + strings.Repeat("x", maxLine) + `"}}` + "\n", "too long"},
		{"a second request", `{"request":{"do":"x"}}` + "\n" + `{"request":{"do":"x"}}` + "\n", "a second request"},
		{"answers to nothing", `{"request":{"do":"x"}}` + "\n" + strings.Repeat(`{"answer":"x"}`+"\n", 5), "nothing was asked"},
		{"a long answer", `{"request":{"do":"x"}}` + "\n" + `{"answer":"` + strings.Repeat("x", maxArg+1) + `"}` + "\n", "257 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("unix", path)
			must(t, err)
			defer conn.Close()
			must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
			_, err = io.WriteString(conn, tt.send)
			must(t, err)
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				m, err := parseServer(lines.Bytes())
				must(t, err)
				if m.End != nil {
					if !strings.Contains(m.End.Error, tt.want) {
						t.Errorf("ended with %q, want %q", m.End.Error, tt.want)
					}
					return
				}
			}
			t.Error("it did not end")
		})
	}
}

func TestTheSocketIsTheDaemonsOwn(t *testing.T) {
	path, stop := serve(t, func(context.Context, Request, *Conn) error { return nil })
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second daemon: %v", err)
	}
	for _, tt := range []struct {
		uid  uint32
		own  int
		want bool
	}{{0, 900, true}, {900, 900, true}, {901, 900, false}, {900, 0, false}, {0, 0, true}} {
		if err := permit(tt.uid, tt.own); (err == nil) != tt.want {
			t.Errorf("user %d of the daemon of %d: %v", tt.uid, tt.own, err)
		}
	}
	stop()
	// A dead process's socket is replaced; another file is not.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	s, err := Listen(path)
	must(t, err)
	must(t, s.Close())
	must(t, os.WriteFile(path, []byte("x"), 0o600))
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("over a file: %v", err)
	}
}

// TestACommandThatReadsNothingIsGivenUpOnce fills the socket of one.
func TestACommandThatReadsNothingIsGivenUpOnce(t *testing.T) {
	filled, read := make(chan error, 1), make(chan struct{})
	path, _ := serve(t, func(ctx context.Context, _ Request, c *Conn) error {
		c.patience = 50 * time.Millisecond
		for ctx.Err() == nil {
			c.Say(strings.Repeat("x", maxLine/2))
		}
		filled <- context.Cause(ctx)
		<-read
		c.Say("after that")
		return nil
	})
	conn, err := net.Dial("unix", path)
	must(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, `{"request":{"do":"x"}}`+"\n")
	must(t, err)
	if cause := <-filled; !errors.Is(cause, ErrGone) {
		t.Errorf("the daemon saw %v", cause)
	}
	b := make([]byte, maxLine)
	for err == nil { // all that was written in time
		must(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, err = conn.Read(b)
	}
	close(read)
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 {
		t.Errorf("written to a command that had been given up: %q, %v", rest, err)
	}
}

func TestMoreCommandsThanThereIsRoomForAreRefused(t *testing.T) {
	let := make(chan struct{})
	path, _ := serve(t, func(ctx context.Context, _ Request, c *Conn) error {
		c.Say("in")
		select {
		case <-let:
		case <-ctx.Done():
		}
		return nil
	})
	defer close(let)
	for range maxConns {
		conn, err := net.Dial("unix", path)
		must(t, err)
		defer conn.Close()
		_, err = io.WriteString(conn, `{"request":{"do":"x"}}`+"\n")
		must(t, err)
		_, err = bufio.NewReader(conn).ReadString('\n')
		must(t, err)
	}
	if _, err := Do(t.Context(), path, Request{Do: "x"}, nil, newScreen()); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("one too many: %v", err)
	}
}

// FuzzLine reads lines of either side: what is taken is written and read again
// as the same.
func FuzzLine(f *testing.F) {
	for _, line := range []string{
		`{"request":{"do":"enroll","args":{"door":"a","side":"in"}}}`, `{"answer":"agreed"}`, `{"stop":true}`,
		`{"say":"hello"}`, `{"ask":{"text":"Who?","choices":["a","b"]}}`, `{"progress":{"what":"x","done":1,"total":2}}`,
		`{"result":[1,2]}`, `{"end":{}}`, `{"end":{"error":"x"}}`, `{}`, `null`, "{\"answer\":\"\xff\"}",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if m, err := parseClient(line); err == nil {
			roundTrip(t, m, parseClient)
		}
		if m, err := parseServer(line); err == nil {
			roundTrip(t, m, parseServer)
		}
	})
}

func roundTrip[M any](t *testing.T, m M, parse func([]byte) (M, error)) {
	t.Helper()
	line, err := format(m)
	if err != nil {
		return // longer than a line may be
	}
	again, err := parse(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	a, errA := json.Marshal(m)
	b, errB := json.Marshal(again)
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("%s became %s", a, b)
	}
}
