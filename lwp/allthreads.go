package lwp

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// One system call on every thread.
//
// Credentials, capabilities and much of prctl(2) are a thread's own to the
// kernel. The runtime makes such a call on each of its threads with the world
// stopped (syscall.AllThreadsSyscall), but does not know ours; and ours do not
// stop for it. The protocol:
//
//  1. No thread of ours can come to be: the caller holds procs.mu and table.mu,
//     which every start takes first, and waits until those that are between
//     that and their clone are born, or have failed.
//  2. Every thread that lives is summoned: its record is marked, and it gets
//     SIGSYS, one of the signals that our threads take. The handler finds the
//     mark, counts itself as arrived, and sleeps. A thread that ends in place
//     of that clears its exit word, and is counted as gone; one that has
//     arrived cannot end.
//  3. When all have arrived or gone, no code of ours runs, and nothing has been
//     changed. If that takes too long, because a thread has the signal
//     blocked, all are let go, and the call is an error.
//  4. The runtime makes the call on its threads, the first time on one. If that
//     fails, all are let go, and the errno is the caller's.
//  5. Otherwise each thread makes the call, compares its result with the
//     runtime's, and is counted as done. When all are, they are let go.
//
// Neither side sees a thread of its own with the old state and another with
// the new. Threads started afterwards inherit the new one from who starts them.
var everyone everyoneT

type everyoneT struct {
	mu sync.Mutex // one call at a time; guards what follows, with the threads all asleep

	phase    uint32 // futex word: round<<2 | one of the phases
	arrived  uint32 // threads, and
	done     uint32 // threads that have made the call
	progress uint32 // futex word: changes with the two above

	trap   uintptr
	args   [6]uintptr
	result uintptr // what the runtime's threads got
	nbad   uint32
	bad    [16]differs
}

// differs is a thread's result that is not everyone's.
type differs struct{ tid, result, errno uintptr }

const (
	phaseIdle = iota
	phaseGather
	phaseCall
	phaseMask = 3
)

// gatherPatience bounds step 3.
var gatherPatience = 10 * time.Second

// AllThreadsSyscall makes a system call on every thread of the process: those
// of this package, CloneThread's included, and those of the Go runtime. It is
// what setuid(2) and its like need:
//
//	_, err := lwp.AllThreadsSyscall(unix.SYS_SETRESUID, uid, uid, uid)
//
// Where the call fails, it has failed on one thread and not been made on
// others. Where the results of threads do not agree, the error is a
// *ThreadsError. The program ends if the results of the runtime's own do not,
// as with syscall.AllThreadsSyscall.
//
// What a thread of this package waits in meanwhile may return EINTR. Pointers
// among the arguments must lead to memory that does not move: not a
// goroutine's stack.
//
// Context: goroutine. The world stops, and so do the threads. It waits for
// goroutines in VFork.
// Errors: ErrHosted on a thread; ErrUnreached, and then no thread has made the
// call; *ThreadsError; syscall.Errno, ENOTSUP with cgo in the program.
// Source: nptl(7), signal(7), tgkill(2).
func AllThreadsSyscall(trap, a1, a2, a3 uintptr) (r1 uintptr, err error) {
	return AllThreadsSyscall6(trap, a1, a2, a3, 0, 0, 0)
}

// AllThreadsSyscall6 is AllThreadsSyscall with six arguments.
func AllThreadsSyscall6(trap, a1, a2, a3, a4, a5, a6 uintptr) (r1 uintptr, err error) {
	if asm.Current() != nil {
		return 0, ErrHosted
	}
	e := &everyone
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trap, e.args = trap, [6]uintptr{a1, a2, a3, a4, a5, a6}
	e.nbad = 0

	asm.Headroom()
	procs.mu.Lock()
	defer procs.mu.Unlock()
	table.mu.Lock()
	defer table.mu.Unlock()
	all, ok := living()
	if !ok {
		return 0, ErrUnreached
	}
	if len(all) > 0 && !asm.HasFaultEntry(unix.SIGSYS) {
		return 0, ErrUnreached // somebody has taken the signal
	}
	if !e.gather(all) {
		return 0, ErrUnreached
	}
	r1, _, errno := syscall.AllThreadsSyscall6(trap, a1, a2, a3, a4, a5, a6)
	if errno != 0 {
		e.enter(phaseIdle)
		return r1, errno
	}
	e.result = r1
	n := atomic.LoadUint32(&e.arrived)
	e.enter(phaseCall)
	e.await(time.Time{}, func() bool { return atomic.LoadUint32(&e.done) == n })
	e.enter(phaseIdle)
	if e.nbad > 0 {
		return r1, newThreadsError(r1)
	}
	return r1, nil
}

// A summons is what the caller knows of a thread: where it is marked, and the
// words that tell its ID and its end.
type summons struct {
	mark, exit *uint32
	tid        int
}

// living returns the threads that live, when none is about to; the caller
// holds the locks that starts need.
func living() (all []summons, ok bool) {
	for end := time.Now().Add(gatherPatience); ; time.Sleep(20 * time.Microsecond) {
		if all, ok = lookAround(); ok || time.Now().After(end) {
			return all, ok
		}
	}
}

func lookAround() (all []summons, ok bool) {
	ok = true
	for i := uint32(1); i <= table.count.Load(); i++ {
		r := recordAt(i)
		if r.word.Load()&indexMask == 0 || r.flags&pooled != 0 {
			continue
		}
		switch tid := atomic.LoadUint32(&r.exit); {
		case tid != 0:
			all = append(all, summons{&r.summoned, &r.exit, int(tid)})
		case atomic.LoadUint32(&r.tid) == 0:
			ok = false // not born; or as good as gone, which finish tells
		}
	}
	for i := uint32(1); i <= procs.count; i++ {
		r := procAt(i)
		if r.gen%2 == 0 || r.flags&CloneThread == 0 || atomic.LoadUint32(&r.exit) == 0 {
			continue
		}
		tid := atomic.LoadInt32(&r.pid)
		ok = ok && tid != 0
		all = append(all, summons{&r.summoned, &r.exit, int(tid)})
	}
	return all, ok
}

// enter lets the threads go on into a phase.
func (e *everyoneT) enter(phase uint32) {
	atomic.StoreUint32(&e.phase, atomic.LoadUint32(&e.phase)&^phaseMask|phase)
	futex.Wake(&e.phase, futex.All)
}

// gather has all threads arrive, or lets go those that have.
func (e *everyoneT) gather(all []summons) bool {
	atomic.StoreUint32(&e.arrived, 0)
	atomic.StoreUint32(&e.done, 0)
	round := atomic.LoadUint32(&e.phase)>>2 + 1
	atomic.StoreUint32(&e.phase, round<<2|phaseGather)
	pid := getpid()
	for _, s := range all {
		atomic.StoreUint32(s.mark, 1)
		unix.RawSyscall(unix.SYS_TGKILL, uintptr(pid), uintptr(s.tid), uintptr(unix.SIGSYS))
	}
	met := e.await(time.Now().Add(gatherPatience), func() bool {
		gone := 0
		for _, s := range all {
			if atomic.LoadUint32(s.exit) == 0 {
				gone++
			}
		}
		return int(atomic.LoadUint32(&e.arrived))+gone >= len(all)
	})
	if !met {
		e.enter(phaseIdle)
	}
	return met
}

// await waits until f holds, or end. The end of a thread is not announced, so
// it looks now and then.
func (e *everyoneT) await(end time.Time, f func() bool) bool {
	for {
		v := atomic.LoadUint32(&e.progress)
		if f() {
			return true
		}
		if !end.IsZero() && time.Now().After(end) {
			return false
		}
		futex.WaitFor(&e.progress, v, time.Millisecond)
	}
}

// attend is the handler's part. It says whether the signal was a summons.
func (c *control) attend(sig int) bool {
	if sig != int(unix.SIGSYS) {
		return false
	}
	var mark *uint32
	if c.proc.on {
		if c.proc.record == 0 {
			return false
		}
		mark = &(*procRecord)(pointer(c.proc.record)).summoned
	} else {
		mark = &recordAt(c.index).summoned
	}
	if atomic.SwapUint32(mark, 0) == 0 {
		return false
	}
	e := &everyone
	phase := atomic.LoadUint32(&e.phase)
	if phase&phaseMask != phaseGather {
		return true // too late
	}
	e.count(&e.arrived)
	for atomic.LoadUint32(&e.phase) == phase {
		futex.Wait(&e.phase, phase)
	}
	if atomic.LoadUint32(&e.phase) != phase&^phaseMask|phaseCall {
		return true
	}
	r, _, errno := unix.RawSyscall6(e.trap, e.args[0], e.args[1], e.args[2], e.args[3], e.args[4], e.args[5])
	if errno != 0 || r != e.result {
		if i := atomic.AddUint32(&e.nbad, 1) - 1; int(i) < len(e.bad) {
			e.bad[i] = differs{uintptr(gettid()), r, uintptr(errno)}
		}
	}
	e.count(&e.done)
	return true
}

func (e *everyoneT) count(n *uint32) {
	atomic.AddUint32(n, 1)
	atomic.AddUint32(&e.progress, 1)
	futex.Wake(&e.progress, 1)
}

// A ThreadsError says that a system call was made on all threads, and did not
// have the same result on some of this package's as on the runtime's.
type ThreadsError struct {
	Want    uintptr // the runtime's result
	Threads []ThreadResult
	More    int // threads that are not among Threads
}

// A ThreadResult is the result of one thread.
type ThreadResult struct {
	TID    int
	Result uintptr
	Errno  syscall.Errno
}

func newThreadsError(want uintptr) *ThreadsError {
	e := &ThreadsError{Want: want}
	n := min(int(everyone.nbad), len(everyone.bad))
	for _, d := range everyone.bad[:n] {
		e.Threads = append(e.Threads, ThreadResult{int(d.tid), d.result, syscall.Errno(d.errno)})
	}
	e.More = int(everyone.nbad) - n
	return e
}

func (e *ThreadsError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "lwp: the threads do not agree: %d on those of Go", e.Want)
	for _, t := range e.Threads {
		if t.Errno != 0 {
			fmt.Fprintf(&b, ", %v on thread %d", t.Errno, t.TID)
		} else {
			fmt.Fprintf(&b, ", %d on thread %d", t.Result, t.TID)
		}
	}
	if e.More > 0 {
		fmt.Fprintf(&b, ", and others on %d more", e.More)
	}
	return b.String()
}
