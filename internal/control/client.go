package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// endWithin is how long a command waits, once it has asked the daemon to stop,
// until that has put everything back.
const endWithin = 45 * time.Second

// ErrNotRunning is that no daemon answers.
var ErrNotRunning = errors.New("the daemon does not run")

// Terminal is what a person sees.
type Terminal interface {
	Say(text string)
	// Ask shows a question, which the next of the lines answers.
	Ask(text string, choices []string)
	Progress(what string, done, total int)
}

// Do has the daemon that listens at path carry out a request, and gives the
// values of its result. Lines are what the person types; when they end, so
// does the request. When ctx ends the daemon is asked to stop, and Do waits
// until it has.
func Do(ctx context.Context, path string, r Request, lines <-chan string, t Terminal) ([]json.RawMessage, error) {
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w, or in another directory: nobody listens on %q: start it with systemctl start gatehouse", ErrNotRunning, path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("you may not talk with the daemon: run this as its user, with sudo -u gatehouse: %w", err)
	case err != nil:
		return nil, fmt.Errorf("talk with the daemon: %w", err)
	}
	defer conn.Close()
	c := &client{conn: conn, t: t}
	sent := c.send(fromClient{Request: &r})
	results, err := c.talk(ctx, lines) // a daemon that took no request has said why
	if errors.Is(err, errDaemonGone) {
		err = errors.Join(err, sent)
	}
	return results, err
}

type client struct {
	conn    net.Conn
	t       Terminal
	results []json.RawMessage
}

func (c *client) send(m fromClient) error {
	line, err := format(m)
	if err != nil {
		return err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := c.conn.Write(line); err != nil {
		return fmt.Errorf("talk with the daemon: %w", err)
	}
	return nil
}

// errDaemonGone is that the daemon ended before the request did.
var errDaemonGone = errors.New("the daemon went away before it was done: what was half done is undone when it starts again")

// talk goes on until the daemon says that it is done.
func (c *client) talk(ctx context.Context, lines <-chan string) ([]json.RawMessage, error) {
	come, stopped := make(chan fromServer), make(chan struct{})
	failed := make(chan error, 1)
	defer close(stopped)
	go func() {
		failed <- c.hear(come, stopped)
	}()
	asked, over := false, ctx.Done()
	var late <-chan time.Time
	stop := func() error {
		over, asked = nil, false
		late = time.After(endWithin)
		return c.send(fromClient{Stop: true})
	}
	for {
		var answers <-chan string
		if asked {
			answers = lines
		}
		select {
		case m := <-come:
			if m.End != nil {
				if m.End.Error != "" {
					return c.results, errors.New(m.End.Error)
				}
				return c.results, nil
			}
			if c.show(m) {
				asked = over != nil
			}
		case line, ok := <-answers:
			if len(line) > maxArg {
				c.t.Say(fmt.Sprintf("That is too long: %d bytes at most.", maxArg))
				continue
			}
			asked = false
			err := error(nil)
			if ok {
				err = c.send(fromClient{Answer: &line})
			} else {
				err = stop()
			}
			if err != nil {
				return nil, err
			}
		case <-over:
			if err := stop(); err != nil {
				return nil, err
			}
		case <-late:
			return nil, errors.New("the daemon does not say that it has stopped: see gatehouse enroll list")
		case err := <-failed:
			return nil, errors.Join(errDaemonGone, err)
		}
	}
}

// show prints a line, and says whether it is a question.
func (c *client) show(m fromServer) (asked bool) {
	switch {
	case m.Say != nil:
		c.t.Say(*m.Say)
	case m.Ask != nil:
		c.t.Ask(m.Ask.Text, m.Ask.Choices)
		return true
	case m.Progress != nil:
		c.t.Progress(m.Progress.What, m.Progress.Done, m.Progress.Total)
	default:
		c.results = append(c.results, m.Result)
	}
	return false
}

func (c *client) hear(come chan<- fromServer, stopped <-chan struct{}) error {
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(make([]byte, 0, 4096), maxLine)
	for lines.Scan() {
		m, err := parseServer(lines.Bytes())
		if err != nil {
			return err
		}
		select {
		case come <- m:
		case <-stopped:
			return nil
		}
	}
	return lines.Err()
}
