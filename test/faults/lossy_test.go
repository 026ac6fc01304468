package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/gatehouse-acs/gatehouse/test/rig"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

const (
	oneWay = time.Second // a round trip takes two
	loss   = 0.3
	// resetAfter is how often in a row something is lost until the connection
	// is: a kernel would wait for longer.
	resetAfter = 6
)

// lossy is what a TCP connection makes of lost packets. None of its bytes are
// missing at the other end: what was lost is sent again after a round trip,
// and all that follows waits for it. A connection on which the same was lost
// too often is given up.
type lossy struct{}

// Pipe is of toxics.Toxic.
func (*lossy) Pipe(stub *toxics.ToxicStub) {
	for {
		select {
		case <-stub.Interrupt:
			return
		case chunk := <-stub.Input:
			if chunk == nil {
				stub.Close()
				return
			}
			for times := 1; rand.Float64() < loss; times++ {
				if times == resetAfter {
					stub.Close()
					return
				}
				select {
				case <-time.After(2 * oneWay):
				case <-stub.Interrupt:
					stub.Output <- chunk
					return
				}
			}
			stub.Output <- chunk
		}
	}
}

// Between controller and CRM lies a bad line: 30 % loss, and two seconds from
// a question to its answer. Records arrive all the same.
func TestLossAndDelay(t *testing.T) {
	t.Parallel()
	s := rig.New(t)
	toxics.Register("lossy", new(lossy))
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(prometheus.NewRegistry()), zerolog.Nop())
	line := toxiproxy.NewProxy(server, "line", "127.0.0.1:0", s.Listen)
	if err := line.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(line.Stop)
	for _, direction := range []string{"upstream", "downstream"} {
		for name, attributes := range map[string]any{
			"latency": map[string]int64{"latency": oneWay.Milliseconds()},
			"lossy":   map[string]int64{},
		} {
			toxic, err := json.Marshal(map[string]any{"name": name + " " + direction, "type": name, "stream": direction, "attributes": attributes})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := line.Toxics.AddToxicJson(bytes.NewReader(toxic)); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := enrol(s, "north-1", 2)
	c.Broker = rig.TLS(t, line.Listen)
	s.StartCRM()
	c.Start()
	leave := crowd(t, c)
	began := time.Now()
	records(t, c, 200)
	leave()
	n := c.Now().Records.Size
	rig.Eventually(t, "records are countersigned over the bad line", func() bool { return c.Acknowledged() >= n })
	t.Logf("%d records were countersigned %v after the start", n, time.Since(began).Round(100*time.Millisecond))
	line.Toxics.ResetToxics(context.Background())
	nothingLost(t, s)
}
