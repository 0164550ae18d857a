package bench

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

// BenchmarkJitter: one op is a millisecond of a loop that looks at the clock,
// while two goroutines make garbage, with GOGC=20 and 100 MB alive. The loop has
// one CPU, and all of Go the other: the collector takes nothing from the loop
// but what it asks for.
//
//   - lwp: the loop runs on our thread.
//   - lockedgoroutine: it runs on a goroutine that is locked to its thread. The
//     runtime stops it for the phases of a collection, and takes its P away for
//     the collector's workers and for other goroutines.
//   - alone: as lwp, but nothing makes garbage: what the machine takes from a
//     loop, by the timer's interrupts and, if it is a virtual one, by its host.
//
// With procs=2 the runtime has a P for each CPU, as it has when nobody asks for
// another number, and the locked goroutine has to share its P with the others. With
// procs=4 there is one more than there are goroutines that want one: what it loses
// then is for the collector alone.
//
// lost-% is the time in gaps of more than 10 us between two looks, and brief-% what
// of that is in gaps of up to 100 us, such as a timer's interrupt takes from any loop
// (40 us in some virtual machines); gaps/s are those of more than 1 ms, and longest-ms
// is the longest. An event that comes at a random moment is seen by the
// next look; p99-ns is how late that is in 99 % of cases, at most, and so on.
// other-% is the time in which the loop could have run and other programs did, by
// the kernel's account: where it is not small, lost-% says more about them than
// about the collector.
func BenchmarkJitter(b *testing.B) { compare(b, jitterRows) }

var jitterRows = []row{
	{"impl=lwp/procs=2", func(b *testing.B) error { return jitter(b, spinOnThread, 2, 2) }},
	{"impl=lockedgoroutine/procs=2", func(b *testing.B) error { return jitter(b, spinOnGoroutine, 2, 2) }},
	{"impl=alone/procs=2", func(b *testing.B) error { return jitter(b, spinOnThread, 2, 0) }},
	{"impl=lwp/procs=4", func(b *testing.B) error { return jitter(b, spinOnThread, 4, 2) }},
	{"impl=lockedgoroutine/procs=4", func(b *testing.B) error { return jitter(b, spinOnGoroutine, 4, 2) }},
}

const (
	jitterLive = 100 << 20
	jitterOp   = int64(time.Millisecond)
	lostGap    = int64(10 * time.Microsecond)
	briefGap   = int64(100 * time.Microsecond) // at most
	longGap    = int64(time.Millisecond)
)

// A watch is what the loop has seen.
type watch struct {
	gate
	end         gate // where the loop waits until its account has been read
	tid         int
	n           int
	whole       int // milliseconds
	brief, lost int64
	longest     int64
	long        int
	delays
}

func spin(w *watch) {
	tid, _, _ := unix.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	w.tid = int(tid)
	w.pass()
	began := futex.Monotonic()
	last := began
	for end := began + int64(w.n)*jitterOp; last < end; {
		for range 4 {
			asm.Relax()
		}
		now := futex.Monotonic()
		gap := now - last
		w.add(gap)
		if gap > lostGap {
			w.lost += gap
			w.longest = max(w.longest, gap)
			if gap <= briefGap {
				w.brief += gap
			}
			if gap > longGap {
				w.long++
			}
		}
		last = now
	}
	w.whole = int((last - began) / jitterOp)
	w.end.pass()
}

// account runs load while the loop runs, and returns how long the loop has
// waited for its CPU.
func (w *watch) account(load func()) (waited time.Duration) {
	w.wait(1)
	load()
	before := runDelay(w.tid)
	w.release()
	w.end.wait(1)
	waited = runDelay(w.tid) - before
	w.end.release()
	return waited
}

// runDelay returns how long a task has waited for a CPU in its life.
func runDelay(tid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", tid))
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	ns, _ := strconv.ParseInt(f[1], 10, 64)
	return time.Duration(ns)
}

// spinOnThread has a thread of ours run spin on cpu, and the rest of Go elsewhere.
func spinOnThread(w *watch, cpu, rest unix.CPUSet, load func()) (waited time.Duration, err error) {
	if err := moveAll(rest); err != nil {
		return 0, err
	}
	t, err := lwp.StartAttr(spin, w, lwp.Attr{CPUs: cpu})
	if err != nil {
		return 0, err
	}
	waited = w.account(load)
	return waited, t.Join()
}

// spinOnGoroutine has a locked goroutine do it.
func spinOnGoroutine(w *watch, cpu, rest unix.CPUSet, load func()) (waited time.Duration, err error) {
	moved, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with the goroutine, and its CPU set with it.
		runtime.LockOSThread()
		err := moveAll(rest)
		if err == nil {
			err = unix.SchedSetaffinity(0, &cpu)
		}
		moved <- err
		if err == nil {
			spin(w)
		}
	}()
	if err = <-moved; err == nil {
		waited = w.account(load)
	}
	<-done
	return waited, err
}

func jitter(b *testing.B, spin func(w *watch, cpu, rest unix.CPUSet, load func()) (time.Duration, error), procs, garbage int) (err error) {
	var all, one, rest unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	if all.Count() < 2 {
		return skip("the loop and the rest of Go need a CPU each")
	}
	// One CPU is Go's and the next one the loop's, however many there are. The
	// first often has the machine's interrupts.
	for cpu := 0; one.Count() == 0; cpu++ {
		switch {
		case !all.IsSet(cpu):
		case rest.Count() == 0:
			rest.Set(cpu)
		default:
			one.Set(cpu)
		}
	}
	defer func() {
		if e := moveAll(all); err == nil {
			err = e
		}
	}()
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))

	live := makeLive(jitterLive)
	var stop atomic.Bool
	var makers sync.WaitGroup
	load := func() {
		for range garbage {
			makers.Go(func() { makeGarbage(&stop) })
		}
	}
	w := &watch{n: b.N}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	waited, err := spin(w, one, rest, load)
	b.StopTimer()
	stop.Store(true)
	makers.Wait()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(live)
	if err != nil {
		return err
	}
	if b.N > 1000 && garbage > 0 && after.NumGC == before.NumGC {
		return fmt.Errorf("the collector did not run")
	}
	spun := float64(int64(w.whole) * jitterOp)
	b.ReportMetric(100*float64(w.lost)/spun, "lost-%")
	b.ReportMetric(100*float64(w.brief)/spun, "brief-%")
	b.ReportMetric(float64(w.long)/spun*float64(time.Second), "gaps/s")
	b.ReportMetric(float64(w.longest)/1e6, "longest-ms")
	b.ReportMetric(100*float64(waited)/spun, "other-%")
	for _, p := range percentiles {
		reportPercentile(b, p, w.residual(p/100))
	}
	if w.whole < b.N {
		return did(w.whole, b.N)
	}
	return nil // a last gap can have lasted longer
}

// moveAll gives every task of the process the CPU set; those that the
// runtime makes later have it from them.
func moveAll(set unix.CPUSet) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, e := range tasks {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("sched_setaffinity: %w", err)
		}
	}
	return nil
}

type liveNode struct {
	left, right *liveNode
	_           [48]byte
}

// makeLive returns a tree of about size bytes for the collector to walk.
func makeLive(size int) *liveNode {
	depth := 0
	for 1<<depth*64 < size {
		depth++
	}
	var grow func(int) *liveNode
	grow = func(d int) *liveNode {
		n := new(liveNode)
		if d > 1 {
			n.left, n.right = grow(d-1), grow(d-1)
		}
		return n
	}
	return grow(depth)
}

var garbage [2]atomic.Pointer[liveNode]

func makeGarbage(stop *atomic.Bool) {
	for !stop.Load() {
		for range 1000 {
			garbage[0].Store(&liveNode{})
		}
	}
}
