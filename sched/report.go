package sched

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"lwprt/asm"
)

// A FiberInfo is what is known of a fiber at one time.
type FiberInfo struct {
	Fiber     Fiber
	Name      string
	State     string        // what it does: ready, running, parked, ...
	Reason    string        // what it waits for, as Park was told
	For       time.Duration // how long, roughly: to within what its worker took for some hundred switches
	Worker    int           // where it runs or has run last, the first being 1; 0 if it has not run
	StackSize int           // in bytes
	StackUsed int           // most that it, or a fiber that had the slot before, has used
	Trace     []uintptr     // return addresses, innermost first; none of a fiber that runs
}

// String returns i as text: a line, then its trace as Frames has it.
func (i FiberInfo) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "fiber %v", i.Fiber)
	if i.Name != "" {
		fmt.Fprintf(&b, " (%s)", i.Name)
	}
	fmt.Fprintf(&b, ": %s", i.State)
	if i.Reason != "" && i.Reason != i.State {
		fmt.Fprintf(&b, ": %s", i.Reason)
	}
	if i.For > 0 {
		fmt.Fprintf(&b, ", %v", i.For.Round(time.Microsecond))
	}
	if i.Worker > 0 {
		fmt.Fprintf(&b, ", worker %d", i.Worker)
	}
	fmt.Fprintf(&b, ", stack %d of %d\n", i.StackUsed, i.StackSize)
	i.each(func(fr runtime.Frame) {
		fmt.Fprintf(&b, "\t%s\n\t\t%s:%d\n", fr.Function, fr.File, fr.Line)
	})
	return b.String()
}

// each calls do for the calls of i's trace that are the program's, and for the
// one into this package.
func (i FiberInfo) each(do func(runtime.Frame)) {
	if len(i.Trace) == 0 {
		return
	}
	frames := runtime.CallersFrames(i.Trace)
	for {
		fr, more := frames.Next()
		if !strings.HasPrefix(fr.Function, "lwprt/asm.") && !internal(fr.Function) {
			do(fr)
		}
		if !more {
			return
		}
	}
}

// internal says whether a function is one of this package that its users do not call.
func internal(name string) bool {
	name, ok := strings.CutPrefix(name, "lwprt/sched.")
	if _, method, is := strings.Cut(name, ")."); is {
		name = method
	}
	return ok && name[0] >= 'a' && name[0] <= 'z'
}

// String returns the number of the fiber's slot and that of the fiber in it.
func (h Fiber) String() string { return fmt.Sprintf("%d.%d", h.at, h.serial) }

// A DeadlockError says that no fiber can go on: every worker is idle, no timer
// runs, no Blocking call and no Hold is outstanding, and these fibers wait. For
// a thread, none are listed.
type DeadlockError struct{ Fibers []FiberInfo }

func (e *DeadlockError) Error() string {
	return "sched: deadlock: " + list(e.Fibers, "wait and nothing can wake them", "waits and nothing can wake it")
}

// Unwrap returns ErrDeadlock.
func (e *DeadlockError) Unwrap() error { return ErrDeadlock }

// A LeftError lists the fibers that had not ended when the time was up.
type LeftError struct{ Fibers []FiberInfo }

func (e *LeftError) Error() string {
	return "sched: shutdown: " + list(e.Fibers, "have not ended", "has not ended")
}

func list(fibers []FiberInfo, do, does string) string {
	var b strings.Builder
	if len(fibers) == 1 {
		do = "1 fiber " + does
	} else {
		do = fmt.Sprintf("%d fibers %s", len(fibers), do)
	}
	b.WriteString(do)
	b.WriteString("\n")
	const most = 100
	for i, f := range fibers {
		if i == most {
			fmt.Fprintf(&b, "and %d more\n", len(fibers)-most)
			break
		}
		b.WriteString(f.String())
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// report returns the deadlock that settle has found.
func (c *core) report() error {
	if asm.Current() != nil {
		return ErrDeadlock // no heap here for a list
	}
	return &DeadlockError{c.fibers(true)}
}

// fibers returns what is known of the fibers of c: of all whose slots are in
// use, or of those that have not ended.
func (c *core) fibers(unended bool) (infos []FiberInfo) {
	now := asm.Cycles()
	rate := tickRate()
	for class := range c.pools {
		p := &c.pools[class]
		p.mu.Lock()
		var chunks []*chunk
		for _, l := range []uintptr{p.chunk, p.chunks} {
			for l != 0 {
				k := (*chunk)(pointer(l))
				chunks = append(chunks, k)
				if l == p.chunk {
					break // its next is not of this list
				}
				l = k.next
			}
		}
		p.mu.Unlock()
		for _, k := range chunks {
			for i := range k.used {
				if info, ok := k.fiberAt(i).info(now, rate); ok && (!unended || info.State != stateNames[gone]) {
					infos = append(infos, info)
				}
			}
		}
	}
	return infos
}

// info describes f, if its slot is in use. A look at a fiber that runs
// meanwhile is repeated, and in the end given up: then there is no trace.
func (f *fiber) info(now uint64, rate float64) (i FiberInfo, ok bool) {
	for range 3 {
		serial := atomic.LoadUint64(&f.serial)
		state := atomic.LoadUint32(&f.state)
		word := atomic.LoadUint64(&f.word)
		if state == gone && uint32(word) != over {
			return i, false
		}
		lo, hi := f.stack()
		i = FiberInfo{Fiber: f.handle(), State: stateNames[state], StackSize: int(hi - lo), StackUsed: int(hi - lowest(lo, hi))}
		if f.flags&hasName != 0 {
			n := 0
			for n < len(f.name) && f.name[n] != 0 {
				n++
			}
			i.Name = string(f.name[:n])
		}
		w := f.on()
		if w != nil {
			i.Worker = w.id + 1
		}
		switch state {
		case parked, waits, joining, sleeping, blocking:
			if state == waits {
				i.Reason = whyNames[f.reasonLen&^isWait%uint32(len(whyNames))]
			} else if f.reasonLen < 1<<16 && state != joining {
				i.Reason = unsafe.String((*byte)(pointer(f.reason)), f.reasonLen)
			}
			if f.since != 0 && now > f.since && state != joining {
				i.For = time.Duration(float64(now-f.since) / rate)
			}
			fallthrough
		case runnable:
			if w != nil && state == runnable && atomic.LoadUintptr(&w.current) == uintptr(unsafe.Pointer(f)) {
				i.State = "running"
			} else if !f.Fresh() {
				i.Trace = trace(f.Top(), f.BP, lo, hi)
			}
		}
		if atomic.LoadUint32(&f.state) == state && atomic.LoadUint64(&f.serial) == serial {
			return i, true
		}
	}
	i.Trace = nil
	return i, true
}

// lowest returns the lowest address of the stack that has been written to:
// memory from the kernel is zero.
func lowest(lo, hi uintptr) uintptr {
	for lo < hi && *(*uint64)(pointer(lo)) == 0 {
		lo += 8
	}
	return lo
}

// trace walks the frame pointers of a context that does not run.
func trace(sp, bp, lo, hi uintptr) (pcs []uintptr) {
	if sp < lo || sp >= hi-8 || sp%8 != 0 {
		return nil
	}
	pcs = append(pcs, *(*uintptr)(pointer(sp)))
	for len(pcs) < 64 && lo <= bp && bp < hi-16 && bp%8 == 0 {
		frame := (*[2]uintptr)(pointer(bp))
		pcs = append(pcs, frame[1])
		if frame[0] <= bp {
			break
		}
		bp = frame[0]
	}
	return pcs
}

// tickRate returns how many ticks of the cycle counter a nanosecond has.
func tickRate() float64 {
	d := float64(time.Since(epoch.time))
	if d < 1e6 {
		time.Sleep(time.Millisecond)
		d = float64(time.Since(epoch.time))
	}
	return max(float64(asm.Cycles()-epoch.ticks)/d, 1e-3)
}

var epoch = struct {
	time  time.Time
	ticks uint64
}{time.Now(), asm.Cycles()}

// Stats are counts since the scheduler was made, of one worker or of all.
type Stats struct {
	Spawns   uint64 // fibers spawned by fibers
	Ends     uint64 // fibers that have ended
	Switches uint64 // from one fiber, or the search for one, to another
	Steals   uint64 // visits to another worker's queue that brought something
	Stolen   uint64 // fibers so taken
	Wakes    uint64 // fibers made ready that had stopped
	Parks    uint64 // times that a worker went to sleep
	Spins    uint64 // rounds of looking for work before that
}

// Stats returns the counts of all workers together. Those of workers that run
// are as of some moment ago.
//
// Context: goroutine.
func (s *Scheduler) Stats() (sum Stats) {
	for i := range s.Workers() {
		w := s.WorkerStats(i + 1)
		sum.Spawns += w.Spawns
		sum.Ends += w.Ends
		sum.Switches += w.Switches
		sum.Steals += w.Steals
		sum.Stolen += w.Stolen
		sum.Wakes += w.Wakes
		sum.Parks += w.Parks
		sum.Spins += w.Spins
	}
	return sum
}

// WorkerStats returns the counts of one worker, the first being 1; none of one
// that there is not.
//
// Context: goroutine.
func (s *Scheduler) WorkerStats(worker int) Stats {
	c := s.use()
	if c == nil {
		return Stats{}
	}
	defer s.unuse()
	if worker < 1 || worker > len(c.workers) {
		return Stats{}
	}
	w := &c.workers[worker-1].stats
	return Stats{
		Spawns: atomic.LoadUint64(&w.spawns), Ends: atomic.LoadUint64(&w.ends), Switches: atomic.LoadUint64(&w.switches) + pollInterval - uint64(atomic.LoadUint32(&c.workers[worker-1].tick)),
		Steals: atomic.LoadUint64(&w.steals), Stolen: atomic.LoadUint64(&w.stolen), Wakes: atomic.LoadUint64(&w.wakes),
		Parks: atomic.LoadUint64(&w.idles), Spins: atomic.LoadUint64(&w.spins),
	}
}
