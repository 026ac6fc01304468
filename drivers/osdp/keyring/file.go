package keyring

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
)

const (
	version = 1
	maxFile = 1 << 20 // bytes: some thousand readers
)

// content is the file's JSON.
type content struct {
	Version int     `json:"version"`
	Readers []entry `json:"readers"`
}

// entry is one reader's. Key and Next are sealed.
type entry struct {
	Line    string `json:"line"`
	Address byte   `json:"address"`
	Key     []byte `json:"key,omitempty"`
	Next    []byte `json:"next,omitempty"`
}

// read reads the file; no file is no keys.
func read(path string) (map[reader]sealed, error) {
	// Not blocking, lest a pipe in the file's place hangs the program. What was
	// opened is what is checked.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return make(map[reader]sealed), nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s can be reached by others (mode %#o): chmod 600 %s", path, mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	readers, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: bring it back from a backup, or move it away and give each reader a new key", path, err)
	}
	return readers, nil
}

// parse reads the file's text. It does not tell whether the keys open.
func parse(text []byte) (map[reader]sealed, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("it has more than %d bytes", maxFile)
	}
	var c content
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something stands behind its end")
	}
	if c.Version != version {
		return nil, fmt.Errorf("it is of version %d, and this program knows version %d", c.Version, version)
	}
	readers := make(map[reader]sealed)
	for i, e := range c.Readers {
		r := reader{e.Line, e.Address}
		switch _, twice := readers[r]; {
		case e.Line == "":
			return nil, fmt.Errorf("reader %d has no line", i+1)
		case e.Address > osdp.MaxAddress:
			return nil, fmt.Errorf("reader %d has address %d: the last one is %d", i+1, e.Address, osdp.MaxAddress)
		case len(e.Key) == 0 && len(e.Next) == 0:
			return nil, fmt.Errorf("%v has no key", r)
		case twice:
			return nil, fmt.Errorf("%v is in it twice", r)
		}
		s := sealed{}
		if len(e.Key) > 0 {
			s.current = e.Key
		}
		if len(e.Next) > 0 {
			s.next = e.Next
		}
		readers[r] = s
	}
	return readers, nil
}

// marshal is the opposite of parse, in the order of lines and addresses.
func marshal(readers map[reader]sealed) ([]byte, error) {
	c := content{Version: version, Readers: []entry{}}
	for _, r := range slices.SortedFunc(maps.Keys(readers), func(a, b reader) int {
		return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.address, b.address))
	}) {
		c.Readers = append(c.Readers, entry{r.line, r.address, readers[r].current, readers[r].next})
	}
	text, err := json.MarshalIndent(c, "", "  ")
	return append(text, '\n'), err
}

// write replaces the file durably: whatever happens, the old one or the new one
// is there afterwards, whole.
func write(path string, readers map[reader]sealed) (err error) {
	text, err := marshal(readers)
	if err != nil {
		return err
	}
	if _, err := parse(text); err != nil {
		return fmt.Errorf("not written, for it could not be read again: %w", err)
	}
	temp := path + ".new"
	// One that a crash left behind is worth nothing.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(temp)
		}
	}()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
