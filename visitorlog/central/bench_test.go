package central

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-acs/gatehouse/visitorlog"
)

// BenchmarkIngest stores batches of 500 durably, and in the same run verifies
// the ES256 signature of each of those records on all cores: what ingest
// would cost at least if it checked them one by one.
func BenchmarkIngest(b *testing.B) {
	f := newForger(b, "north-1").add(MaxBatch * 20)
	c := newCRM(b)
	c.approve(f)
	v, err := parseKey(f.controller().JWK)
	if err != nil {
		b.Fatal(err)
	}
	batches := make([]Batch, 20)
	for i := range batches {
		batches[i] = f.batch(i*MaxBatch, (i+1)*MaxBatch)
	}
	var storing, verifying time.Duration
	records := 0
	for b.Loop() {
		if _, err := c.w.Exec(`DELETE FROM records; DELETE FROM nodes; DELETE FROM epochs`); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for _, batch := range batches {
			if _, refusals, err := c.Ingest(b.Context(), batch); err != nil || refusals[0] != Applied {
				b.Fatal(refusals, err)
			}
		}
		storing += time.Since(began)
		began = time.Now()
		verifyAll(b, v, f.jws)
		verifying += time.Since(began)
		records += len(f.jws)
	}
	b.ReportMetric(float64(records)/storing.Seconds(), "got-records/s")
	b.ReportMetric(float64(records)/verifying.Seconds(), "limit-records/s")
	b.ReportMetric(2, "min-ratio")
	b.ReportMetric(0, "ns/op")
}

func verifyAll(b *testing.B, v visitorlog.Verifier, jws []string) {
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(jws); i += workers {
				if _, err := v.Verify(jws[i]); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkCheck is the background check of stored records beside the bare
// signature.
func BenchmarkCheck(b *testing.B) {
	f := newForger(b, "north-1").add(MaxBatch * 10)
	c := newCRM(b)
	c.approve(f)
	for i := range 10 {
		c.ingest(f.batch(i*MaxBatch, (i+1)*MaxBatch), uint64((i+1)*MaxBatch), Applied)
	}
	v, err := parseKey(f.controller().JWK)
	if err != nil {
		b.Fatal(err)
	}
	var checking, verifying time.Duration
	for b.Loop() {
		if _, err := c.w.Exec(`UPDATE records SET checked = NULL; UPDATE epochs SET checked = 0`); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for n := 1; n > 0; {
			if n, err = c.Check(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		checking += time.Since(began)
		began = time.Now()
		verifyAll(b, v, f.jws)
		verifying += time.Since(began)
	}
	b.ReportMetric(float64(len(f.jws)*b.N)/checking.Seconds(), "got-records/s")
	b.ReportMetric(float64(len(f.jws)*b.N)/verifying.Seconds(), "limit-records/s")
	b.ReportMetric(0, "ns/op")
}
