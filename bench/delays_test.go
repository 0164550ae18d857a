package bench

import (
	"math"
	"math/bits"
	"slices"
	"strconv"
	"testing"
)

// delays are lengths of time, in classes of which each is a sixteenth of its
// power of two wide. A thread can fill it in: it is numbers alone.
type delays struct {
	n, sum [640]int64
}

func (d *delays) add(ns int64) {
	class := max(ns, 0)
	if class >= 16 {
		shift := bits.Len64(uint64(ns)) - 5
		class = int64(shift)*16 + ns>>shift
	}
	class = min(class, int64(len(d.n))-1)
	d.n[class]++
	d.sum[class] += ns
}

// percentile returns what the share q of all are not longer than.
func (d *delays) percentile(q float64) float64 {
	total := int64(0)
	for _, n := range d.n {
		total += n
	}
	rest := int64(math.Ceil(q * float64(total)))
	for i, n := range d.n {
		if rest -= n; n > 0 && rest <= 0 {
			return float64(d.sum[i]) / float64(n)
		}
	}
	return 0
}

// residual returns how long an event that comes at a random moment lasts to the
// end of the delay that it falls into, in the share q of all cases at most. A
// long delay counts for more: more events fall into it.
func (d *delays) residual(q float64) float64 {
	total := 0.0
	for _, sum := range d.sum {
		total += float64(sum)
	}
	// Of the delays longer than x, n of them and sum in all, the time in which
	// the end is further off than x is sum - n*x.
	want := (1 - q) * total
	n, sum := 0.0, 0.0
	for i := len(d.n) - 1; i >= 0; i-- {
		if d.n[i] == 0 {
			continue
		}
		n += float64(d.n[i])
		sum += float64(d.sum[i])
		shorter := 0.0
		if j := lastBefore(d.n[:i]); j >= 0 {
			shorter = float64(d.sum[j]) / float64(d.n[j])
		}
		if x := (sum - want) / n; x >= shorter {
			return x
		}
	}
	return 0
}

func lastBefore(n []int64) int {
	for i := len(n) - 1; i >= 0; i-- {
		if n[i] > 0 {
			return i
		}
	}
	return -1
}

// percentiles are those that are reported, as far as there are enough delays.
var percentiles = []float64{50, 90, 99, 99.9, 99.99}

// reportPercentile adds a metric such as p99.9-ns.
func reportPercentile(b *testing.B, p, ns float64) {
	b.ReportMetric(ns, "p"+strconv.FormatFloat(p, 'f', -1, 64)+"-ns")
}

func TestPercentilesAreThoseOfTheDelays(t *testing.T) {
	var all []int64
	d := &delays{}
	for i := int64(1); i <= 10_000; i++ {
		v := i * i % 7919 * i % 100_003
		all = append(all, v)
		d.add(v)
	}
	d.add(1 << 62)
	all = append(all, 1<<62)
	slices.Sort(all)
	for _, p := range percentiles {
		want := float64(all[int(math.Ceil(p/100*float64(len(all))))-1])
		if got := d.percentile(p / 100); math.Abs(got-want) > want/16+1 {
			t.Errorf("p%v: %v, want %v", p, got, want)
		}
	}
}

// TestLongDelaysCountForMore has 990 delays of 10 and one of 9900: an event
// falls into the long one in half of all cases.
func TestLongDelaysCountForMore(t *testing.T) {
	d := &delays{}
	for range 990 {
		d.add(10)
	}
	d.add(9900)
	for q, want := range map[float64]float64{0.25: 5, 0.75: 4950, 0.95: 8910, 0.999: 9880.2} {
		if got := d.residual(q); math.Abs(got-want) > want/50+0.1 {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
}
