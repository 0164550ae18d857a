// Command watchdog watches the clock in a loop while the garbage collector
// works, first on a kernel thread that the Go runtime does not know, then on a
// goroutine that is locked to its thread, and prints how long each was kept
// from looking.
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
)

const (
	watchFor = 1500 * time.Millisecond // each
	alive    = 100 << 20               // bytes for the collector to walk
	late     = 10 * time.Microsecond   // from here on a gap counts as lost time
)

// A gap between two looks falls into the last class that it reaches.
var classes = [...]time.Duration{0, late, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}

// A watchdog is what the loop is told, and what it has seen.
type watchdog struct {
	ready, start, seen, leave futex.Event

	tid     int
	looks   int
	took    int64 // nanoseconds, as the others
	lost    int64
	longest int64
	gaps    [len(classes)]int
}

// watch is the loop. It is the same code for both.
func watch(w *watchdog) {
	tid, _, _ := unix.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	w.tid = int(tid)
	w.ready.Set()
	w.start.Wait()
	began := futex.Monotonic()
	last := began
	for last-began < int64(watchFor) {
		for range 4 {
			asm.Relax()
		}
		now := futex.Monotonic()
		gap := now - last
		class := 0
		for class+1 < len(classes) && gap >= int64(classes[class+1]) {
			class++
		}
		w.gaps[class]++
		w.looks++
		if gap >= int64(late) {
			w.lost += gap
			w.longest = max(w.longest, gap)
		}
		last = now
	}
	w.took = last - began
	w.seen.Set()
	w.leave.Wait() // while main asks the kernel about this thread
}

// onThread runs watch on a thread of ours. Everything else of the program, all
// of Go, runs elsewhere.
func onThread(w *watchdog, own, others unix.CPUSet) (join func() error, err error) {
	if err := move(others); err != nil {
		return nil, err
	}
	t, err := lwp.StartAttr(watch, w, lwp.Attr{Name: "watchdog", CPUs: own})
	return t.Join, err
}

// onGoroutine runs watch on a goroutine, with a thread and a CPU of its own.
func onGoroutine(w *watchdog, own, others unix.CPUSet) (join func() error, err error) {
	moved, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		err := move(others)
		if err == nil {
			err = unix.SchedSetaffinity(0, &own)
		}
		moved <- err
		if err == nil {
			watch(w)
		}
	}()
	return func() error { <-done; return nil }, <-moved
}

// move gives all threads of the process the CPU set; those that the runtime
// makes later have it from these.
func move(set unix.CPUSet) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH { // it can have ended
			return err
		}
	}
	return nil
}

// waited returns how long a thread has waited for its CPU, in its life: time
// that other programs had there.
func waited(tid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/schedstat", tid))
	f := strings.Fields(string(b))
	if err != nil || len(f) < 2 {
		return 0
	}
	ns, _ := strconv.ParseInt(f[1], 10, 64)
	return time.Duration(ns)
}

type node struct {
	left, right *node
	_           [48]byte
}

func tree(depth int) *node {
	if depth == 0 {
		return nil
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

var garbage atomic.Pointer[node]

// measure has a watchdog watch while two goroutines make garbage.
func measure(start func(w *watchdog, own, others unix.CPUSet) (func() error, error), own, others unix.CPUSet) error {
	w := &watchdog{}
	join, err := start(w, own, others)
	if err != nil {
		return err
	}
	w.ready.Wait()

	var stop atomic.Bool
	var makers sync.WaitGroup
	for range 2 {
		makers.Go(func() {
			for !stop.Load() {
				garbage.Store(&node{})
			}
		})
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	cycles, others0 := stats.NumGC, waited(w.tid)
	w.start.Set()
	w.seen.Wait()
	otherPrograms := waited(w.tid) - others0
	runtime.ReadMemStats(&stats)
	stop.Store(true)
	makers.Wait()
	w.leave.Set()
	if err := join(); err != nil {
		return err
	}

	fmt.Printf("   %d collections, %d looks at the clock\n", stats.NumGC-cycles, w.looks)
	most := 1
	for _, n := range w.gaps[1:] {
		most = max(most, n)
	}
	for i, n := range w.gaps {
		name := "below " + classes[1].String()
		if i > 0 {
			name = "from " + classes[i].String()
		}
		bar := ""
		if i > 0 {
			bar = " " + strings.Repeat("#", (40*n+most-1)/most)
		}
		fmt.Printf("   gaps %-12s %9d%s\n", name, n, bar)
	}
	fmt.Printf("   lost %.2f%% of the time, the longest gap is %.3f ms\n", 100*float64(w.lost)/float64(w.took), float64(w.longest)/1e6)
	fmt.Printf("   others had its CPU for %.2f%% of the time\n", 100*float64(otherPrograms)/float64(w.took))
	return nil
}

func run() error {
	var may, own, others unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return err
	}
	where := "the watchdog has one, all of Go the other"
	for cpu := 0; others.Count() == 0 && cpu < 1024; cpu++ {
		if may.IsSet(cpu) {
			if own.Count() == 0 {
				own.Set(cpu)
			} else {
				others.Set(cpu)
			}
		}
	}
	if others.Count() == 0 {
		others = own
		where = "there is only one, and the watchdog shares it with Go: this says little"
	}
	runtime.GOMAXPROCS(4) // enough for a goroutine that never lets go of one
	debug.SetGCPercent(20)
	depth := 1
	for 64<<depth < alive {
		depth++
	}
	live := tree(depth)
	fmt.Printf("%d MB are alive, two goroutines make garbage, GOGC=20. Of the CPUs\n%s. %v each.\n", alive>>20, where, watchFor)

	fmt.Println("\n1. A thread of package lwp")
	first := measure(onThread, own, others)
	fmt.Println("\n2. A goroutine that is locked to its thread")
	second := measure(onGoroutine, own, others)
	runtime.KeepAlive(live)
	if err := errors.Join(first, second); err != nil {
		return err
	}
	fmt.Print("\nThe runtime stops every goroutine for the phases of a collection, and a P that the\n" +
		"collector or another goroutine takes is one that this goroutine waits for, whatever\n" +
		"thread it is locked to. It does not know of the thread in 1.\n")
	return nil
}

func main() {
	if err := run(); err != nil {
		log.Fatal("watchdog: ", err)
	}
}
