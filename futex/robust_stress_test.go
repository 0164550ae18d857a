package futex_test

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

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

// TestRobustMutexExcludes is the mutual exclusion alone, on goroutines too.
func TestRobustMutexExcludes(t *testing.T) {
	needRobust(t)
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
