package futex

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestErrnoBeyondTheTableIsStillAnError(t *testing.T) {
	for _, errno := range []syscall.Errno{maxErrno + 1, 512, 4095} {
		if err := fail(fnWait, errno); err == nil || err.Error() != "futex wait: "+syscall.ENOSYS.Error() {
			t.Errorf("errno %d: %v", uintptr(errno), err)
		}
	}
	for errno := syscall.Errno(1); errno <= maxErrno; errno++ {
		if err := fail(fnRequeue, errno); !errors.Is(err, errno) || err.Error() != "futex requeue: "+errno.Error() {
			t.Errorf("errno %d: %v", uintptr(errno), err)
		}
	}
}

// TestMonotonicDeadlineIsTranslated is for kernels whose lock calls know the
// real-time clock only.
func TestMonotonicDeadlineIsTranslated(t *testing.T) {
	for _, d := range []time.Duration{time.Hour, -time.Hour} {
		want := At(time.Now().Add(max(d, 0)))
		got := Deadline{onRealtime(After(d)), realtime}
		if off := time.Duration(got.ns - want.ns); off.Abs() > time.Minute {
			t.Errorf("%v from now: off by %v", d, off)
		}
	}
}

func TestErrorMadeByHandHasAText(t *testing.T) {
	if got := (&Error{Op: "wait", Errno: syscall.EFAULT}).Error(); got != "futex wait: bad address" {
		t.Errorf("%q", got)
	}
}

func TestCPUsAreCountedAtLeastOnce(t *testing.T) {
	if n := numCPU(); n < 1 || (n > 1) != multi {
		t.Errorf("%d CPUs, multi is %v", n, multi)
	}
}

// A Signal that comes between a Broadcast's step of seq and its requeue.
func TestCondBroadcastOvertakenBySignalWakesAll(t *testing.T) {
	const waiters = 4
	var (
		c    Cond
		m    Mutex
		turn bool
		wg   sync.WaitGroup
	)
	for range waiters {
		wg.Go(func() {
			m.Lock()
			for !turn {
				c.Wait(&m)
			}
			m.Unlock()
		})
	}
	asleep := func() bool {
		n, _ := Private.Requeue(&c.seq, &c.seq, 0, All)
		return n == waiters
	}
	for end := time.Now().Add(30 * time.Second); !asleep(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the waiters do not sleep")
		}
	}
	m.Lock()
	turn = true
	m.Unlock()
	seq := atomic.AddUint32(&c.seq, 1) // Broadcast
	c.Signal()
	c.release(seq)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the Broadcast has left somebody asleep")
	}
}
