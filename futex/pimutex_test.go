package futex_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// lastCPU returns one CPU that this process may use, as a set.
func lastCPU(t testing.TB) (set unix.CPUSet) {
	t.Helper()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		t.Fatal(err)
	}
	for i := range 1024 {
		if may.IsSet(i) {
			set.Zero()
			set.Set(i)
		}
	}
	return set
}

// fifo is the attribute of a SCHED_FIFO thread on one CPU.
func fifo(t testing.TB, prio int) lwp.Attr {
	return lwp.Attr{Policy: lwp.PolicyFIFO, Priority: prio, CPUs: lastCPU(t)}
}

// needFIFO skips the test where no thread can be of a real-time policy.
func needFIFO(t testing.TB) {
	t.Helper()
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "real-time threads whose priorities the kernel compares")
	lwptest.NeedCap(t, unix.CAP_SYS_NICE)
}

// An inversion is the three threads of the textbook on one CPU: low holds a lock,
// high waits for it, middle has nothing to do with it and a lot to do.
type inversion struct {
	plain     futex.Mutex
	pi        futex.PIMutex
	inherit   bool
	high      futex.Event
	middle    futex.Event
	clock     atomic.Uint32 // order of what happens
	highIn    uint32        // when high got the lock
	middleEnd uint32
	wrong     uint32
}

func (v *inversion) lock() {
	if !v.inherit {
		v.plain.Lock()
	} else if v.pi.Lock() != nil {
		v.wrong++
	}
}

func (v *inversion) unlock() {
	if v.inherit {
		v.pi.Unlock()
	} else {
		v.plain.Unlock()
	}
}

func lowThread(v *inversion) {
	v.lock()
	v.high.Set() // which runs at once, and blocks
	v.middle.Set()
	busy(2 * time.Millisecond)
	v.unlock()
}

func middleThread(v *inversion) {
	v.middle.Wait()
	busy(20 * time.Millisecond)
	v.middleEnd = v.clock.Add(1)
}

func highThread(v *inversion) {
	v.high.Wait()
	v.lock()
	v.highIn = v.clock.Add(1)
	v.unlock()
}

// TestPIMutexLendsPriority fails where the holder of a PIMutex does not run in
// the place of a more urgent waiter. The plain Mutex shows that it would matter.
func TestPIMutexLendsPriority(t *testing.T) {
	needFIFO(t)
	needPI(t)
	for _, inherit := range []bool{true, false} {
		v := &inversion{inherit: inherit}
		var threads []lwp.Thread
		for _, p := range []struct {
			fn   func(*inversion)
			prio int
		}{{highThread, 30}, {middleThread, 20}} {
			th, err := lwp.StartAttr(p.fn, v, fifo(t, p.prio))
			if err != nil {
				t.Fatal(err)
			}
			threads = append(threads, th)
		}
		asleep(t, word(&v.high, 0), 1)
		asleep(t, word(&v.middle, 0), 1)
		th, err := lwp.StartAttr(lowThread, v, fifo(t, 10))
		if err != nil {
			t.Fatal(err)
		}
		within(t, "three threads", func() {
			for _, th := range append(threads, th) {
				if err := th.Join(); err != nil {
					t.Error(err)
				}
			}
		})
		if first := v.highIn < v.middleEnd; first != inherit || v.wrong != 0 {
			t.Errorf("inheritance %v: high was %d., middle %d.; %d errors", inherit, v.highIn, v.middleEnd, v.wrong)
		}
	}
}

// holdPI holds a lock until it is told, at the priority that the kernel gives it.
func holdPI(c *common) {
	if c.pi.Lock() != nil {
		c.wrong()
	}
	atomic.StoreUint32(&c.tid, uint32(unix.Gettid()))
	c.ready++
	c.ev.Set()
	c.sem.Acquire()
	c.pi.Unlock()
	c.items.Release(1)
	c.sem.Acquire()
}

// wantPI is a more urgent one that waits.
func wantPI(c *common) {
	if err := c.pi.Lock(); err != nil {
		c.wrong()
	}
	c.pi.Unlock()
}

func init() {
	roles["holdPI"] = func(c *common) int {
		th, err := lwp.StartAttr(holdPI, c, lwp.Attr{Policy: lwp.PolicyFIFO, Priority: 10})
		if err != nil {
			return 1
		}
		th.Join()
		return 0
	}
	roles["diePI"] = func(c *common) int {
		if c.pi.Lock() != nil {
			return 1
		}
		c.ev.Set()
		time.Sleep(time.Hour)
		return 2
	}
	roles["picond"] = func(c *common) int { c.consume(); return 0 }
}

// TestPriorityIsInheritedBetweenProcesses looks at what the kernel says that the
// holder, in another process, runs at.
func TestPriorityIsInheritedBetweenProcesses(t *testing.T) {
	needFIFO(t)
	needPI(t)
	c, file := newCommon(t)
	c.shareAll()
	cmd := spawn(t, file, "holdPI")
	if !c.ev.WaitFor(hang) {
		t.Fatal("no holder")
	}
	tid := atomic.LoadUint32(&c.tid)
	if p := priority(cmd.Process.Pid, tid); p != 10 {
		t.Fatalf("the holder has priority %d before anybody waits, want 10", p)
	}
	var threads []lwp.Thread
	for _, p := range []int{40, 25} {
		th, err := lwp.StartAttr(wantPI, c, lwp.Attr{Policy: lwp.PolicyFIFO, Priority: p})
		if err != nil {
			t.Fatal(err)
		}
		threads = append(threads, th)
		eventually(t, "priority 40", func() bool { return priority(cmd.Process.Pid, tid) == 40 })
	}
	if c.pi.TryLock() {
		t.Error("took a held PIMutex")
	}
	if err := c.pi.LockFor(time.Millisecond); err != futex.ErrTimeout {
		t.Errorf("LockFor: %v", err)
	}
	c.sem.Release(1)
	c.items.Acquire()
	eventually(t, "priority 10 after Unlock", func() bool { return priority(cmd.Process.Pid, tid) == 10 })
	for _, th := range threads {
		th.Join()
	}
	c.sem.Release(1)
	ended(t, cmd)
	if c.bad != 0 {
		t.Error("a Lock has failed")
	}
}

func holdPIAndEnd(c *common) {
	if c.pi.Lock() != nil {
		c.wrong()
	}
	c.ev.Set()
	c.sem.Acquire()
}

func TestPIMutexReportsOwnerDeath(t *testing.T) {
	lwptest.SkipRace(t)
	needPI(t)
	if lwptest.Emulated() {
		t.Skip("qemu-user hands no lock of a dead thread on")
	}
	check := func(c *common, waiting bool, end func()) {
		t.Helper()
		crew := newCrew(t)
		lock := func() {
			if err := c.pi.Lock(); err != futex.ErrOwnerDied {
				t.Errorf("waiting %v: Lock gives %v, want %v", waiting, err, futex.ErrOwnerDied)
				if err != nil {
					return
				}
			}
			c.pi.Unlock()
			if err := c.pi.Lock(); err != nil {
				t.Errorf("the next Lock: %v", err)
			}
			c.pi.Unlock()
		}
		if waiting {
			crew.startOpen(lock)
			eventually(t, "a waiter", func() bool { return atomic.LoadUint32(word(&c.pi, 0))&futex.Waiters != 0 })
		}
		end()
		if !waiting {
			lock()
		}
		within(t, "the next owner", crew.wg.Wait)
	}
	for _, waiting := range []bool{false, true} {
		c := new(common)
		th, err := lwp.Start(holdPIAndEnd, c)
		if err != nil {
			t.Fatal(err)
		}
		c.ev.Wait()
		check(c, waiting, func() { c.sem.Release(1); th.Join() })

		m, file := newCommon(t)
		m.shareAll()
		cmd := spawn(t, file, "diePI")
		if !m.ev.WaitFor(hang) {
			t.Fatal("no owner")
		}
		check(m, waiting, func() { cmd.Process.Kill(); cmd.Wait() })
	}
}

// deadlocked are two threads that want each other's lock.
type deadlocked struct {
	a, b   futex.PIMutex
	bar    futex.Barrier
	caught atomic.Uint32
	wrong  atomic.Uint32
}

func crossAB(d *deadlocked) { d.cross(&d.a, &d.b) }
func crossBA(d *deadlocked) { d.cross(&d.b, &d.a) }

func (d *deadlocked) cross(first, second *futex.PIMutex) {
	if first.Lock() != nil {
		d.wrong.Add(1)
	}
	d.bar.Wait()
	switch second.Lock() {
	case nil:
		second.Unlock()
	case futex.ErrDeadlock:
		d.caught.Add(1)
	default:
		d.wrong.Add(1)
	}
	first.Unlock()
}

func TestPIMutexFindsDeadlocks(t *testing.T) {
	lwptest.SkipRace(t)
	needPI(t)
	d := new(deadlocked)
	d.bar.Init(2)
	a, err := lwp.Start(crossAB, d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := lwp.Start(crossBA, d)
	if err != nil {
		t.Fatal(err)
	}
	within(t, "the deadlock to be found", func() { a.Join(); b.Join() })
	// One of the two; or both, when each is on its way to sleep while the kernel
	// follows the other's chain.
	if d.caught.Load() == 0 || d.wrong.Load() != 0 {
		t.Errorf("%d of two threads were told, %d errors", d.caught.Load(), d.wrong.Load())
	}
	// Whoever was told holds what it held, no more, and has given it back.
	for _, m := range []*futex.PIMutex{&d.a, &d.b} {
		if !m.TryLock() {
			t.Error("a lock is left held")
		} else {
			m.Unlock()
		}
	}
}

func TestPIMutexMisuse(t *testing.T) {
	needPI(t)
	const unlock = "futex: Unlock of a PIMutex that the caller does not hold"
	m := new(futex.PIMutex)
	mustPanic(t, unlock, m.Unlock)
	if err := m.Lock(); err != nil {
		t.Fatal(err)
	}
	if err := m.Lock(); err != futex.ErrDeadlock {
		t.Errorf("a second Lock: %v", err)
	}
	if m.TryLock() {
		t.Error("a second TryLock took it")
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		mustPanic(t, unlock, m.Unlock)
		mustPanic(t, "futex: Wait with a PIMutex that the caller does not hold", func() { new(futex.PICond).Wait(m) })
	}()
	<-done
	var c futex.PICond
	c.Share()
	mustPanic(t, "futex: of PICond and PIMutex only one is shared", func() { c.Wait(m) })
	m.Unlock()
	mustPanic(t, unlock, m.Unlock)
	// Something that is no task's ID.
	*word(m, 0) = futex.OwnerMask
	if err := m.LockFor(time.Second); err != futex.ErrOwnerDied {
		t.Errorf("with an owner that never was: %v", err)
	}
	m.Unlock()
}

// TestGoroutineStaysOnItsThreadWithThePIMutex fails where a goroutine could unlock from
// a thread that does not hold the lock.
func TestGoroutineStaysOnItsThreadWithThePIMutex(t *testing.T) {
	needPI(t)
	m := new(futex.PIMutex)
	crew := newCrew(t)
	for range 8 {
		crew.startOpen(func() {
			for range 200 {
				if err := m.Lock(); err != nil {
					t.Error(err)
					return
				}
				tid := unix.Gettid()
				for range 3 {
					runtime.Gosched()
				}
				if unix.Gettid() != tid {
					t.Error("the goroutine has moved")
				}
				m.Unlock()
			}
		})
	}
	within(t, "goroutines", crew.wg.Wait)
}

func TestPIErrorsNameTheCall(t *testing.T) {
	needPI(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	x := new(uint32)
	if err := futex.Private.UnlockPI(x); !errors.Is(err, syscall.EPERM) || err.Error() != "futex unlock: operation not permitted" {
		t.Errorf("UnlockPI of a free lock: %v", err)
	}
	*x = uint32(unix.Gettid())
	if _, err := futex.Private.LockPI(x, futex.Never); !errors.Is(err, syscall.EDEADLK) {
		t.Errorf("LockPI by the owner: %v", err)
	}
	if _, err := futex.Private.TrylockPI(x); !errors.Is(err, syscall.EDEADLK) {
		t.Errorf("TrylockPI by the owner: %v", err)
	}
	*x = futex.OwnerMask
	if _, err := futex.Private.LockPI(x, futex.Never); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("LockPI of nobody's lock: %v", err)
	}
}
