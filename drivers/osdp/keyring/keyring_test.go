package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-acs/gatehouse/drivers/osdp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// gcm is a sealer with a key of its own. The program's is internal/keys'.
type gcm struct{ aead cipher.AEAD }

func newSealer(t testing.TB) gcm {
	t.Helper()
	key := make([]byte, 16)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return gcm{aead}
}

func (g gcm) Seal(plain, additional []byte) []byte { return g.aead.Seal(nil, nil, plain, additional) }
func (g gcm) Open(sealed, additional []byte) ([]byte, error) {
	return g.aead.Open(nil, nil, sealed, additional)
}

func keyOf(b byte) osdp.Key { return osdp.Key(bytes.Repeat([]byte{b}, len(osdp.Key{}))) }

func open(t testing.TB, path string, s Sealer) *Ring {
	t.Helper()
	r, err := Open(path, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// give gives a reader its key, as the bus does.
func give(t testing.TB, r *Ring, line string, address byte, key osdp.Key) {
	t.Helper()
	keys := r.For(line, address)
	if err := errors.Join(keys.Begin(key), keys.Commit(key)); err != nil {
		t.Fatal(err)
	}
}

func has(t testing.TB, s osdp.KeyStore, current, next *osdp.Key) {
	t.Helper()
	c, n, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b *osdp.Key) bool { return a == nil && b == nil || a != nil && b != nil && a.Equal(*b) }
	if !same(c, current) || !same(n, next) {
		t.Error("these are other keys")
	}
}

func TestAKeyIsKeptForOneReader(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	one, two := keyOf(1), keyOf(2)
	r := open(t, path, s)
	has(t, r.For("a", 3), nil, nil)
	give(t, r, "a", 3, one)
	if err := r.For("a", 3).Begin(two); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		has(t, r.For("a", 3), &one, &two)
		has(t, r.For("a", 4), nil, nil)
		has(t, r.For("b", 3), nil, nil)
		r = reopen(t, r, path, s)
	}
}

// reopen does what a start of the program does.
func reopen(t testing.TB, r *Ring, path string, s Sealer) *Ring {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, path, s)
}

// Whatever is begun, committed, copied and forgotten, and whenever the program
// starts anew: the ring has what a store that cannot fail would have.
func TestARingKeepsWhatAMemoryDoes(t *testing.T) {
	dir, s := t.TempDir(), newSealer(t)
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		path := filepath.Join(dir, fmt.Sprint(n))
		ring, err := Open(path, s)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { ring.Close() }()
		want := map[byte]*osdp.MemoryKeys{}
		for a := range byte(3) {
			want[a] = new(osdp.MemoryKeys)
		}
		address := rapid.ByteRange(0, 2)
		key := rapid.Map(rapid.ByteRange(1, 3), keyOf)
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				a, k := address.Draw(t, "address"), key.Draw(t, "key")
				if err := errors.Join(ring.For("line", a).Begin(k), want[a].Begin(k)); err != nil {
					t.Fatal(err)
				}
			},
			"commit": func(t *rapid.T) {
				a, k := address.Draw(t, "address"), key.Draw(t, "key")
				got, want := ring.For("line", a).Commit(k), want[a].Commit(k)
				if (got == nil) != (want == nil) {
					t.Fatalf("%v, want %v", got, want)
				}
			},
			"copy": func(t *rapid.T) {
				from, to := address.Draw(t, "from"), address.Draw(t, "to")
				current, next, _ := want[from].Load()
				c, n, _ := want[to].Load()
				err := ring.Copy("line", from, to)
				if refused := c != nil || n != nil || current == nil && next == nil; (err != nil) != refused {
					t.Fatalf("%v", err)
				}
				if err == nil {
					want[to] = remember(current, next)
				}
			},
			"forget": func(t *rapid.T) {
				a := address.Draw(t, "address")
				if err := ring.Forget("line", a); err != nil {
					t.Fatal(err)
				}
				want[a] = new(osdp.MemoryKeys)
			},
			"restart": func(t *rapid.T) {
				if err := ring.Close(); err != nil {
					t.Fatal(err)
				}
				if ring, err = Open(path, s); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				for a := range byte(3) {
					c, n, err := ring.For("line", a).Load()
					wantC, wantN, _ := want[a].Load()
					if err != nil || hex.EncodeToString(bytesOf(c)) != hex.EncodeToString(bytesOf(wantC)) || !bytes.Equal(bytesOf(n), bytesOf(wantN)) {
						t.Fatalf("the keys at address %d are others (%v)", a, err)
					}
				}
			},
		})
	})
}

func bytesOf(k *osdp.Key) []byte {
	if k == nil {
		return nil
	}
	return k[:]
}

func remember(current, next *osdp.Key) *osdp.MemoryKeys {
	m := new(osdp.MemoryKeys)
	if current != nil {
		m = osdp.NewMemoryKeys(*current)
	}
	if next != nil {
		m.Begin(*next)
	}
	return m
}

// Whoever can write the file cannot have one reader taken for another.
func TestAKeyThatIsMovedToAnotherReaderDoesNotOpen(t *testing.T) {
	for name, move := range map[string]func(*entry){
		"another address": func(e *entry) { e.Address = 4 },
		"another line":    func(e *entry) { e.Line = "b" },
		"as the next key": func(e *entry) { e.Address, e.Key, e.Next = 4, nil, e.Key },
		"altered":         func(e *entry) { e.Key[0] ^= 1 },
		"cut short":       func(e *entry) { e.Key = e.Key[:5] },
	} {
		t.Run(name, func(t *testing.T) {
			path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
			r := open(t, path, s)
			give(t, r, "a", 3, keyOf(1))
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			var c content
			text, err := os.ReadFile(path)
			if err == nil {
				err = json.Unmarshal(text, &c)
			}
			if err != nil {
				t.Fatal(err)
			}
			e := c.Readers[0]
			move(&e)
			c.Readers = []entry{e}
			if text, err = json.Marshal(c); err == nil {
				err = os.WriteFile(path, text, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = open(t, path, s).For(e.Line, e.Address).Load()
			if want := fmt.Sprintf("address %d on line %q", e.Address, e.Line); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want an error with %q", err, want)
			}
		})
	}
}

// A fault of one reader's key leaves the others theirs.
func TestAKeyThatDoesNotOpenIsOneReadersFault(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	one, two := keyOf(1), keyOf(2)
	r := open(t, path, newSealer(t)) // another controller's
	give(t, r, "a", 3, one)
	r = reopen(t, r, path, s)
	give(t, r, "a", 4, two)
	has(t, r.For("a", 4), &two, nil)
	if _, _, err := r.For("a", 3).Load(); err == nil {
		t.Error("it opens")
	}
	if err := r.For("a", 3).Commit(one); err == nil {
		t.Error("what does not open is made the current key")
	}
	// A reader that is given a new key works again.
	if err := r.Forget("a", 3); err != nil {
		t.Fatal(err)
	}
	give(t, r, "a", 3, two)
	has(t, r.For("a", 3), &two, nil)
}

func TestASealedTextThatIsNoKeyIsRefused(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	whose := reader{"a", 0}
	if err := write(path, map[reader]sealed{whose: {current: s.Seal([]byte("too short"), whose.binding())}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(t, path, s).For("a", 0).Load(); err == nil || strings.Contains(err.Error(), "too short") {
		t.Errorf("%v", err)
	}
}

// The names of lines are people's: none may look like another reader.
func TestNoTwoReadersHaveOneBinding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		of := func(name string) reader {
			return reader{rapid.StringMatching(`[ab0-9 "\\]{1,6}`).Draw(t, name), rapid.ByteMax(osdp.MaxAddress).Draw(t, name+" address")}
		}
		a, b := of("a"), of("b")
		if a != b && bytes.Equal(a.binding(), b.binding()) {
			t.Fatalf("%v and %v", a, b)
		}
	})
}

func TestWhatIsBegunIsOnTheDiskBeforeBeginReturns(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	one, two := keyOf(1), keyOf(2)
	r := open(t, path, s)
	give(t, r, "a", 0, one)
	if err := r.For("a", 0).Begin(two); err != nil {
		t.Fatal(err)
	}
	// As a crash leaves it: the file as it is now, and a half-written one.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after := filepath.Join(t.TempDir(), FileName)
	if err := errors.Join(os.WriteFile(after, text, 0o600), os.WriteFile(after+".new", text[:20], 0o600)); err != nil {
		t.Fatal(err)
	}
	r = open(t, after, s)
	has(t, r.For("a", 0), &one, &two)
	if err := r.For("a", 0).Commit(two); err != nil {
		t.Fatal(err)
	}
	has(t, r.For("a", 0), &two, nil)
}

func TestAKeyThatCannotBeKeptIsAnErrorAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	path, s := filepath.Join(dir, FileName), newSealer(t)
	one := keyOf(1)
	r := open(t, path, s)
	give(t, r, "a", 0, one)
	// A folder in the place of the new file stops root, too.
	if err := errors.Join(os.Mkdir(path+".new", 0o700), os.WriteFile(filepath.Join(path+".new", "x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := r.For("a", 0).Begin(keyOf(2)); err == nil {
		t.Error("Begin: no error")
	}
	if err := r.For("", 0).Begin(keyOf(2)); err == nil {
		t.Error("a reader without a line: no error")
	}
	has(t, r.For("a", 0), &one, nil)
	has(t, reopen(t, r, path, s).For("a", 0), &one, nil)
}

func TestTheFileIsItsOwnersAlone(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	r := open(t, path, s)
	give(t, r, "a", 0, keyOf(1))
	for _, name := range []string{path, path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	r.Close()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, s); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}

func TestADamagedFileIsAClearError(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(make([]byte, 40))
	for name, tt := range map[string]struct{ text, want string }{
		"empty":           {"", "damaged"},
		"cut off":         {`{"version":1,"readers":[{"line":"a`, "damaged"},
		"not JSON":        {"\x00\xff\x00", "damaged"},
		"a future one":    {`{"version":2,"readers":[]}`, "version 2"},
		"no version":      {`{"readers":[]}`, "version 0"},
		"an unknown name": {`{"version":1,"readers":[],"extra":1}`, "extra"},
		"more behind it":  {`{"version":1,"readers":[]} {}`, "behind its end"},
		"no line":         {`{"version":1,"readers":[{"line":"","address":0,"key":"` + key + `"}]}`, "no line"},
		"a broadcast":     {`{"version":1,"readers":[{"line":"a","address":127,"key":"` + key + `"}]}`, "address 127"},
		"no address":      {`{"version":1,"readers":[{"line":"a","address":256,"key":"` + key + `"}]}`, "damaged"},
		"no key":          {`{"version":1,"readers":[{"line":"a","address":3}]}`, "no key"},
		"not base64":      {`{"version":1,"readers":[{"line":"a","address":3,"key":"!"}]}`, "damaged"},
		"twice":           {`{"version":1,"readers":[{"line":"a","address":3,"key":"` + key + `"},{"line":"a","address":3,"key":"` + key + `"}]}`, "twice"},
		"huge":            {strings.Repeat(" ", maxFile+1), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), FileName)
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path, newSealer(t))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want an error with %q and the file", err, tt.want)
			}
			// The lock is free again, and the file as it was.
			lock, err := acquire(path + ".lock")
			if err != nil {
				t.Fatal(err)
			}
			lock.Close()
			if text, err := os.ReadFile(path); err != nil || string(text) != tt.text {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestOnlyRegularFilesAreRead(t *testing.T) {
	for name, put := range map[string]func(path string, mode uint32) error{
		"a folder": unix.Mkdir,
		"a pipe":   unix.Mkfifo, // at which a reader would wait for ever
	} {
		path := filepath.Join(t.TempDir(), FileName)
		if err := put(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, newSealer(t)); err == nil || !strings.Contains(err.Error(), "regular") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const lockHere = "KEYRING_TEST_LOCK"

// The second process is a real one: this test's own program.
func TestASecondProcessIsKeptOut(t *testing.T) {
	if path := os.Getenv(lockHere); path != "" {
		_, err := Open(path, newSealer(t))
		fmt.Println(err)
		return
	}
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	second := func() string {
		cmd := exec.Command(os.Args[0], "-test.run=^TestASecondProcessIsKeptOut$")
		cmd.Env = append(os.Environ(), lockHere+"="+path)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	r := open(t, path, s)
	if out := second(); !strings.Contains(out, "another process") {
		t.Errorf("while it is open here: %s", out)
	}
	r.Close()
	if out := second(); !strings.Contains(out, "<nil>") {
		t.Errorf("after it was closed: %s", out)
	}
}

func TestAClosedRingGivesAndTakesNothing(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	r := open(t, path, s)
	give(t, r, "a", 0, keyOf(1))
	r.Close()
	if _, _, err := r.For("a", 0).Load(); err == nil {
		t.Error("Load: no error")
	}
	for name, err := range map[string]error{
		"Begin": r.For("a", 0).Begin(keyOf(2)), "Commit": r.For("a", 0).Commit(keyOf(1)),
		"Copy": r.Copy("a", 0, 1), "Forget": r.Forget("a", 0),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNoKeyIsToBeSeen(t *testing.T) {
	path, s := filepath.Join(t.TempDir(), FileName), newSealer(t)
	key := osdp.Key([]byte("ABCDEFGHIJKLMNOP"))
	r := open(t, path, s)
	give(t, r, "a", 0, key)
	wrong := r.For("a", 0).Commit(key)
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("%v %+v %#v %v %+v %s", r, r, r, r.For("a", 0), r.For("a", 0), file)
	said += fmt.Sprint(wrong)
	for _, form := range []string{string(key[:]), hex.EncodeToString(key[:]), base64.StdEncoding.EncodeToString(key[:]), strings.Trim(fmt.Sprint(key[:]), "[]")} {
		if strings.Contains(strings.ToLower(said), strings.ToLower(form)) {
			t.Errorf("the key is in %q", said)
		}
	}
}

// The bytes are the disk's: whatever they are, there is no panic, and what is
// read is written the same.
func FuzzParse(f *testing.F) {
	key := base64.StdEncoding.EncodeToString(make([]byte, 40))
	f.Add([]byte(`{"version":1,"readers":[]}`))
	f.Add([]byte(`{"version":1,"readers":[{"line":"a","address":3,"key":"` + key + `"},{"line":"b","address":126,"next":"` + key + `"}]}`))
	f.Add([]byte(`{"version":1,"readers":[{"line":"\ud800","address":3,"key":"` + key + `"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		readers, err := parse(text)
		if err != nil {
			return
		}
		out, err := marshal(readers)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(out)
		if err != nil || len(again) != len(readers) {
			t.Fatalf("%d readers become %d: %v", len(readers), len(again), err)
		}
		for r, s := range readers {
			if a := again[r]; !bytes.Equal(a.current, s.current) || !bytes.Equal(a.next, s.next) {
				t.Fatalf("%v has other keys", r)
			}
		}
	})
}
