package futex_test

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// A casket is a RobustMutex, who dies with it, and what became of that.
type casket struct {
	m, other futex.RobustMutex
	how      int
	locked   lwptest.Flag
	die      lwptest.Flag
	wrong    atomic.Uint32
}

// How an owner ends.
const (
	byReturn = iota
	byExit
	byFault
	byPanic
	ways
)

var nilPoint *casket

func dieHolding(c *casket) {
	// Two locks, and one given back, so that the list has had a middle.
	var third futex.RobustMutex
	if c.other.Lock() != nil || c.m.Lock() != nil || third.Lock() != nil {
		c.wrong.Store(1)
	}
	c.other.Unlock()
	third.Unlock()
	c.locked.Raise()
	c.die.Wait()
	switch c.how {
	case byExit:
		lwp.Exit()
	case byFault:
		nilPoint.how = 1
	case byPanic:
		panic("dies")
	}
}

// TestOwnerDeathOfThreadIsReported fails where a lock stays held for ever, or its
// next owner is not told.
func TestOwnerDeathOfThreadIsReported(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	pool, err := lwp.NewPool(lwp.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for name, attr := range map[string]lwp.Attr{"thread": {}, "pooled": {Pool: pool}} {
		for how := range ways {
			for _, waiting := range []bool{false, true} {
				c := &casket{how: how}
				th, err := lwp.StartAttr(dieHolding, c, attr)
				if err != nil {
					t.Fatal(err)
				}
				c.locked.Wait()
				if err := c.m.TryLock(); err != futex.ErrBusy {
					t.Errorf("%s: TryLock of a held lock: %v", name, err)
				}
				if err := c.m.LockFor(time.Millisecond); err != futex.ErrTimeout {
					t.Errorf("%s: LockFor of a held lock: %v", name, err)
				}
				next := newCrew(t)
				lock := func() {
					if err := c.m.Lock(); err != futex.ErrOwnerDied {
						t.Errorf("%s, way %d, waiting %v: Lock gives %v, want %v", name, how, waiting, err, futex.ErrOwnerDied)
						return
					}
					c.m.MakeConsistent()
					c.m.Unlock()
				}
				if waiting {
					next.startOpen(lock)
					eventually(t, "a waiter", func() bool { return sharedSleepers(word(&c.m, 0)) == 1 })
				}
				c.die.Raise()
				if waiting {
					within(t, "a waiter to learn of it", next.wg.Wait)
				}
				var fault *lwp.Fault
				if err := th.Join(); errors.As(err, &fault) != (how >= byFault) {
					t.Errorf("%s: join: %v", name, err)
				}
				if !waiting {
					lock()
				}
				if err := c.m.Lock(); err != nil {
					t.Errorf("%s: Lock after MakeConsistent: %v", name, err)
				}
				c.m.Unlock()
				if err := c.other.Lock(); err != nil || c.wrong.Load() != 0 {
					t.Errorf("%s: a lock that was given back: %v", name, err)
				}
				c.other.Unlock()
			}
		}
	}
}

// TestOwnerDeathOfGoroutineIsReported fails if a goroutine left its lock with a
// thread that goes on to run others.
func TestOwnerDeathOfGoroutineIsReported(t *testing.T) {
	needRobust(t)
	m := new(futex.RobustMutex)
	done := make(chan error, 1)
	die := func() {
		defer func() { done <- recover().(error) }()
		if err := m.Lock(); err != nil {
			panic(err)
		}
		panic(errors.New("mine"))
	}
	go func() {
		// The runtime does not let the process's first thread end.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() != unix.Getpid() {
			die()
			return
		}
		other := make(chan bool)
		go func() {
			defer close(other)
			die()
		}()
		<-other
	}()
	if err := <-done; err.Error() != "mine" {
		if errors.Is(err, futex.ErrForeignList) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	within(t, "the owner's end", func() {
		if err := m.Lock(); err != futex.ErrOwnerDied {
			t.Errorf("%v, want %v", err, futex.ErrOwnerDied)
		}
		m.Unlock()
	})
}

// TestLockGivenUpIsNotRecoverable fails where waiters sleep on beside a lock that
// nobody can have any more.
func TestLockGivenUpIsNotRecoverable(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	c := new(casket)
	th, err := lwp.Start(dieHolding, c)
	if err != nil {
		t.Fatal(err)
	}
	c.die.Raise()
	th.Join()
	if err := c.m.Lock(); err != futex.ErrOwnerDied {
		t.Fatal(err)
	}
	crew := newCrew(t)
	for range 3 {
		crew.startOpen(func() {
			if err := c.m.Lock(); err != futex.ErrNotRecoverable {
				t.Errorf("%v, want %v", err, futex.ErrNotRecoverable)
			}
		})
	}
	eventually(t, "waiters", func() bool { return sharedSleepers(word(&c.m, 0)) == 3 })
	c.m.Unlock()
	within(t, "waiters to be refused", crew.wg.Wait)
	if err := c.m.TryLock(); err != futex.ErrNotRecoverable {
		t.Errorf("%v, want %v", err, futex.ErrNotRecoverable)
	}
}

// A heir takes a lock whose owner died, and dies itself without a repair.
func inheritAndDie(c *casket) {
	if c.m.Lock() != futex.ErrOwnerDied {
		c.wrong.Store(1)
	}
}

func TestSecondOwnerDeathIsReportedToo(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	c := new(casket)
	c.die.Raise()
	lwptest.OnThread(t, dieHolding, c)
	lwptest.OnThread(t, inheritAndDie, c)
	if err := c.m.Lock(); err != futex.ErrOwnerDied || c.wrong.Load() != 0 {
		t.Errorf("%v, want %v", err, futex.ErrOwnerDied)
	}
	c.m.MakeConsistent()
	c.m.MakeConsistent()
	c.m.Unlock()
}

func TestRobustMutexMisuse(t *testing.T) {
	needRobust(t)
	m := new(futex.RobustMutex)
	const unlock, consistent = "futex: Unlock of a RobustMutex that the caller does not hold", "futex: MakeConsistent of a RobustMutex that the caller does not hold"
	mustPanic(t, unlock, m.Unlock)
	mustPanic(t, consistent, m.MakeConsistent)
	if err := m.Lock(); err != nil {
		if errors.Is(err, futex.ErrForeignList) {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	if err := m.Lock(); err != futex.ErrDeadlock {
		t.Errorf("a second Lock: %v", err)
	}
	if err := m.TryLock(); err != futex.ErrDeadlock {
		t.Errorf("a TryLock by the owner: %v", err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		mustPanic(t, unlock, m.Unlock)
		mustPanic(t, consistent, m.MakeConsistent)
	}()
	<-done
	m.Unlock()
	mustPanic(t, "futex: RobustMutex in the frame of a goroutine", func() {
		var local futex.RobustMutex
		local.Lock()
	})
}

// foreign gives its thread another list before it locks.
func foreign(c *casket) {
	var list futex.RobustList
	list.Next = uintptr(unsafe.Pointer(&list))
	if futex.SetRobustList(&list) != nil || c.m.Lock() != futex.ErrForeignList || futex.SetRobustList(nil) != nil {
		c.wrong.Store(1)
	}
	if c.m.Lock() != nil || futex.SetRobustList(&list) != futex.ErrForeignList {
		c.wrong.Store(2)
	}
	c.m.Unlock()
	if head, err := futex.GetRobustList(0); head == 0 || err != nil {
		c.wrong.Store(3)
	}
}

func TestForeignRobustListIsRefused(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	c := new(casket)
	lwptest.OnThread(t, foreign, c)
	if v := c.wrong.Load(); v != 0 {
		t.Errorf("wrong at %d", v)
	}
}

// TestThreadsListIsNotInheritedByTheNext fails where a new thread in an old one's
// memory takes itself for enlisted.
func TestThreadsListIsNotInheritedByTheNext(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	for range 50 {
		c := new(casket)
		c.die.Raise()
		lwptest.OnThread(t, dieHolding, c)
		if err := c.m.Lock(); err != futex.ErrOwnerDied {
			t.Fatalf("%v, want %v", err, futex.ErrOwnerDied)
		}
		c.m.Unlock()
	}
}

func init() {
	roles["holdRobust"] = func(c *common) int {
		th, err := lwp.Start(holdRobust, c)
		if err != nil {
			return 1
		}
		th.Join()
		return 0
	}
	roles["holdRobustHosted"] = func(c *common) int {
		if c.rob.Lock() != nil {
			return 1
		}
		c.tid = uint32(unix.Gettid())
		c.ev.Set()
		time.Sleep(time.Hour)
		return 2
	}
	roles["killer"] = func(c *common) int {
		th, err := lwp.Start(lockForEver, c)
		if err != nil {
			return 1
		}
		lockForEver(c)
		th.Join()
		return 0
	}
}

func holdRobust(c *common) {
	if c.rob.Lock() != nil {
		lwp.Exit()
	}
	c.ev.Set()
	c.sem.Acquire() // for ever
}

// TestOwnerDeathOfProcessIsReported fails where a process that is killed takes a
// lock of others with it.
func TestOwnerDeathOfProcessIsReported(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	for _, role := range []string{"holdRobust", "holdRobustHosted"} {
		for _, waiting := range []bool{true, false} {
			c, file := newCommon(t)
			c.shareAll()
			cmd := spawn(t, file, role)
			if !c.ev.WaitFor(hang) {
				t.Fatal("no owner")
			}
			if err := c.rob.TryLock(); err != futex.ErrBusy {
				if errors.Is(err, futex.ErrForeignList) {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			next := newCrew(t)
			lock := func() {
				if err := c.rob.Lock(); err != futex.ErrOwnerDied {
					t.Errorf("%s: Lock gives %v, want %v", role, err, futex.ErrOwnerDied)
					return
				}
				c.rob.MakeConsistent()
				c.rob.Unlock()
			}
			if waiting {
				next.startOpen(lock)
				eventually(t, "a waiter", func() bool { return sharedSleepers(word(&c.rob, 0)) == 1 })
			}
			cmd.Process.Kill()
			cmd.Wait()
			if !waiting {
				lock()
			}
			within(t, "the next owner", next.wg.Wait)
			if err := c.rob.Lock(); err != nil {
				t.Errorf("after MakeConsistent: %v", err)
			}
			c.rob.Unlock()
		}
	}
}

// lockForEver guards two counters that are equal whenever no owner has died
// between their steps.
func lockForEver(c *common) {
	for i := 0; atomic.LoadUint32(&c.stop) == 0; i++ {
		var err error
		switch i % 3 {
		case 0:
			err = c.rob.Lock()
		case 1:
			for err = futex.ErrBusy; err == futex.ErrBusy; {
				err = c.rob.TryLock()
			}
		case 2:
			for err = futex.ErrTimeout; err == futex.ErrTimeout; {
				err = c.rob.LockFor(50 * time.Microsecond)
			}
		}
		guarded(c, err)
	}
}

// guarded is the critical section of a lock that was taken with err.
func guarded(c *common, err error) {
	switch err {
	case nil:
		if c.count[0] != c.count[1] || atomic.LoadUint32(&c.owner) != 0 {
			c.wrong()
		}
	case futex.ErrOwnerDied:
		atomic.AddUint32(&c.deaths, 1)
		c.count[1] = c.count[0]
		c.rob.MakeConsistent()
	default:
		c.wrong()
		return
	}
	me := uint32(unix.Gettid())
	atomic.StoreUint32(&c.owner, me)
	c.count[0]++
	if c.count[0]%64 == 0 {
		busy(5 * time.Microsecond)
	}
	c.count[1]++
	if !atomic.CompareAndSwapUint32(&c.owner, me, 0) {
		c.wrong()
	}
	c.rob.Unlock()
}

// TestProcessesKilledAtRandomMoments fails where a lock is lost, or two have it, in any of
// the states between two instructions of Lock and Unlock.
func TestProcessesKilledAtRandomMoments(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	c, file := newCommon(t)
	c.shareAll()
	lwptest.Collect(t)
	th, err := lwp.Start(lockForEver, c)
	if err != nil {
		t.Fatal(err)
	}
	rounds := lwptest.Count(60, 12)
	at := time.Duration(1)
	for range rounds {
		cmd := spawn(t, file, "killer")
		start := atomic.LoadUint64(&c.count[0])
		eventually(t, "progress", func() bool { return atomic.LoadUint64(&c.count[0]) > start+1000 })
		at = at * 7919 % 20011
		time.Sleep(20*time.Millisecond + at*time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
	}
	before := atomic.LoadUint64(&c.count[0])
	eventually(t, "the survivors", func() bool { return atomic.LoadUint64(&c.count[0]) > before+1000 })
	atomic.StoreUint32(&c.stop, 1)
	within(t, "the survivor to end", func() {
		if err := th.Join(); err != nil {
			t.Error(err)
		}
	})
	if c.bad != 0 {
		t.Errorf("%d violations in %d sections", c.bad, c.count[0])
	}
	t.Logf("%d processes killed, %d of them with the lock, in %d sections", rounds, c.deaths, c.count[0])
}

// A mortal is a thread of TestThreadsDieWithTheLock.
type mortal struct {
	c    *common
	seed uint32
	n    int
}

// liveAndDie locks and unlocks, and ends at some moment, with the lock or without.
func liveAndDie(m *mortal) {
	for range m.n {
		m.seed = m.seed*1664525 + 1013904223
		err := m.c.rob.Lock()
		if r := m.seed >> 16; r%50 == 0 {
			if err == futex.ErrOwnerDied {
				m.c.count[1] = m.c.count[0]
				m.c.rob.MakeConsistent()
			}
			m.c.count[0]++
			switch r / 50 % 3 {
			case 0:
				lwp.Exit()
			case 1:
				nilPoint.how = 1
			}
			return
		}
		guarded(m.c, err)
		if m.seed>>16%64 == 1 {
			lwp.Exit()
		}
	}
}

func TestThreadsDieWithTheLock(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.Leaks(t)
	needRobust(t)
	lwptest.Collect(t)
	c := new(common)
	crew := newCrew(t)
	for i := range 4 {
		crew.startOpen(func() {
			for j := range lwptest.Count(500, 50) {
				m := &mortal{c: c, seed: uint32(i*7919 + j), n: 200}
				th, err := lwp.Start(liveAndDie, m)
				if err != nil {
					t.Error(err)
					return
				}
				th.Join()
			}
		})
	}
	within(t, "the threads", crew.wg.Wait)
	if c.bad != 0 || c.deaths == 0 {
		t.Errorf("%d violations, %d deaths in %d sections", c.bad, c.deaths, c.count[0])
	}
}

var probe futex.RobustMutex

// TestRobustMutexExcludes is the mutual exclusion alone, on goroutines too.
func TestRobustMutexExcludes(t *testing.T) {
	needRobust(t)
	if err := probe.Lock(); err != nil {
		t.Skip(err)
	}
	probe.Unlock()
	play(t, 4, 5000, nil, excludeRobust, func(t *testing.T, w *world) {
		if w.plain != w.n*w.rounds {
			t.Errorf("%d, want %d", w.plain, w.n*w.rounds)
		}
	})
}

func excludeRobust(w *world) {
	for range w.rounds {
		if w.robust.Lock() != nil {
			w.wrong()
		}
		w.plain++
		w.robust.Unlock()
	}
}

func TestGetRobustListOfNobodyIsAnError(t *testing.T) {
	needRobust(t)
	if _, err := futex.GetRobustList(1 << 30); !errors.Is(err, syscall.ESRCH) || err.Error() != "futex robust list: no such process" {
		t.Error(err)
	}
}
