//go:build long

package guest_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoCardIsTakenForAnother plays 10,000 frames of 26 to 56 bits at 200 µs to
// 20 ms, twice. Where nothing disturbs the guest all of them are read. With two
// processors that run free, the kernel's threads overtake each other and the
// host stops them at will: what arrives in pieces or out of its pace is
// refused, and nothing is read as what it is not.
func TestNoCardIsTakenForAnother(t *testing.T) {
	const turns = 5 // after which each length has had each pace
	const cards = 400
	for _, mode := range []mode{inOrder, free} {
		t.Run(mode.String(), func(t *testing.T) {
			var all tally
			for turn := range turns {
				t.Run(fmt.Sprint(turn), func(t *testing.T) {
					all.add(playFrames(t, hardware{mode: mode}, cards, five(turn)...))
				})
			}
			t.Logf("%s: %s", mode, &all)
			if mode == inOrder && all.decoded != all.frames {
				t.Errorf("%d of %d frames were not read", all.frames-all.decoded, all.frames)
			}
			if all.decoded == 0 || all.opened == 0 {
				t.Error("nothing was read: this says nothing")
			}
			if all.wrong > 0 {
				t.Errorf("%d cards were taken for others", all.wrong)
			}
		})
	}
}

// TestThe32BitProgramWorks runs the program for 32-bit controllers by user-mode
// emulation: it makes keys and an allowlist, and reads them back.
func TestThe32BitProgramWorks(t *testing.T) {
	dir := t.TempDir()
	said, err := output(exec.Command("make", "-C", "../..", "build-armv7", "OUT="+dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", said)
	c := newController(t, 3, "", typical)
	c.admit()
	own := filepath.Join(dir, "data")
	for _, args := range [][]string{
		{"init", "--data", own, "--controller", "north-2"},
		{"allowlist", "import", filepath.Join(c.dir, "people.csv"), "--data", own, "--timezone", "UTC"},
		{"allowlist", "list", "--data", own},
	} {
		if said, err = output(exec.Command("qemu-arm", append([]string{filepath.Join(dir, "gatehouse")}, args...)...)); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(string(said), c.person(0, 2)) {
		t.Errorf("the allowlist that it wrote is not what it reads:\n%s", said)
	}
}
