// Package config reads the configuration files of the two programs: defaults,
// then a strict decode, then validation. Every fault is reported at once, with
// its line, its field and what to do.
package config

import (
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a controller's image may have no zone files

	"github.com/gatehouse-acs/gatehouse/internal/loopback"
)

// maxFile is more than any real configuration has.
const maxFile = 1 << 20

// Options say how a configuration is to be used.
type Options struct {
	// Demo allows drivers that move nothing real.
	Demo bool
}

// HTTP is where health, metrics and status are shown.
type HTTP struct {
	Listen string `toml:"listen"` // loopback host:port
}

// nameSyntax is that of controllers, doors and readers. Names stand in topics,
// certificates, file names and metrics.
var nameSyntax = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

const nameRule = "a name has 1 to 63 lower-case letters, digits and dashes, and does not begin with a dash"

// Read reads a configuration file whole.
func Read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	if len(b) > maxFile {
		return "", fmt.Errorf("configuration: %s has more than %d bytes: is it the right file?", path, maxFile)
	}
	return string(b), nil
}

// name checks the name of something.
func (r *report) name(path, name string) {
	switch {
	case name == "":
		r.add(path, "it is missing: %s", nameRule)
	case !nameSyntax.MatchString(name):
		r.add(path, "%q is not a name: %s", name, nameRule)
	}
}

// data makes the data directory's path absolute: a relative one begins at the
// folder of the configuration file.
func (r *report) data(dir string) string {
	if dir == "" {
		r.add("data", "it is missing: name the directory that keys and records are kept in")
		return dir
	}
	if filepath.IsAbs(dir) {
		return filepath.Clean(dir)
	}
	abs, err := filepath.Abs(filepath.Join(filepath.Dir(r.file), dir))
	if err != nil {
		r.add("data", "%q: %v", dir, err)
	}
	return abs
}

// zone looks a time zone up; nil if it is missing or at fault.
func (r *report) zone(name string, required bool) *time.Location {
	const advice = `use a name such as "Europe/Amsterdam", or "UTC"`
	if name == "" {
		if required {
			r.add("timezone", "it is missing: %s", advice)
		}
		return nil
	}
	// "Local" would make the schedules depend on the machine's own setting.
	z, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		r.add("timezone", "%q is not a time zone: %s", name, advice)
		return nil
	}
	return z
}

// within checks that a time lies in a range.
func (r *report) within(path string, t, least, most time.Duration) {
	if t < least || t > most {
		r.add(path, "%q is outside %s to %s", duration(t), duration(least), duration(most))
	}
}

// duration writes a time as people do: 5m, not 5m0s.
func duration(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (r *report) http(h HTTP) {
	if err := loopback.CheckListen(h.Listen); err != nil {
		r.add("http.listen", "%v", err)
	}
}

// broker checks the address of an MQTT broker.
func (r *report) broker(path, broker string) {
	const advice = "write it like tls://broker.example:8883"
	u, err := url.Parse(broker)
	if err != nil {
		// The parser's own error would show a password.
		r.add(path, "it is not an address: %s", advice)
		return
	}
	if u.User != nil {
		r.add(path, "%q names a user: controllers sign in with their certificate alone; leave out what stands before @", u.Redacted())
		return
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme != "tls" && u.Scheme != "tcp":
		r.add(path, "%q does not begin with tls:// (or tcp://, for a broker on this machine): %s", broker, advice)
	case u.Hostname() == "" || err != nil || port == 0:
		r.add(path, "%q lacks a host or a port: %s", broker, advice)
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		r.add(path, "%q has more than a host and a port: %s", broker, advice)
	case u.Scheme == "tcp" && !loopback.Is(u.Hostname()):
		r.add(path, "%q is not encrypted, which is allowed only to this machine: use tls://", broker)
	}
}

// inOneLine is the faults that an error joins.
func inOneLine(err error) string {
	parts := make([]string, 0, 2)
	for _, e := range flatten(err) {
		parts = append(parts, e.Error())
	}
	return strings.Join(parts, "; ")
}

// flatten is the errors that an error joins, to any depth.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}
