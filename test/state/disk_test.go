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
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/internal/metrics"
	"github.com/gatehouse-acs/gatehouse/test/rig"
	"golang.org/x/sys/unix"
)

// failing builds the library that makes a disk fail, and returns its path.
func failing(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "failing.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-o", path, "testdata/failing.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return path
}

// TestADiskThatFails fails what SQLite writes or syncs, as a dying card does,
// and as one does that the kernel has made read-only: no entry without a
// record, but for break-glass, whose record comes late.
func TestADiskThatFails(t *testing.T) {
	library := failing(t)
	for name, errno := range map[string]syscall.Errno{
		"I/O error":           syscall.EIO,
		"no space":            syscall.ENOSPC,
		"read-only from here": syscall.EROFS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := newSite(t)
			control := filepath.Join(s.Dir, "failing")
			c.Env = []string{"LD_PRELOAD=" + library, "FAILING_CONTROL=" + control, "FAILING_FILES=/records.db"}
			s.StartCRM()
			c.Start()
			c.enters(staff)
			c.Settled()
			epoch := c.epoch()

			rig.Write(t, control, fmt.Sprint(int(errno)))
			c.locksOut()
			c.opens(breakGlass)
			time.Sleep(1100 * time.Millisecond) // from when on a record counts as late
			if err := os.Remove(control); err != nil {
				t.Fatal(err)
			}
			c.enters(staff)
			c.Settled()
			c.recovered(epoch)
			s.quiet()
		})
	}
}

// TestTheCRMsDiskFails: what the CRM cannot make durable it does not
// countersign. When the disk is good again all of it arrives, without a restart.
func TestTheCRMsDiskFails(t *testing.T) {
	library := failing(t)
	for name, errno := range map[string]syscall.Errno{"I/O error": syscall.EIO, "no space": syscall.ENOSPC} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := newSite(t)
			control := filepath.Join(s.Dir, "failing")
			s.CRMEnv = []string{"LD_PRELOAD=" + library, "FAILING_CONTROL=" + control, "FAILING_FILES=/central.db"}
			s.StartCRM()
			c.Start()
			c.enters(staff)
			c.Settled()
			before := c.Now().Records

			rig.Write(t, control, fmt.Sprint(int(errno)))
			c.enters(staff)
			c.denied(revoked, "revoked")
			rig.Eventually(t, "the CRM says what is wrong", func() bool {
				return strings.Contains(s.CRM.Log(), "message not answered")
			})
			if now := c.Now().Records; now.Acknowledged != before.Acknowledged || now.Size == before.Size {
				t.Errorf("records before %+v, and with a disk that fails %+v: want more of them, and none countersigned", before, now)
			}
			if err := os.Remove(control); err != nil {
				t.Fatal(err)
			}
			c.enters(staff)
			c.Settled()
			if e := c.epoch(); e != before.Epoch {
				t.Errorf("epoch %s, before %s: the controller's log was whole", e, before.Epoch)
			}
			s.quiet()
			c.verified()
		})
	}
}

// locksOut presents cards until the controller says that it cannot record, and
// wants the door to be locked throughout.
func (c *controller) locksOut() {
	c.T.Helper()
	before := c.unlocked()
	for i := 0; ; i++ {
		c.present(staffs[i%len(staffs)])
		said := false
		rig.Eventually(c.T, "the card is answered", func() bool {
			s := c.Status()
			said = s != nil && slices.ContainsFunc(s.Faults, func(f metrics.Fault) bool { return strings.HasSuffix(f.Part, "log") })
			return said || c.unlocked() > before
		})
		if c.unlocked() > before {
			c.T.Fatal("the door opens though nothing can be recorded")
		}
		if said {
			break
		}
	}
	if !c.Locked() {
		c.T.Fatal("the door is not locked")
	}
}

// recovered wants the log to go on in its epoch, with the late record of the
// break-glass, and both logs to agree.
func (c *controller) recovered(epoch string) {
	c.T.Helper()
	if e := c.epoch(); e != epoch {
		c.T.Errorf("epoch %s, before %s: the database was whole", e, epoch)
	}
	own := c.Own()
	i := slices.IndexFunc(own, func(r rig.Record) bool { return r.Subject == "p-guard" && r.Data.Decision == "granted" })
	if i < 0 || !own[i].Data.Late || own[i].Data.Occurred == nil {
		c.T.Errorf("the break-glass has no late record (%d, of %d records)", i, len(own))
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
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "GATEHOUSE_TEST_APART="+t.Name(), rig.BuiltEnv+"="+rig.Programs(t))
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
	kept := c.Data + ".kept"
	if err := errors.Join(os.Rename(c.Data, kept), os.Mkdir(c.Data, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", c.Data, "tmpfs", 0, "size=3m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.End() // nobody has a file open there
		if err := unix.Unmount(c.Data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	copyTree(t, kept+"/.", c.Data)
	filler := filepath.Join(c.Data, "filler")
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
	s.StartCRM()
	c.Start()
	c.enters(staff)
	c.Settled()
	epoch := c.epoch()
	for range 2 { // full, room again, and full again
		fill()
		c.fullNow()
		c.opens(breakGlass) // its record has room of its own
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		c.enters(staff)
		c.Settled()
	}
	fill()
	c.stop()
	fill()
	c.Start() // on a full disk
	c.opens(breakGlass)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	c.enters(staff)
	c.Settled()
	if e := c.epoch(); e != epoch {
		t.Errorf("epoch %s, before %s: the database was whole", e, epoch)
	}
	s.quiet()
	c.verified()
}

// fullNow presents cards until there is no room for a record: up to then each
// opens the door, from then on none does.
func (c *controller) fullNow() {
	c.T.Helper()
	for i := 0; ; i++ {
		before := c.unlocked()
		rig.Eventually(c.T, "the door is locked", c.Locked)
		c.present(staffs[i%len(staffs)])
		said := false
		rig.Eventually(c.T, "the card is answered", func() bool {
			s := c.Status()
			said = s != nil && slices.ContainsFunc(s.Faults, func(f metrics.Fault) bool { return strings.HasSuffix(f.Part, "log") })
			return said || c.unlocked() > before
		})
		if said {
			if c.unlocked() > before+1 {
				c.T.Fatal("the door opens though nothing can be recorded")
			}
			return
		}
		if i > 500 {
			c.T.Fatal("the disk does not fill")
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
	s.StartCRM()
	c.Start()
	c.enters(staff)
	c.Settled()
	c.stop()
	if err := unix.Mount(c.Data, c.Data, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.End()
		if err := unix.Unmount(c.Data, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", c.Data, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	c.Launch()
	if c.AwaitOrRefuses() {
		t.Fatal("the daemon gets ready, though it can record nothing")
	}
	if said := c.Process.Log(); !strings.Contains(said, "read-only") || strings.Contains(said, "panic") {
		t.Errorf("it does not say why it refuses: %s", said)
	}
	if err := unix.Mount("", c.Data, "", unix.MS_BIND|unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	c.Start()
	c.enters(staff)
	c.Settled()
	s.quiet()
	c.verified()
}
