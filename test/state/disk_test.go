package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"golang.org/x/sys/unix"
)

// failing builds the library that makes a disk fail.
var failing = sync.OnceValues(func() (string, error) {
	dir, err := programs()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "failing.so")
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-o", path, "testdata/failing.c", "-ldl").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("gcc: %w\n%s", err, out)
	}
	return path, nil
})

// TestADiskThatFails fails what SQLite writes or syncs, as a dying card does,
// and as one does that the kernel has made read-only: no entry without a
// record, but for break-glass, whose record comes late.
func TestADiskThatFails(t *testing.T) {
	for name, errno := range map[string]syscall.Errno{
		"I/O error":           syscall.EIO,
		"no space":            syscall.ENOSPC,
		"read-only from here": syscall.EROFS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			library, err := failing()
			if err != nil {
				t.Fatal(err)
			}
			s, c := newSite(t)
			control := filepath.Join(s.dir, "failing")
			c.env = []string{"LD_PRELOAD=" + library, "FAILING_CONTROL=" + control, "FAILING_FILES=/records.db"}
			s.startCRM()
			c.start()
			c.enters(staff)
			c.settled()
			epoch := c.epoch()

			write(t, control, fmt.Sprint(int(errno)))
			c.locksOut()
			before := c.unlocked()
			c.present(breakGlass)
			eventually(t, "break-glass opens", func() bool { return c.unlocked() > before })
			time.Sleep(1100 * time.Millisecond) // from when on a record counts as late
			if err := os.Remove(control); err != nil {
				t.Fatal(err)
			}
			c.enters(staff)
			c.settled()
			c.recovered(epoch)
			s.quiet()
		})
	}
}

// locksOut presents cards until the controller says that it cannot record, and
// wants the door to be locked throughout.
func (c *controller) locksOut() {
	c.t.Helper()
	before := c.unlocked()
	for i := 0; ; i++ {
		c.present([]uint64{staff, 5, 6}[i%3])
		said := false
		eventually(c.t, "the card is answered", func() bool {
			s, err := c.status()
			said = err == nil && slices.ContainsFunc(s.Faults, func(f metrics.Fault) bool { return strings.HasSuffix(f.Part, "log") })
			return said || c.unlocked() > before
		})
		if c.unlocked() > before {
			c.t.Fatal("the door opens though nothing can be recorded")
		}
		if said {
			break
		}
	}
	if !c.isLocked() {
		c.t.Fatal("the door is not locked")
	}
}

// recovered wants the log to go on in its epoch, with the late record of the
// break-glass, and both logs to agree.
func (c *controller) recovered(epoch string) {
	c.t.Helper()
	if e := c.epoch(); e != epoch {
		c.t.Errorf("epoch %s, before %s: the database was whole", e, epoch)
	}
	own := c.own()
	i := slices.IndexFunc(own, func(r record) bool { return r.Subject == "p-guard" && r.Data.Decision == "granted" })
	if i < 0 || !own[i].Data.Late || own[i].Data.Occurred == nil {
		c.t.Errorf("the break-glass has no late record (%d, of %d records)", i, len(own))
	}
	if got, want := granted(own), c.unlocked(); got < want {
		c.t.Errorf("%d openings, %d records of them", want, got)
	}
	c.verified()
}

// apart runs the test again in a mount namespace of its own. It fails where
// there is none to be had.
func apart(t *testing.T) (inside bool) {
	t.Helper()
	if os.Getenv("GATEHOUSE_TEST_APART") == t.Name() {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GATEHOUSE_TEST_APART="+t.Name(), programsEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")) {
		t.Fatalf("%v (this test needs a mount namespace)\n%s", err, out)
	}
	return false
}

// TestAFullDiskUnderTheDaemon fills the file system of the controller's data
// before, while and after records are written.
func TestAFullDiskUnderTheDaemon(t *testing.T) {
	if !apart(t) {
		return
	}
	s, c := newSite(t)
	kept := c.data + ".kept"
	if err := errors.Join(os.Rename(c.data, kept), os.Mkdir(c.data, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", c.data, "tmpfs", 0, "size=3m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.end() // nobody has a file open there
		if err := unix.Unmount(c.data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	copyTree(t, kept+"/.", c.data)
	filler := filepath.Join(c.data, "filler")
	fill := func() {
		f, err := os.OpenFile(filler, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for n := 64 << 10; n > 0; {
			if _, err := f.Write(make([]byte, n)); errors.Is(err, unix.ENOSPC) {
				n /= 2
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	s.startCRM()
	c.start()
	c.enters(staff)
	c.settled()
	epoch := c.epoch()
	for range 2 { // full, room again, and full again
		fill()
		c.fullNow()
		before := c.unlocked()
		c.present(breakGlass) // its record has room of its own
		eventually(t, "break-glass opens", func() bool { return c.unlocked() > before })
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		c.enters(staff)
		c.settled()
	}
	fill()
	c.stop()
	fill()
	c.start() // on a full disk
	before := c.unlocked()
	c.present(breakGlass)
	eventually(t, "break-glass opens", func() bool { return c.unlocked() > before })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	c.enters(staff)
	c.settled()
	if e := c.epoch(); e != epoch {
		t.Errorf("epoch %s, before %s: the database was whole", e, epoch)
	}
	own := c.own()
	if got, want := granted(own), c.unlocked(); got < want { // two may share an opening
		t.Errorf("%d openings, %d records of them", want, got)
	}
	s.quiet()
	c.verified()
}

// fullNow presents cards until there is no room for a record: up to then each
// opens the door, from then on none does.
func (c *controller) fullNow() {
	c.t.Helper()
	for i := 0; ; i++ {
		before := c.unlocked()
		eventually(c.t, "the door is locked", c.isLocked)
		c.present([]uint64{staff, 5, 6}[i%3])
		said := false
		eventually(c.t, "the card is answered", func() bool {
			s, err := c.status()
			said = err == nil && slices.ContainsFunc(s.Faults, func(f metrics.Fault) bool { return strings.HasSuffix(f.Part, "log") })
			return said || c.unlocked() > before
		})
		if said {
			if c.unlocked() > before+1 {
				c.t.Fatal("the door opens though nothing can be recorded")
			}
			return
		}
		if i > 500 {
			c.t.Fatal("the disk does not fill")
		}
	}
}

// TestAReadOnlyDisk starts the daemon on a file system that takes no writes:
// it refuses, and says why.
func TestAReadOnlyDisk(t *testing.T) {
	if !apart(t) {
		return
	}
	s, c := newSite(t)
	s.startCRM()
	c.start()
	c.enters(staff)
	c.settled()
	c.stop()
	if err := unix.Mount(c.data, c.data, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.end()
		if err := unix.Unmount(c.data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", c.data, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	c.launch()
	if _, ready := c.p.readyOrRefuses(t); ready {
		t.Fatal("the daemon gets ready, though it can record nothing")
	}
	if said := c.p.log(); !strings.Contains(said, "read-only") || strings.Contains(said, "panic") {
		t.Errorf("it does not say why it refuses: %s", said)
	}
	if err := unix.Mount("", c.data, "", unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	c.start()
	c.enters(staff)
	c.settled()
	s.quiet()
	c.verified()
}
