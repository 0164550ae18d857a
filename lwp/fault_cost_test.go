package lwp_test

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// stores is a batch of pointer stores, timed while the collector marks or not.
type stores struct {
	slots   [256]*heapNode
	marking bool
	left    int // stores still to be counted
	ns      int64
	counted int
}

// used returns the CPU time of the calling thread, for the collector wants all
// of the CPUs.
func used() int64 {
	var ts unix.Timespec
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_THREAD_CPUTIME_ID, uintptr(unsafe.Pointer(&ts)), 0)
	return ts.Nano()
}

func timeStores(s *stores) {
	n := &s.slots[0]
	for s.left > 0 {
		skipped, begin := lwp.SkippedBarriers(), used()
		for i := range s.slots {
			s.slots[i] = *n
		}
		ns := used() - begin
		skipped = lwp.SkippedBarriers() - skipped
		if s.marking && skipped == len(s.slots) || !s.marking && skipped == 0 {
			s.ns += ns
			s.counted += len(s.slots)
			s.left -= len(s.slots)
		}
	}
}

// An op is a store of a pointer to memory off the Go heap, by a thread.
func BenchmarkPointerStore(b *testing.B) {
	lwptest.SkipRace(b)
	for name, marks := range map[string]bool{"no": false, "yes": true} {
		b.Run("impl=lwp/marking="+name, func(b *testing.B) {
			var arena lwp.Arena
			defer arena.Close()
			s, err := lwp.New[stores](&arena)
			if err != nil {
				b.Fatal(err)
			}
			if s.marking = marks; marks {
				marking(b)
			}
			s.left = b.N
			lwptest.OnThread(b, timeStores, s)
			b.ReportMetric(float64(s.ns)/float64(s.counted), "ns/op")
		})
	}
}
