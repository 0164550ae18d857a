// Package lwptest helps tests that start threads with package lwp: leak
// checks, tests that run in a process of their own, skips with a reason, and
// what freestanding test code needs to report without the Go runtime.
package lwptest

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
)

// How far the usage of a process may drift while it leaks nothing. A test that
// looks for a leak repeats what it tests until a leak would be larger.
const (
	// The Go heap grows by arenas and the table of records by chunks, and the
	// runtime makes threads and files as it goes.
	mappingSlack  = 64
	residentSlack = 16 << 20
	// One arena of the Go heap is 64 MiB, and the C library's, if one is
	// linked in, are as large for every thread of Go's.
	anonymousSlack = 192 << 20
)

// usage is what a process holds.
type usage struct {
	threads    int // of package lwp, by its own count
	tasks      int // of package lwp, by the kernel's
	goroutines int
	files      int
	mappings   int
	anonymous  int // bytes mapped writable without a file
	resident   int // bytes
}

// Leaks checks, when the test has ended, that the process is back where it is
// now: threads of package lwp, goroutines and descriptors exactly, mappings,
// mapped memory and resident memory but for some slack. What a test registers
// by Cleanup after this call is undone before the check.
func Leaks(t testing.TB) {
	t.Helper()
	warm()
	before := measure()
	// A thread of Go's that is just being made looks like one of ours.
	for end := time.Now().Add(time.Second); before.tasks > before.threads && time.Now().Before(end); {
		before = measure()
	}
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return // what is left then is a consequence
		}
		t.Helper()
		var now usage
		pause := 100 * time.Microsecond // most often it is a matter of moments
		for end := time.Now().Add(patience); ; time.Sleep(pause) {
			if now = measure(); before.covers(now) {
				return
			}
			if time.Now().After(end) {
				break
			}
			pause = min(2*pause, 5*time.Millisecond)
		}
		t.Errorf("the test leaks\nbefore: %v\nafter:  %v\nthreads left: %v", before, now, lwp.Threads())
	})
}

func (u usage) covers(now usage) bool {
	return now.threads <= u.threads && now.tasks <= u.tasks && now.goroutines <= u.goroutines &&
		now.files <= u.files && now.mappings <= u.mappings+mappingSlack &&
		now.anonymous <= u.anonymous+anonymousSlack && now.resident <= u.resident+residentSlack
}

func (u usage) String() string {
	return fmt.Sprintf("threads %d, tasks %d, goroutines %d, files %d, mappings %d, anonymous %d KiB, resident %d KiB",
		u.threads, u.tasks, u.goroutines, u.files, u.mappings, u.anonymous>>10, u.resident>>10)
}

// warm brings to life what Go and package lwp make at first use and keep.
var warm = sync.OnceFunc(func() {
	var wg sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) { // Go's threads for goroutines in system calls
		wg.Go(func() {
			ts := unix.NsecToTimespec(int64(5 * time.Millisecond))
			unix.Nanosleep(&ts, nil)
		})
	}
	wg.Wait()
	if r, w, err := os.Pipe(); err == nil { // the poller's descriptors
		r.Close()
		w.Close()
	}
	c := make(chan os.Signal, 1) // the goroutine that hands out signals
	signal.Notify(c, unix.SIGUSR2)
	signal.Stop(c)
	if th, err := lwp.Start(func(*int) {}, new(int)); err == nil {
		<-th.Done() // and the goroutines that serve threads
		th.Join()
	}
})

func measure() (u usage) {
	lwp.Trim()
	debug.FreeOSMemory() // collects first
	lwp.Trim()           // what only the collection has let go
	u.threads = len(lwp.Threads())
	u.goroutines = runtime.NumGoroutine()
	u.tasks = len(Tasks())
	u.files = len(entries("/proc/self/fd"))
	u.mappings, u.anonymous = mappings()
	if f := strings.Fields(read("/proc/self/statm")); len(f) > 1 && !Emulated() { // qemu-user keeps some memory of every thread
		pages, _ := strconv.Atoi(f[1])
		u.resident = pages * os.Getpagesize()
	}
	return u
}

// Tasks returns the IDs of the kernel's tasks of this process that have the
// signal mask of package lwp's threads. They are born with every signal
// blocked, as Go's are for moments, when they make another. It returns nil where /proc shows another
// process's masks: an emulator's.
func Tasks() []int {
	if Emulated() {
		return nil
	}
	var ids []int
	for _, name := range entries("/proc/self/task") {
		mask, err := SignalMask("/proc/self/task/" + name)
		if err == nil && (mask == ThreadMask || mask == AllSignals) {
			id, _ := strconv.Atoi(name)
			ids = append(ids, id)
		}
	}
	return ids
}

// AllSignals is the fullest signal mask there is: SIGKILL and SIGSTOP cannot be blocked.
const AllSignals = ^uint64(1<<(unix.SIGKILL-1) | 1<<(unix.SIGSTOP-1))

// ThreadMask is the mask of package lwp's threads: all signals but those that
// an instruction can cause.
const ThreadMask = AllSignals &^ (1<<(unix.SIGSEGV-1) | 1<<(unix.SIGBUS-1) | 1<<(unix.SIGFPE-1) |
	1<<(unix.SIGILL-1) | 1<<(unix.SIGTRAP-1) | 1<<(unix.SIGSYS-1))

// SignalMask returns the mask of blocked signals of the task in dir, a
// directory such as /proc/self/task/TID.
func SignalMask(dir string) (uint64, error) {
	_, rest, ok := strings.Cut(read(dir+"/status"), "\nSigBlk:")
	if !ok {
		return 0, fmt.Errorf("no SigBlk in %s/status", dir)
	}
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseUint(strings.TrimSpace(line), 16, 64)
}

func mappings() (n, anonymous int) {
	s := bufio.NewScanner(bytes.NewReader([]byte(read("/proc/self/maps"))))
	for s.Scan() {
		n++
		f := strings.Fields(s.Text())
		if len(f) < 5 || !strings.HasPrefix(f[1], "rw") || f[4] != "0" {
			continue
		}
		lo, hi, _ := strings.Cut(f[0], "-")
		from, _ := strconv.ParseUint(lo, 16, 64)
		to, _ := strconv.ParseUint(hi, 16, 64)
		anonymous += int(to - from)
	}
	return n, anonymous
}

func entries(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}

func read(name string) string {
	b, _ := os.ReadFile(name)
	return string(b)
}

// NumTasks returns how many threads this process has, the Go runtime's included.
func NumTasks() int { return len(entries("/proc/self/task")) }
