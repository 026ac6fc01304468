package figures

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/test/rig"
)

// BenchmarkStory plays the demo's story from beginning to end, as a newcomer
// does who has never seen a door.
func BenchmarkStory(b *testing.B) {
	rig.Programs(b)
	began := time.Now()
	rig.Tool(b, "gatehouse-demo", "--once", "--data", filepath.Join(b.TempDir(), "site"))
	figure(b, "the whole story of the demo", map[string]float64{"got-s": time.Since(began).Seconds(), "max-s": 40})
}
