package futex_test

import (
	"os"
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

// TestConformanceFutexKernel holds what the kernel's own selftests of the same
// names do.
func TestConformanceFutexKernel(t *testing.T) {
	for _, r := range []struct {
		name string
		test func(*testing.T)
	}{
		{"futex_requeue", futexRequeue},
		{"futex_requeue_pi", futexRequeuePI},
		{"futex_requeue_pi_mismatched_ops", futexRequeuePIMismatchedOps},
		{"futex_requeue_pi_signal_restart", futexRequeuePISignalRestart},
		{"futex_wait", futexWait},
		{"futex_wait_private_mapped_file", futexWaitPrivateMappedFile},
		{"futex_wait_uninitialized_heap", futexWait04},
		{"futex_wait_timeout", futexWaitTimeout},
		{"futex_wait_wouldblock", futexWaitWouldblock},
		{"futex_waitv", futexWaitv},
		{"robust_list", robustList},
		{"futex_lock_pi_exiting", futexLockPIExiting},
	} {
		t.Run(r.name, r.test)
	}
}

func futexRequeue(t *testing.T) {
	for _, k := range []struct{ waiters, wake, move int }{{1, 0, 1}, {10, 3, 7}} {
		x, y := new(uint32), new(uint32)
		c := newCrew(t)
		for range k.waiters {
			c.start(func() { futex.Wait(x, 0) })
		}
		asleep(t, x, k.waiters)
		if n, changed, err := futex.Private.CmpRequeue(x, 0, y, k.wake, k.move); n != k.waiters || changed || err != nil {
			t.Errorf("%+v: %d, %v, %v", k, n, changed, err)
		}
		if n, _ := futex.Wake(y, futex.All); n != k.move {
			t.Errorf("%+v: %d were moved", k, n)
		}
	}
}

// A requeued is what the threads of futex_requeue_pi have in common.
type requeued struct {
	cond, lock uint32
	timeout    time.Duration // 0: none
	waiting    uint32
	got        uint32 // waiters that came to have the lock
	out        uint32 // those that timed out
	inside     uint32
	wrong      uint32

	blocked lwptest.Flag // the third party has the lock
	release lwptest.Flag
}

func waitForRequeue(r *requeued) {
	d := futex.Never
	if r.timeout != 0 {
		d = futex.After(r.timeout)
	}
	atomic.AddUint32(&r.waiting, 1)
	switch out, err := futex.Private.WaitRequeuePI(&r.cond, 0, &r.lock, d); {
	case err != nil:
		atomic.AddUint32(&r.wrong, 1)
	case out == futex.TimedOut:
		atomic.AddUint32(&r.out, 1)
	case out != futex.Woken:
		atomic.AddUint32(&r.wrong, 1)
	default:
		if atomic.AddUint32(&r.inside, 1) != 1 || r.lock&futex.OwnerMask != uint32(unix.Gettid()) {
			atomic.AddUint32(&r.wrong, 1)
		}
		r.got++
		atomic.AddUint32(&r.inside, ^uint32(0))
		if futex.Private.UnlockPI(&r.lock) != nil {
			atomic.AddUint32(&r.wrong, 1)
		}
	}
}

func thirdParty(r *requeued) {
	if out, err := futex.Private.LockPI(&r.lock, futex.Never); out != futex.Woken || err != nil {
		atomic.AddUint32(&r.wrong, 1)
	}
	r.blocked.Raise()
	r.release.Wait()
	if futex.Private.UnlockPI(&r.lock) != nil {
		atomic.AddUint32(&r.wrong, 1)
	}
}

func futexRequeuePI(t *testing.T) {
	needRequeuePI(t)
	needFIFO(t)
	const waiters = 10
	for _, k := range []struct {
		name                     string
		broadcast, locked, owner bool
		timeout                  time.Duration
	}{
		{name: "signal"},
		{name: "broadcast", broadcast: true},
		{name: "locked signal", locked: true},
		{name: "locked broadcast", locked: true, broadcast: true},
		{name: "third-party owner", owner: true, broadcast: true},
		{name: "third-party owner, signal", owner: true},
		{name: "timeout before the requeue", timeout: 5 * time.Millisecond},
		{name: "timeout after the requeue", timeout: 200 * time.Millisecond, owner: true, broadcast: true},
		{name: "time enough", timeout: hang, locked: true, broadcast: true},
	} {
		t.Run(k.name, func(t *testing.T) {
			r := &requeued{timeout: k.timeout}
			var threads []lwp.Thread
			start := func(fn func(*requeued), prio int) lwp.Thread {
				th, err := lwp.StartAttr(fn, r, lwp.Attr{Policy: lwp.PolicyFIFO, Priority: prio})
				if err != nil {
					t.Fatal(err)
				}
				return th
			}
			for range waiters {
				threads = append(threads, start(waitForRequeue, 1))
			}
			joined := func() {
				within(t, "the waiters", func() {
					for _, th := range threads {
						th.Join()
					}
				})
			}
			eventually(t, "waiters", func() bool { return atomic.LoadUint32(&r.waiting) == waiters })
			if k.timeout == 5*time.Millisecond {
				joined()
				if r.out != waiters || r.wrong != 0 {
					t.Errorf("%d of %d timed out, %d errors", r.out, waiters, r.wrong)
				}
				return
			}
			for _, th := range threads {
				tid := uint32(th.TID())
				inKernel(t, unix.Getpid(), &tid)
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var third lwp.Thread
			if k.owner {
				third = start(thirdParty, 2)
				r.blocked.Wait()
			}
			if k.locked {
				if _, err := futex.Private.LockPI(&r.lock, futex.Never); err != nil {
					t.Fatal(err)
				}
			}
			others := 0
			if k.broadcast {
				others = futex.All
			}
			moved := 0
			for moved < waiters {
				n, changed, err := futex.Private.CmpRequeuePI(&r.cond, 0, &r.lock, others)
				if changed || err != nil || n == 0 {
					t.Errorf("requeue: %d, %v, %v after %d", n, changed, err, moved)
					break
				}
				moved += n
			}
			if k.locked {
				if err := futex.Private.UnlockPI(&r.lock); err != nil {
					t.Error(err)
				}
			}
			if k.owner {
				if k.timeout != 0 {
					joined() // nobody but the third party lets them go
					if r.out != waiters {
						t.Errorf("%d of %d timed out", r.out, waiters)
					}
				}
				r.release.Raise()
				third.Join()
			}
			joined()
			if r.got+r.out != waiters || k.timeout == 0 && r.out != 0 || r.wrong != 0 || r.lock != 0 {
				t.Errorf("%d got the lock, %d timed out, %d errors, the word is %#x", r.got, r.out, r.wrong, r.lock)
			}
		})
	}
}

func futexRequeuePIMismatchedOps(t *testing.T) {
	needRequeuePI(t)
	x, y := new(uint32), new(uint32)
	c := newCrew(t)
	c.start(func() { futex.Wait(x, 0) })
	asleep(t, x, 1)
	_, _, err := futex.Private.CmpRequeuePI(x, 0, y, 0)
	refused(t, "requeue of a plain waiter", err, syscall.EINVAL)
	if n, _ := futex.Wake(x, 1); n != 1 {
		t.Errorf("%d waiters are left", n)
	}
}

func futexRequeuePISignalRestart(t *testing.T) {
	needRequeuePI(t)
	if lwptest.Emulated() {
		t.Skip("qemu-user restarts no PI wait")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var cond, lock, tid uint32
	var ended atomic.Bool
	c := newCrew(t)
	c.startOpen(func() {
		runtime.LockOSThread()
		atomic.StoreUint32(&tid, uint32(unix.Gettid()))
		out, err := futex.Private.WaitRequeuePI(&cond, 0, &lock, futex.Never)
		ended.Store(true)         // the wait, not yet the thread
		if out == futex.Changed { // the signal came after the requeue
			out, err = futex.Private.LockPI(&lock, futex.Never)
		}
		expect(t, futex.Woken, out, err)
		if err := futex.Private.UnlockPI(&lock); err != nil {
			t.Error(err)
		}
	})
	inKernel(t, unix.Getpid(), &tid)
	signal := func() {
		for range 5 {
			// The runtime takes SIGURG for a late request of its own.
			if err := unix.Tgkill(unix.Getpid(), int(tid), unix.SIGURG); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	signal()
	if ended.Load() {
		t.Fatal("a signal before the requeue has ended the wait")
	}
	if _, err := futex.Private.LockPI(&lock, futex.Never); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a requeue", func() bool {
		n, changed, err := futex.Private.CmpRequeuePI(&cond, 0, &lock, 0)
		if changed || err != nil {
			t.Fatal(changed, err)
		}
		return n == 1
	})
	signal()
	if lock&futex.Waiters == 0 {
		t.Error("nobody waits for the lock after the requeue and a signal")
	}
	if err := futex.Private.UnlockPI(&lock); err != nil {
		t.Error(err)
	}
	within(t, "the waiter", c.wg.Wait)
}

// wakeable checks that a wait on x sleeps, and that a wake ends it.
func wakeable(t *testing.T, s futex.Scope, x *uint32) {
	t.Helper()
	c := newCrew(t)
	v := atomic.LoadUint32(x)
	c.start(func() {
		out, err := s.WaitFor(x, v, hang)
		expect(t, futex.Woken, out, err)
	})
	eventually(t, "a sleeper", func() bool {
		n, err := s.Requeue(x, x, 0, futex.All)
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	if n, err := s.Wake(x, 1); n != 1 || err != nil {
		t.Errorf("woke %d, %v", n, err)
	}
	within(t, "the sleeper", c.wg.Wait)
}

func mappedFile(t *testing.T, flags int) *uint32 {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	return wordAt(page(t, int(file.Fd()), readWrite, flags))
}

func futexWait(t *testing.T) {
	t.Run("private", func(t *testing.T) { wakeable(t, futex.Private, new(uint32)) })
	t.Run("shared anonymous", func(t *testing.T) {
		wakeable(t, futex.Shared, wordAt(page(t, -1, readWrite, unix.MAP_SHARED|unix.MAP_ANON)))
	})
	t.Run("shared file", func(t *testing.T) { wakeable(t, futex.Shared, mappedFile(t, unix.MAP_SHARED)) })
}

func futexWaitPrivateMappedFile(t *testing.T) {
	wakeable(t, futex.Shared, mappedFile(t, unix.MAP_PRIVATE))
	wakeable(t, futex.Private, mappedFile(t, unix.MAP_PRIVATE))
}

func holdPIWord(r *requeued) { thirdParty(r) }

func futexWaitTimeout(t *testing.T) {
	lwptest.SkipRace(t)
	const d = 10 * time.Millisecond
	x, y := new(uint32), new(uint32)
	c := newCrew(t)
	call := func(what string, f func() (futex.Outcome, error)) {
		c.start(func() { timesOut(t, what, 0, f) })
		within(t, what, c.wg.Wait)
	}
	call("wait, relative", func() (futex.Outcome, error) { return futex.WaitFor(x, 0, d) })
	for clock, end := range map[string]func() futex.Deadline{
		"monotonic": func() futex.Deadline { return futex.After(d) },
		"realtime":  func() futex.Deadline { return futex.At(time.Now().Add(d)) },
	} {
		until := func(what string, f func(futex.Deadline) (futex.Outcome, error)) {
			t.Run(what+", "+clock, func(t *testing.T) {
				switch what {
				case "waitv":
					needWaitv(t)
				case "lock":
					needPI(t)
				case "wait-requeue-pi":
					needRequeuePI(t)
				}
				end := end()
				call(what, func() (futex.Outcome, error) { return f(end) })
				if left := end.Remaining(); left > 0 {
					t.Errorf("%v early", left)
				}
			})
		}
		until("wait-bitset", func(d futex.Deadline) (futex.Outcome, error) { return futex.WaitUntil(x, 0, d) })
		until("waitv", func(d futex.Deadline) (futex.Outcome, error) {
			_, out, err := futex.Waitv([]futex.Word{futex.Private.On(x, 0), futex.Private.On(y, 0)}, d)
			return out, err
		})
		until("wait-requeue-pi", func(d futex.Deadline) (futex.Outcome, error) { return futex.Private.WaitRequeuePI(x, 0, y, d) })
		r := new(requeued)
		until("lock", func(d futex.Deadline) (futex.Outcome, error) {
			th, err := lwp.Start(holdPIWord, r)
			if err != nil {
				t.Error(err)
			}
			r.blocked.Wait()
			out, err := futex.Private.LockPI(&r.lock, d)
			r.release.Raise()
			th.Join()
			return out, err
		})
	}
}

func futexWaitWouldblock(t *testing.T) {
	eachScope(t, func(t *testing.T, s futex.Scope) {
		x := new(uint32)
		out, err := s.WaitFor(x, 1, time.Hour)
		expect(t, futex.Changed, out, err)
		out, err = s.WaitBitset(x, 1, futex.MatchAny, futex.After(time.Hour))
		expect(t, futex.Changed, out, err)
	})
	t.Run("waitv", func(t *testing.T) {
		needWaitv(t)
		x := new(uint32)
		index, out, err := futex.Waitv([]futex.Word{futex.Private.On(x, 0), futex.Shared.On(x, 1)}, futex.After(time.Hour))
		expect(t, futex.Changed, out, err)
		if index != -1 {
			t.Errorf("index %d", index)
		}
	})
	t.Run("wait-requeue-pi", func(t *testing.T) {
		needRequeuePI(t)
		x := new([2]uint32)
		out, err := futex.Private.WaitRequeuePI(&x[0], 1, &x[1], futex.Never)
		expect(t, futex.Changed, out, err)
	})
}

func futexWaitv(t *testing.T) {
	needWaitv(t)
	t.Run("private", func(t *testing.T) { wokenByIndex(t, futex.Private) })
	t.Run("shared", func(t *testing.T) { wokenByIndex(t, futex.Shared) })
	t.Run("index of 30, between processes", wokenByIndexBetweenProcesses)
	t.Run("errors", func(t *testing.T) {
		futexWaitv01(t)
		ts := &unix.Timespec{}
		if errno := rawWaitv(nil, 1, 0, ts, unix.CLOCK_MONOTONIC); errno != syscall.EINVAL && errno != syscall.EFAULT {
			t.Errorf("NULL words: %v", errno)
		}
		x := new(uint32)
		word := rawWord{addr: unsafe.Pointer(x), flags: size32}
		if errno := rawWaitv(unsafe.Pointer(&word), 1, 0, ts, unix.CLOCK_TAI); errno != syscall.EINVAL {
			t.Errorf("CLOCK_TAI: %v", errno)
		}
	})
}
