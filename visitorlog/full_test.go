package visitorlog

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const fullDiskEnv = "GATEHOUSE_TEST_FULL_DISK"

// TestAFullDisk runs in a mount namespace of its own, because only a file
// system that is really full behaves like one.
func TestAFullDisk(t *testing.T) {
	if os.Getenv(fullDiskEnv) != "" {
		fullDisk(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestAFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), fullDiskEnv+"=1", "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestAFullDisk")) {
		t.Fatalf("%v (this test needs a mount namespace)\n%s", err, out)
	}
}

// nothingIsCarried: where space is scarce, old records do not compete for it
// with those of the doors.
func nothingIsCarried(t *testing.T, dir string) {
	l := open(t, dir, shared().options())
	appendN(t, l, 3)
	l.Close()
	tamper(t, dir, `UPDATE rec SET body = zeroblob(length(body)) WHERE seq = 1`)
	l = open(t, dir, shared().options())
	exhaust(t, l, nil)
	before := head(t, l)
	if n, err := l.Carry(context.Background(), 5); n != 0 || err == nil || head(t, l) != before {
		t.Errorf("on a disk of 2 MB %d records were carried: %v", n, err)
	}
	l.Close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func fullDisk(t *testing.T) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m,mode=0700"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	k := shared()
	ctx := context.Background()
	nothingIsCarried(t, filepath.Join(dir, "old"))
	l := open(t, dir, k.options())
	appendN(t, l, 5)
	if info, err := os.Stat(filepath.Join(dir, reserveFile)); err != nil || info.Size() != reserveSize {
		t.Fatalf("reserve: %v, %v", info, err)
	}

	filler := filepath.Join(dir, "filler")
	fill := func() {
		f, err := os.OpenFile(filler, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for n := 4096; n > 0; {
			if _, err := f.Write(make([]byte, n)); errors.Is(err, unix.ENOSPC) {
				n /= 2
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	var want []Entry // what was promised
	var err error
	for i := 0; err == nil; i++ {
		var e Entry
		if e, err = l.Append(ctx, func(*Tx) (Draft, error) { return granted(i), nil }); err == nil {
			want = append(want, e)
		}
		if i > 1000 {
			t.Fatal("the disk does not fill")
		}
	}
	if !outOfSpace(err) {
		t.Fatalf("on a full disk: %v", err)
	}
	size := head(t, l).Size
	if size != 6+uint64(len(want)) {
		t.Errorf("size = %d after 6 + %d promised records", size, len(want))
	}
	if entries, err := l.Entries(ctx, 0, 1000); err != nil || len(entries) != int(size) {
		t.Errorf("%d records to read, %v", len(entries), err)
	}

	// Rule 1's one exception has space of its own, which others do not get.
	breakGlass := func(*Tx) (Draft, error) {
		return Draft{Type: BreakGlass, Subject: "p-0001", Data: Data{Door: "server-room-a"}}, nil
	}
	glasses := 0
	for ; ; glasses++ {
		e, err := l.AppendReserved(ctx, breakGlass)
		if err != nil {
			if !outOfSpace(err) {
				t.Fatal(err)
			}
			break
		}
		want = append(want, e)
		if e, err := l.Append(ctx, func(*Tx) (Draft, error) { return granted(0), nil }); err == nil {
			want = append(want, e) // within what the file system rounds up
		} else if !outOfSpace(err) {
			t.Fatal(err)
		}
	}
	t.Logf("%d break-glass records fit into the reserve", glasses)
	if glasses < 4 {
		t.Errorf("only %d break-glass records fit into the reserve", glasses)
	}

	// The log opens on a full disk too.
	l.Close()
	fill()
	if l, err = Open(dir, k.options()); err != nil {
		t.Fatal(err)
	}
	defer func() { l.Close() }()
	if o := l.Opened(); o.New {
		t.Errorf("a full disk began a new epoch: %+v", o)
	}

	// Room again: all is as before, and the reserve is there.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(restoreEvery / 4) {
		e, err := l.Append(ctx, func(*Tx) (Draft, error) { return granted(0), nil })
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
		info, err := os.Stat(filepath.Join(dir, reserveFile))
		if err == nil && info.Size() == reserveSize {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("reserve: %v, %v", info, err)
		}
	}
	l.Close()
	if v, err := k.verify(t, filepath.Join(dir, databaseFile)); err != nil || v.Head.Size != uint64(6+len(want)) {
		t.Errorf("%+v, %v; want %d records", v, err, 6+len(want))
	}
	r, err := OpenReader(ctx, filepath.Join(dir, databaseFile), k.sealer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, e := range want {
		if got, err := r.Read(ctx, e.Seq, 1); err != nil || len(got) != 1 || got[0].Leaf != e.Leaf {
			t.Errorf("record %d was promised and is not there: %v", e.Seq, err)
		}
	}
}
