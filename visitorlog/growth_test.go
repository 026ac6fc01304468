package visitorlog

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unsigned stands in for the signer while a large log is filled: signatures
// cost the most, and nobody looks at those before the last record's.
type unsigned struct{ header string }

func (u unsigned) Sign(payload []byte) (string, error) {
	var sig [64]byte
	rand.Read(sig[:])
	return u.header + "." + base64.RawURLEncoding.EncodeToString(payload) + "." + base64.RawURLEncoding.EncodeToString(sig[:]), nil
}

// grow makes the log in dir one of size records, by the writer itself but in
// large transactions.
func grow(b *testing.B, dir string, size int64) {
	b.Helper()
	l := open(b, dir, shared().options())
	shut(b, l)
	s, err := openStore(context.Background(), filepath.Join(dir, databaseFile), shared().sealer)
	if err != nil {
		b.Fatal(err)
	}
	defer s.close()
	if _, err := s.write.Exec(`PRAGMA synchronous = OFF`); err != nil { // of this connection alone
		b.Fatal(err)
	}
	w, err := newWriter(s)
	if err != nil {
		b.Fatal(err)
	}
	defer w.close()
	o := shared().options()
	jws, err := o.Signer.Sign(nil)
	if err != nil {
		b.Fatal(err)
	}
	header, _, _ := strings.Cut(jws, ".")
	for w.tree.size < size {
		n := min(size-w.tree.size, 5000)
		o.Signer = unsigned{header}
		if n == 1 {
			o.Signer = shared().signer
		} else if n == size-w.tree.size {
			n-- // the last one alone
		}
		batch := make([]*request, n)
		for i := range batch {
			batch[i] = &request{write: func(*Tx) (Draft, error) { return granted(i), nil }}
		}
		if err := w.transact(o, batch); err != nil {
			b.Fatal(err)
		}
	}
}

func shut(b *testing.B, l *Log) {
	b.Helper()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkGrowth measures what a record costs in logs of several sizes, turn
// and turn about on the same disk, and how much memory a process with such a
// log has.
func BenchmarkGrowth(b *testing.B) {
	root := b.TempDir()
	dirs := make([]string, len(sizes))
	for i, size := range sizes {
		dirs[i] = filepath.Join(root, strconv.FormatInt(size, 10))
		if i > 0 {
			if err := os.CopyFS(dirs[i], os.DirFS(dirs[i-1])); err != nil {
				b.Fatal(err)
			}
			for _, name := range []string{"", databaseFile, "receipt.jws", reserveFile} {
				mode := os.FileMode(0o600)
				if name == "" {
					mode = 0o700
				}
				if err := os.Chmod(filepath.Join(dirs[i], name), mode); err != nil && !os.IsNotExist(err) {
					b.Fatal(err)
				}
			}
		}
		grow(b, dirs[i], size)
	}
	syscall.Sync() // what was written in a hurry must not be written in between
	memory := make([]float64, len(sizes))
	opening := make([]time.Duration, len(sizes))
	for i, dir := range dirs { // one at a time
		debug.FreeOSMemory()
		began := time.Now()
		l := open(b, dir, shared().options())
		opening[i] = time.Since(began)
		appendN(b, l, 100)
		debug.FreeOSMemory()
		memory[i] = resident(b)
		shut(b, l)
	}
	logs := make([]*Log, len(sizes))
	for i, dir := range dirs {
		logs[i] = open(b, dir, shared().options())
		defer logs[i].Close()
	}
	took := make([][]time.Duration, len(sizes))
	for range growthAppends {
		for i, l := range logs {
			began := time.Now()
			appendN(b, l, 1)
			took[i] = append(took[i], time.Since(began))
		}
	}
	first := p99(took[0])
	for i, size := range sizes {
		name := fmt.Sprintf("10^%d_records", len(strconv.FormatInt(size, 10))-1)
		b.Run(name+",_append_p99", func(b *testing.B) {
			b.ReportMetric(p99(took[i]), "got-ns")
			if i > 0 {
				b.ReportMetric(first, "limit-ns") // of the smallest
				b.ReportMetric(1.5, "max-ratio")
			}
			b.ReportMetric(0, "ns/op")
		})
		b.Run(name+",_memory", func(b *testing.B) {
			b.ReportMetric(memory[i]/1e6, "got-MB")
			if i > 0 {
				b.ReportMetric(memory[0]/1e6, "limit-MB")
				b.ReportMetric(1.25, "max-ratio")
			}
			b.ReportMetric(0, "ns/op")
		})
		b.Run(name+",_open", func(b *testing.B) {
			b.ReportMetric(float64(opening[i].Nanoseconds()), "got-ns")
			b.ReportMetric(1e9, "max-ns")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// resident is what this process has in memory.
func resident(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if f := strings.Fields(l); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) * 1024
		}
	}
	b.Fatal("no VmRSS in /proc/self/status")
	return 0
}
