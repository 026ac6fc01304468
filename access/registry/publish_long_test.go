//go:build long

package registry

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/gatehouse-acs/gatehouse/access"
	"github.com/gatehouse-acs/gatehouse/access/allowlist"
)

// A quarter of a million people go through a few megabytes, while others write.
func TestMemoryDoesNotGrowWithThePeopleWhoArePublished(t *testing.T) {
	const people, most = 250_000, 64 << 20
	s := openSite(t, filepath.Join(t.TempDir(), FileName))
	defer s.Close()
	s.crowd(t, people)
	runtime.GC()
	var m runtime.MemStats
	n, peak := 0, uint64(0)
	_, head, err := s.Publish(ctx, "north-1", 0, func(h *allowlist.Holder) error {
		if n++; n%5000 == 0 {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			_, err := s.People.Create(ctx, by, Person{ID: fmt.Sprintf("later-%d", n), Kind: access.Staff, Groups: []string{"ops"}})
			return err
		}
		return nil
	})
	if err != nil || n != people || peak > most {
		t.Errorf("%d people, %d MiB at the most, %v", n, peak>>20, err)
	}
	if later := must(s.Changes(ctx))(t); later != head+people/5000 {
		t.Errorf("changes up to %d, published up to %d", later, head)
	}
}
