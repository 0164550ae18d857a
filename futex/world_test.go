package futex_test

import (
	"flag"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

var gcLoop = flag.Bool("gcloop", false, "run the collector all the time")

func init() {
	// Tests are to run on threads that the runtime has made: of the first one a
	// dynamic linker can have taken the robust list, and it never ends.
	runtime.LockOSThread()
}

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(playRole(role))
	}
	flag.Parse()
	if *gcLoop {
		go func() {
			for {
				runtime.GC()
			}
		}()
	}
	os.Exit(m.Run())
}

// A world is one of everything, and what scenario bodies keep score with. Bodies
// are freestanding code: they take the world and nothing else, so that
// goroutines and our threads can run them alike, and count what is wrong in bad
// instead of reporting it.
type world struct {
	mu         futex.Mutex
	rw         futex.RWMutex
	cond, full futex.Cond
	sem, items futex.Semaphore
	ev         futex.Event
	bar        futex.Barrier
	wg         futex.WaitGroup
	once       futex.Once
	robust     futex.RobustMutex
	prio       futex.PIMutex

	n      int    // who run the body
	rounds int    // how often each does it
	ticket uint32 // see id
	stop   uint32
	bad    uint32

	plain, plain2 int // guarded by what is tested
	inside        int32
	shared        [64]int32
	ring          [4]int
	head, tail    int
}

// id numbers those who run a body, from 0.
func (w *world) id() int { return int(atomic.AddUint32(&w.ticket, 1) - 1) }

func (w *world) wrong() { atomic.AddUint32(&w.bad, 1) }

// A starter runs bodies on something; thread tests add theirs.
type starter struct {
	name    string
	offheap bool // the world is in mapped memory, which the race detector does not watch
	start   func(w *world, i int, body func(*world)) (join func())
}

var starters = []starter{
	{name: "goroutines", start: startGoroutine},
	{name: "goroutines-offheap", offheap: true, start: startGoroutine},
}

func startGoroutine(w *world, _ int, body func(*world)) (join func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		body(w)
	}()
	return func() { <-done }
}

// hang is how long a test waits for something before it calls it lost.
const hang = 2 * time.Minute

// play runs body n times at once on a fresh world for every starter, and
// checks. Every body must have ended in time: what hangs has lost a wake-up.
func play(t *testing.T, n, rounds int, setup func(*world), body func(*world), check func(*testing.T, *world)) {
	t.Helper()
	if testing.Short() {
		rounds = max(rounds/10, 1)
	}
	for _, s := range starters {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, s.offheap)
			w.n, w.rounds = n, rounds
			if setup != nil {
				setup(w)
			}
			var joins []func()
			for i := range n {
				joins = append(joins, s.start(w, i, body))
			}
			within(t, "the bodies to end", func() {
				for _, join := range joins {
					join()
				}
			})
			if w.bad != 0 {
				t.Errorf("%d violations", w.bad)
			}
			check(t, w)
		})
	}
}

func newWorld(t *testing.T, offheap bool) *world {
	if !offheap {
		return new(world)
	}
	size := (int(unsafe.Sizeof(world{})) + 4095) &^ 4095
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() { // somebody may hang in it
			unix.Munmap(mem)
		}
	})
	return (*world)(unsafe.Pointer(&mem[0]))
}

// within fails the test if f does not return in time.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(hang):
		buf := make([]byte, 1<<16)
		t.Fatalf("waited %v for %s\n%s", hang, what, buf[:runtime.Stack(buf, true)])
	}
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	if !comes(hang, f) {
		t.Fatalf("waited %v for %s", hang, what)
	}
}

// soon is how long a naive version gets to prove that it loses no wake-up.
const soon = 300 * time.Millisecond

// comes reports whether f holds before d is over.
func comes(d time.Duration, f func() bool) bool {
	for end := time.Now().Add(d); !f(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// word is the n-th 32-bit word of a primitive, which its sleepers wait on.
func word[T any](p *T, n uintptr) *uint32 {
	return (*uint32)(unsafe.Add(unsafe.Pointer(p), 4*n))
}

// sleepers counts who sleeps on addr: requeued onto the same word they stay
// where they are, in order, and the kernel returns how many there were.
func sleepers(addr *uint32) int {
	n, err := futex.Private.Requeue(addr, addr, 0, futex.All)
	if err != nil {
		panic(err)
	}
	return n
}

// asleep waits until n sleep on addr.
func asleep(t *testing.T, addr *uint32, n int) {
	t.Helper()
	eventually(t, "sleepers", func() bool { return sleepers(addr) == n })
}

// busy keeps the CPU for about d, in freestanding code.
func busy(d time.Duration) {
	for end := futex.Monotonic() + int64(d); futex.Monotonic() < end; {
		for range 10 {
			asm.Relax()
		}
	}
}

// A crew starts goroutines and waits for them at the end of a test.
type crew struct {
	t  *testing.T
	wg sync.WaitGroup
}

func newCrew(t *testing.T) *crew {
	c := &crew{t: t}
	t.Cleanup(func() { within(t, "goroutines to end", c.wg.Wait) })
	return c
}

// start runs f on a thread without signals, as our threads have none. The
// runtime's preemption signals would end timed waits, and send the others to the
// end of the kernel's queue or, if the word has changed, out of it.
func (c *crew) start(f func()) {
	c.startOpen(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var all, old unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
			c.t.Error(err)
		}
		f()
		unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	})
}

// startOpen runs f on a goroutine as it is.
func (c *crew) startOpen(f func()) { c.wg.Go(f) }

// enter takes a lock and gives it up.
func enter(m interface {
	Lock()
	Unlock()
}) {
	m.Lock()
	asm.Relax() // staticcheck takes an empty section for a mistake; a defer, without optimization, faults on a thread
	m.Unlock()
}

// visit does the same as a reader.
func visit(rw *futex.RWMutex) {
	rw.RLock()
	asm.Relax()
	rw.RUnlock()
}

// mustPanic checks that f panics with want.
func mustPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := recover(); got != want {
			t.Errorf("panic %v, want %q", got, want)
		}
	}()
	f()
}
