//go:build long

package test

import (
	"path/filepath"
	"testing"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// What a story leaves behind is no hindrance to the next one.
func TestTheStoryCanGoOnInTheSameFolder(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "site")
	for range 3 {
		if stdout, stderr, err := output(t, filepath.Join(rig.Programs(t), "gatehouse-demo"), "--once", "--data", data); err != nil {
			t.Fatalf("%v\n%s%s", err, stdout, stderr)
		}
	}
}
