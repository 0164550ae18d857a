package futex_test

import (
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

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
	go die()
	if err := <-done; err.Error() != "mine" {
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

// TestRobustMutexWakesTheSecondSleeper fails where the woken waiter forgets that there
// are others.
func TestRobustMutexWakesTheSecondSleeper(t *testing.T) {
	needRobust(t)
	m := new(futex.RobustMutex)
	if err := m.Lock(); err != nil {
		t.Fatal(err)
	}
	c := newCrew(t)
	for i := range 3 {
		c.start(func() {
			if err := m.Lock(); err != nil {
				t.Error(err)
				return
			}
			m.Unlock()
		})
		eventually(t, "a sleeper", func() bool { return sharedSleepers(word(m, 0)) == i+1 })
	}
	m.Unlock()
	within(t, "three sleepers", c.wg.Wait)
}

// An heir takes a lock whose owner died, and dies itself without a repair.
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

func TestGetRobustListOfNobodyIsAnError(t *testing.T) {
	needRobust(t)
	if _, err := futex.GetRobustList(1 << 30); !errors.Is(err, syscall.ESRCH) || err.Error() != "futex robust list: no such process" {
		t.Error(err)
	}
}
