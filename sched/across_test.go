package sched_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// TestFibersOfTwoSchedulersStayApart: fibers join, unpark and detach those of
// another scheduler, and go on on their own.
func TestFibersOfTwoSchedulersStayApart(t *testing.T) {
	b := begin(t, 1)
	a := begin(t, 1) // closed first, with the threads that wait for it
	type visit struct {
		sleeper, fault, ended, parked sched.Fiber
		errs                          [4]note
		faults                        int
		strayed                       int
	}
	v := new(visit)
	for range lwptest.Count(50, 5) {
		b.Hold()
		v.sleeper = spawn(t, b, func(*int) { sched.Sleep(time.Millisecond) }, nil)
		v.fault = spawn(t, b, func(*int) { *nowhere = 1 }, nil)
		v.ended = spawn(t, b, count, new(atomic.Int64))
		within(t, "WaitFor", func() error {
			for b.Stats().Ends%4 != 3 {
				time.Sleep(50 * time.Microsecond)
			}
			return nil
		})
		v.parked = spawn(t, b, func(*int) { sched.Park("the visit") }, nil)
		run(t, a, func(v *visit) {
			w := lwp.Self().TID()
			check := func(i int, err error) {
				v.errs[i] |= noteOf(err)
				if lwp.Self().TID() != w {
					v.strayed++
				}
			}
			check(0, v.sleeper.Join())
			if f, ok := v.fault.Join().(*lwp.Fault); ok && f.Signal == unix.SIGSEGV {
				v.faults++
			}
			check(1, v.ended.Detach())
			check(2, v.parked.Unpark())
			check(3, v.parked.Join())
		}, v)
		b.Release()
	}
	if v.errs != [4]note{} || v.faults != lwptest.Count(50, 5) || v.strayed != 0 {
		t.Errorf("errors %v, %d faults, on another thread %d times", v.errs, v.faults, v.strayed)
	}
}

// TestJoinAcrossHearsOfDeadlock: a fiber that joins one of another scheduler, with
// a limit or without, hears that nothing can wake that, and does not keep Close
// waiting.
func TestJoinAcrossHearsOfDeadlock(t *testing.T) {
	a := begin(t, 1)
	b, err := sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	type visit struct {
		stuck sched.Fiber
		token sched.Token
		errs  [3]note
	}
	v := new(visit)
	v.stuck = spawn(t, b, func(*int) { sched.Park("nobody") }, nil)
	run(t, a, func(v *visit) {
		v.errs = [3]note{noteOf(v.stuck.JoinFor(time.Minute)), noteOf(v.stuck.JoinWithin(sched.Until(&v.token))), noteOf(v.stuck.Join())}
	}, v)
	for i := range v.errs {
		want(t, "a join", v.errs[i].err(), sched.ErrDeadlock)
	}
	within(t, "Close", func() error {
		want(t, "Close", b.Close(), sched.ErrDeadlock)
		return nil
	})
}

// TestThreadHearsOfDeadlock: a thread has no heap to list the fibers on.
func TestThreadHearsOfDeadlock(t *testing.T) {
	s := begin(t, 1)
	f := spawn(t, s, func(*int) { sched.Park("the test") }, nil)
	type answer struct {
		s          *sched.Scheduler
		f          sched.Fiber
		join, wait bool
	}
	a := &answer{s: s, f: f}
	lwptest.OnThread(t, func(a *answer) {
		a.join = a.f.Join() == sched.ErrDeadlock
		a.wait = a.s.Wait() == sched.ErrHosted
	}, a)
	if !a.join || !a.wait {
		t.Errorf("told of Join: %v, of Wait: %v", a.join, a.wait)
	}
	if dead := new(sched.DeadlockError); !errors.As(f.Join(), &dead) || len(dead.Fibers) != 1 {
		t.Error("a goroutine is not")
	}
	want(t, "Unpark", f.Unpark(), nil)
	within(t, "Join", f.Join)
}
