package futex_test

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func init() {
	onThread := func(fn func(*common)) func(*common) int {
		return func(c *common) int {
			th, err := lwp.Start(fn, c)
			if err != nil {
				return 1
			}
			th.Join()
			return 0
		}
	}
	roles["stepLock"] = onThread(stepLock)
	roles["stepUnlock"] = onThread(stepUnlock)
}

// atMark says that the thread is where its steps begin, and spins there.
func atMark(c *common) {
	atomic.StoreUint32(&c.tid, uint32(unix.Gettid()))
	for atomic.LoadUint32(&c.stop) == 0 {
		asm.Relax()
	}
}

func afterMark(c *common) {
	atomic.StoreUint32(&c.ready, 1)
	for {
		asm.Relax()
	}
}

func stepLock(c *common) {
	c.rob.Lock() // for the first time, which is longer
	c.rob.Unlock()
	atMark(c)
	c.rob.Lock()
	afterMark(c)
}

func stepUnlock(c *common) {
	c.rob.Lock()
	atMark(c)
	c.rob.Unlock()
	afterMark(c)
}

// steps kills a process in a role when its thread has done n instructions from
// the mark on, or has passed its end, and returns how many it has done.
func steps(t *testing.T, c *common, file *os.File, role string, n int, atTheMark func()) int {
	t.Helper()
	cmd := spawn(t, file, role)
	eventually(t, "a thread to step", func() bool { return atomic.LoadUint32(&c.tid) != 0 })
	atTheMark()
	tid := int(c.tid)
	if err := unix.PtraceSeize(tid); err != nil {
		t.Skip("cannot trace a process: ", err)
	}
	stopped := func() {
		var status unix.WaitStatus
		for {
			if _, err := unix.Wait4(tid, &status, unix.WALL, nil); err == nil {
				break
			} else if err != unix.EINTR {
				t.Fatal(err)
			}
		}
	}
	if err := unix.PtraceInterrupt(tid); err != nil {
		t.Fatal(err)
	}
	stopped()
	atomic.StoreUint32(&c.stop, 1)
	did := 0
	for ; did < n && atomic.LoadUint32(&c.ready) == 0; did++ {
		if err := unix.PtraceSingleStep(tid); err != nil {
			t.Fatal(err)
		}
		stopped()
	}
	cmd.Process.Kill()
	stopped() // the tracer is told first
	cmd.Wait()
	return did
}

// TestOwnerKilledAtEveryInstruction fails where there is an instruction of Lock or
// Unlock at which the end of a process takes the lock with it, or the wake-up
// that it owes.
func TestOwnerKilledAtEveryInstruction(t *testing.T) {
	lwptest.SkipRace(t)
	needRobust(t)
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	for _, k := range []struct {
		role    string
		waiting bool
	}{{"stepLock", false}, {"stepUnlock", false}, {"stepUnlock", true}} {
		died := 0
		run := func(n int) (did int) {
			c, file := newCommon(t)
			next := newCrew(t)
			lock := func() {
				switch err := c.rob.LockFor(hang / 2); err {
				case futex.ErrOwnerDied:
					died++
					c.rob.MakeConsistent()
					c.rob.Unlock()
				case nil:
					c.rob.Unlock()
				default:
					t.Errorf("%s, waiting %v, killed after %d instructions: %v", k.role, k.waiting, n, err)
				}
			}
			did = steps(t, c, file, k.role, n, func() {
				if k.waiting {
					next.start(lock)
					eventually(t, "a waiter", func() bool { return sharedSleepers(word(&c.rob, 0)) == 1 })
				}
			})
			if !k.waiting {
				lock()
			}
			within(t, "the next owner", next.wg.Wait)
			return did
		}
		all := run(1 << 20)
		stride := max(1, all/lwptest.Count(1<<20, 25))
		began := time.Now()
		for n := 0; n < all && !t.Failed(); n += stride {
			run(n)
		}
		if died == 0 || t.Failed() {
			t.Errorf("%s, waiting %v: %d owners died", k.role, k.waiting, died)
		}
		t.Logf("%s, waiting %v: %d instructions, killed at every %d., %d died with the lock, %v", k.role, k.waiting, all, stride, died, time.Since(began))
	}
}
