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

// consume takes what produce gives, under a PIMutex and a PICond.
func (c *common) consume() {
	c.must(c.pi.Lock())
	for taken := 0; taken < c.rounds; {
		for c.plain == 0 {
			if c.rounds%2 == 0 {
				c.must(c.picond.Wait(&c.pi))
			} else if err := c.picond.WaitFor(&c.pi, 50*time.Microsecond); err != futex.ErrTimeout {
				c.must(err)
			}
		}
		c.plain--
		c.plain2++
		taken++
	}
	c.pi.Unlock()
}

func (c *common) must(err error) {
	if err != nil {
		c.wrong()
	}
}

func (c *common) produce(n int) {
	for i := range n {
		c.must(c.pi.Lock())
		c.plain++
		if i%2 == 0 {
			c.must(c.picond.Signal())
			c.pi.Unlock()
		} else {
			c.pi.Unlock()
			c.must(c.picond.Broadcast())
		}
	}
}

func consumeThread(c *common) { c.consume() }

func TestPICondLosesNoWakeUp(t *testing.T) {
	needRequeuePI(t)
	lwptest.SkipRace(t)
	rounds := lwptest.Count(2000, 200)
	for _, timed := range []bool{false, true} {
		for _, kind := range []string{"threads", "goroutines", "processes"} {
			c, file := newCommon(t)
			c.shareAll()
			c.rounds = rounds
			if timed {
				c.rounds++
			}
			crew := newCrew(t)
			for range 3 {
				switch kind {
				case "threads":
					th, err := lwp.Start(consumeThread, c)
					if err != nil {
						t.Fatal(err)
					}
					crew.startOpen(func() { th.Join() })
				case "goroutines":
					crew.startOpen(c.consume)
				case "processes":
					cmd := spawn(t, file, "picond")
					crew.startOpen(func() { ended(t, cmd) })
				}
			}
			c.produce(3 * c.rounds)
			within(t, kind, func() {
				// A process that came late can have slept through nothing, but a
				// last signal may find nobody yet.
				crew.wg.Wait()
			})
			if c.bad != 0 || c.plain != 0 || c.plain2 != 3*c.rounds {
				t.Errorf("%s: %d violations, %d left, %d taken", kind, c.bad, c.plain, c.plain2)
			}
		}
	}
}

func TestPICondTimesOutWithTheMutex(t *testing.T) {
	needRequeuePI(t)
	m, c := new(futex.PIMutex), new(futex.PICond)
	if err := m.Lock(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []futex.Deadline{futex.After(time.Millisecond), futex.At(time.Now().Add(time.Millisecond)), futex.After(0)} {
		if err := c.WaitUntil(m, d); err != futex.ErrTimeout {
			t.Errorf("%v, want %v", err, futex.ErrTimeout)
		}
		if left := d.Remaining(); left > 0 {
			t.Errorf("%v early", left)
		}
	}
	if err := c.Signal(); err != nil {
		t.Error(err)
	}
	mustPanic(t, "futex: PICond used with two PIMutexes", func() {
		other := new(futex.PIMutex)
		other.Lock()
		defer other.Unlock()
		c.Wait(other)
	})
	m.Unlock()
	mustPanic(t, "futex: Unlock of a PIMutex that the caller does not hold", m.Unlock)
}

// TestPICondSignalOfDeadOwner fails where a Signal that can wake nobody says nothing.
func TestPICondSignalOfDeadOwner(t *testing.T) {
	lwptest.SkipRace(t)
	needRequeuePI(t)
	if lwptest.Emulated() {
		t.Skip("qemu-user has no owner's death")
	}
	c := new(common)
	crew := newCrew(t)
	crew.start(func() {
		if err := c.pi.Lock(); err != nil {
			t.Error(err)
		}
		atomic.StoreUint32(&c.tid, uint32(unix.Gettid()))
		if err := c.picond.Wait(&c.pi); err != nil {
			t.Error(err)
		}
		c.pi.Unlock()
	})
	inKernel(t, unix.Getpid(), &c.tid)
	th, err := lwp.Start(holdPIAndEnd, c)
	if err != nil {
		t.Fatal(err)
	}
	c.sem.Release(1)
	th.Join()
	if err := c.picond.Signal(); err != futex.ErrOwnerDied {
		t.Errorf("%v, want %v", err, futex.ErrOwnerDied)
	}
	if err := c.pi.Lock(); err != futex.ErrOwnerDied {
		t.Errorf("%v, want %v", err, futex.ErrOwnerDied)
	}
	if err := c.picond.Signal(); err != nil {
		t.Error(err)
	}
	c.pi.Unlock()
	within(t, "the waiter", crew.wg.Wait)
}
