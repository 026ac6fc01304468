package guest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDriversOnAChip runs the tests of drivers/gpio that need a chip.
func TestDriversOnAChip(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "gpio.test")
	build := exec.Command("go", "test", "-c", "-trimpath", "-tags", "guest", "-ldflags", "-s -w", "-o", binary, "../../drivers/gpio")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		t.Fatal(err)
	}
	m := boot(t, hardware{mode: inOrder, files: map[string]string{"/bin/gpio.test": binary}})
	said := m.run("/bin/gpio.test", "-test.v")
	passed := strings.Count(said, "--- PASS")
	if passed == 0 {
		t.Errorf("no test ran:\n%s", said)
	}
	t.Logf("%d tests passed in the guest", passed)
}
