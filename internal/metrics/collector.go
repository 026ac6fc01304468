package metrics

import (
	"maps"
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Collector gives values to Prometheus when it asks, as they are then.
type Collector func(Values)

// Describe is of prometheus.Collector: the descriptions follow from the
// metrics.
func (c Collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect is of prometheus.Collector.
func (c Collector) Collect(ch chan<- prometheus.Metric) { c(Values(ch)) }

// Values takes what a Collector has to say.
type Values chan<- prometheus.Metric

// Gauge gives a value that goes up and down.
func (v Values) Gauge(d *prometheus.Desc, value float64, labels ...string) {
	v <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
}

// Is gives 1 if something is so, and else 0.
func (v Values) Is(d *prometheus.Desc, so bool, labels ...string) {
	value := 0.0
	if so {
		value = 1
	}
	v.Gauge(d, value, labels...)
}

// Counter gives a number that only grows while the program runs.
func (v Values) Counter(d *prometheus.Desc, n uint64, labels ...string) {
	v <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
}

// Histogram gives how often values were seen, by the bound below which they
// lay: each bound counts those that lay below none before it. Their sum is not
// known.
func (v Values) Histogram(d *prometheus.Desc, counts map[float64]uint64, labels ...string) {
	var total uint64
	upTo := make(map[float64]uint64, len(counts))
	for _, bound := range slices.Sorted(maps.Keys(counts)) {
		total += counts[bound]
		upTo[bound] = total
	}
	v <- prometheus.MustNewConstHistogram(d, total, math.NaN(), upTo, labels...)
}

// Describer makes the descriptions of one program's metrics, whose names
// begin alike.
type Describer string

// Desc describes a metric.
func (prefix Describer) Desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(string(prefix)+name, help, labels, nil)
}
