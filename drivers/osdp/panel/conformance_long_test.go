//go:build long

package panel

import (
	"testing"

	"github.com/gatehouse-acs/gatehouse/drivers/drivertest"
	"github.com/gatehouse-acs/gatehouse/drivers/osdp/pd"
)

// TestConformanceInMemory is TestConformance without a kernel in between: what
// fails there and not here is the terminal's.
func TestConformanceInMemory(t *testing.T) {
	drivertest.Test(t, func(t *testing.T) *drivertest.Rig { return newSite(t, newMemory(t), pd.Config{Key: key}).rig() })
}
