package visitorlog

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	reserveFile  = "reserve"
	reserveSize  = 256 << 10 // a dozen break-glass records with the pages that they touch
	reserveLeast = 16 << 10  // less would not hold one
	restoreEvery = time.Second
)

// reserve is space kept in advance for records that must not be lost for want
// of it.
type reserve struct {
	path  string
	size  int64 // held now
	tried time.Time
}

// release gives the space back to the file system.
func (r *reserve) release() error {
	r.size, r.tried = 0, time.Time{}
	err := os.Remove(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// retake keeps what is left of the space after a record has used some of it,
// so that lesser records do not use up the rest.
func (r *reserve) retake() {
	for size := int64(reserveSize); size >= reserveLeast; size /= 2 {
		if r.take(size) == nil {
			return
		}
	}
}

// restoreSometimes takes the whole space again when there is plenty.
func (r *reserve) restoreSometimes(log *slog.Logger) {
	if r.size < reserveSize && time.Since(r.tried) >= restoreEvery {
		r.restore(log)
	}
}

// restore takes the whole space unless it is held, or so scarce that records
// need it more. A log without its reserve works, so this only reports.
func (r *reserve) restore(log *slog.Logger) {
	r.tried = time.Now()
	if info, err := os.Stat(r.path); err == nil {
		if r.size = info.Size(); r.size == reserveSize {
			return
		}
	}
	if free, err := freeSpace(filepath.Dir(r.path)); err == nil && free < 2*reserveSize {
		log.Warn("disk full: no room to keep space for break-glass records", "kept_bytes", r.size)
		return
	}
	if err := r.take(reserveSize); err != nil {
		log.Warn("no space kept for break-glass records", "error", err)
	}
}

// freeSpace is how many bytes the file system of a folder still takes.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return st.Bavail * uint64(st.Bsize), err
}

// take fills the file with size bytes that the file system cannot promise to
// anybody else, or leaves none.
func (r *reserve) take(size int64) (err error) {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			_ = r.release()
			r.tried = time.Now()
		} else {
			r.size = size
		}
	}()
	for err = unix.EINTR; errors.Is(err, unix.EINTR); { // Go's own signals interrupt it
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = f.Write(make([]byte, size))
	}
	if err != nil {
		return err
	}
	return f.Sync()
}
