package sched

import (
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

// timers are the instants that fibers wait for: a heap with four children to a
// node, which is half as deep as one with two and has a node's children in one
// cache line. A fiber has at most one, and knows its place.
type timers struct {
	mu    futex.Mutex
	heap  uintptr // of timer, from 1
	n     uint64
	room  uint64
	first atomic.Int64 // when the first is due, 0 if there is none; written under mu
	armed atomic.Uint32
}

type timer struct {
	at int64 // on the monotonic clock
	f  uintptr
}

func (t *timers) item(i uint64) *timer {
	return (*timer)(pointer(t.heap + uintptr(i)*unsafe.Sizeof(timer{})))
}

// set puts x in place i.
func (t *timers) set(i uint64, x timer) {
	*t.item(i) = x
	(*fiber)(pointer(x.f)).timer = i
}

// parent and children of place i, places counted from 1.
func parent(i uint64) uint64     { return (i + 2) / 4 }
func firstChild(i uint64) uint64 { return 4*i - 2 }

func (t *timers) up(i uint64, x timer) {
	for i > 1 {
		p := t.item(parent(i))
		if p.at <= x.at {
			break
		}
		t.set(i, *p)
		i = parent(i)
	}
	t.set(i, x)
}

func (t *timers) down(i uint64, x timer) {
	for {
		c := firstChild(i)
		if c > t.n {
			break
		}
		least := c
		for k := c + 1; k <= min(c+3, t.n); k++ {
			if t.item(k).at < t.item(least).at {
				least = k
			}
		}
		if x.at <= t.item(least).at {
			break
		}
		t.set(i, *t.item(least))
		i = least
	}
	t.set(i, x)
}

// remove takes out what is in place i.
func (t *timers) remove(i uint64) {
	(*fiber)(pointer(t.item(i).f)).timer = 0
	last := *t.item(t.n)
	t.n--
	if i <= t.n {
		if i > 1 && last.at < t.item(parent(i)).at {
			t.up(i, last)
		} else {
			t.down(i, last)
		}
	}
	t.publish()
}

// publish follows a change; under mu.
func (t *timers) publish() {
	at := int64(0)
	if t.n > 0 {
		at = max(t.item(1).at, 1)
	}
	if at != t.first.Load() {
		t.first.Store(at)
	}
	t.armed.Store(uint32(min(t.n, 1)))
}

// grow makes room for another timer; under mu.
func (t *timers) grow() syscall.Errno {
	size := uintptr(t.room) * unsafe.Sizeof(timer{})
	var addr uintptr
	var errno syscall.Errno
	if size == 0 {
		size = 16 << 10
		addr, _, errno = unix.RawSyscall6(unix.SYS_MMAP, 0, size, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uintptr(0), 0)
	} else {
		addr, _, errno = unix.RawSyscall6(unix.SYS_MREMAP, t.heap, size, 2*size, unix.MREMAP_MAYMOVE, 0, 0)
		size *= 2
	}
	if errno != 0 {
		return errno
	}
	t.heap, t.room = addr, uint64(size/unsafe.Sizeof(timer{}))
	return 0
}

func (t *timers) drop() {
	if t.heap != 0 {
		munmap(pointer(t.heap), uintptr(t.room)*unsafe.Sizeof(timer{}))
		t.heap, t.room = 0, 0
	}
}

// arming is the argument of arm's part on the worker's stack.
type arming struct {
	f     uintptr
	at    int64
	errno syscall.Errno
}

// arm has f fire at an instant of the monotonic clock.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) arm(f *fiber, at int64) syscall.Errno {
	a := arming{f: uintptr(unsafe.Pointer(f)), at: at}
	w.call(armFn, noescape(unsafe.Pointer(&a)))
	return a.errno
}

// disarm takes f's timer back, if it has not fired yet.
//
//go:nosplit // a stack that runs out must not do so here: see fiber
func (w *worker) disarm(f *fiber) { w.call(disarmFn, unsafe.Pointer(f)) }

var (
	armFn = func(p unsafe.Pointer) {
		a := (*arming)(p)
		f := (*fiber)(pointer(a.f))
		c := f.core()
		t := &c.timers
		t.mu.Lock()
		if t.n+2 > t.room {
			if a.errno = t.grow(); a.errno != 0 {
				t.mu.Unlock()
				return
			}
		}
		t.n++
		t.up(t.n, timer{a.at, a.f})
		t.publish()
		first := f.timer == 1
		t.mu.Unlock()
		if first {
			c.retime(a.at)
		}
	}
	disarmFn = func(p unsafe.Pointer) {
		f := (*fiber)(p)
		t := &f.core().timers
		t.mu.Lock()
		if f.timer != 0 {
			t.remove(f.timer)
		}
		t.mu.Unlock()
	}
)

// expire fires the timers that are due; on the worker's own stack.
func (t *timers) expire(w *worker) {
	first := t.first.Load()
	if first == 0 || w.early(first) {
		return
	}
	now := futex.Monotonic()
	w.synced(now)
	t.mu.Lock()
	for t.n > 0 && t.item(1).at <= now {
		f := (*fiber)(pointer(t.item(1).f))
		t.remove(1)
		f.fire()
	}
	t.mu.Unlock()
}

// clock is what a worker remembers of its last reading of the monotonic clock,
// a system call that can cost as much as a hundred switches. It reads the
// cycle counter instead, and the clock only when that says that timerSlack may
// have passed.
type clock struct {
	at    int64  // monotonic clock, in ns
	ticks uint64 // cycle counter
	wait  uint64 // ticks that shall pass before the clock is read again
}

// early says that the clock need not be read for a timer that is due at at.
func (w *worker) early(at int64) bool {
	k := &w.now
	return at > k.at && w.clock-k.ticks < k.wait
}

// synced notes what the clock shows, and how many ticks timerSlack is by the
// time since the last reading.
func (w *worker) synced(now int64) {
	k := &w.now
	if ns, d := now-k.at, w.clock-k.ticks; k.at != 0 && ns > 0 && d < 1<<40 {
		k.wait = d * timerSlack / uint64(ns)
	}
	k.at, k.ticks = now, w.clock
}

// timerSlack is how late, in ns, a worker that is busy may be to fire a timer,
// beside the time that its fibers take for pollInterval switches.
const timerSlack = 50_000
