package sched_test

import (
	"sync/atomic"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A firing is who came when.
type firing struct {
	at    [60]futex.Deadline
	next  atomic.Int64
	spot  [60]int
	begun atomic.Int64
	t     [60]sched.Timer
	kind  int
	lead  time.Duration
	late  bool
}

// TestTimersFireOldestFirst has many come due at one look: those of one instant
// come in the order in which they were set.
func TestTimersFireOldestFirst(t *testing.T) {
	for kind, name := range []string{"limits", "timers", "mixed"} {
		t.Run(name, func(t *testing.T) {
			tries := 0
			for yields := 0; yields < 2; yields++ {
				s := begin(t, 1)
				o := &firing{kind: kind, lead: 5 * time.Millisecond << tries}
				run(t, s, func(o *firing) {
					base := futex.Monotonic() + o.lead.Nanoseconds()
					for i := range o.at {
						// Three at a time at one instant, the latest instants first.
						o.at[i] = futex.AtMonotonic(base + int64((len(o.at)-1-i)/3)*1000)
						sched.GoAttr(func(i *int) {
							o := theFiring
							o.begun.Add(1)
							if o.kind == 0 || o.kind == 2 && *i%2 == 0 {
								var sem sched.Semaphore
								sem.AcquireWithin(1, sched.Limit{Deadline: o.at[*i]})
							} else {
								o.t[*i].ResetAt(o.at[*i])
								o.t[*i].Wait()
							}
							o.spot[*i] = int(o.next.Add(1))
						}, &numbers[i], sched.Attr{Detached: true})
						for int(o.begun.Load()) <= i {
							sched.Yield()
						}
					}
					o.late = futex.Monotonic() > base
				}, begins(o))
				run(t, s, func(o *firing) {
					for futex.Monotonic() < o.at[0].Monotonic()+1e6 { // nobody looks meanwhile
					}
				}, o)
				if yields == 1 {
					run(t, s, func(o *firing) {
						for int(o.next.Load()) < len(o.spot) {
							sched.Yield()
						}
					}, o)
				}
				within(t, "Wait", s.Wait)
				if o.late && tries < 10 {
					tries++
					yields--
					continue
				}
				for i, got := range o.spot {
					if want := len(o.spot) - 3 - i/3*3 + i%3 + 1; got != want {
						t.Fatalf("the %d. came as the %d., not the %d.: %v", i, got, want, o.spot)
					}
				}
			}
		})
	}
}

var (
	theFiring *firing
	numbers   [60]int
)

func begins(o *firing) *firing {
	theFiring = o
	for i := range numbers {
		numbers[i] = i
	}
	return o
}

// TestFunctionsRunInOrder: each once, or not if it was stopped.
func TestFunctionsRunInOrder(t *testing.T) {
	s := begin(t, 1)
	o := &firing{}
	run(t, s, func(o *firing) {
		for i := range o.t {
			if err := sched.AfterFunc(&o.t[i], 3*time.Millisecond, func(i *int) { theFiring.spot[*i] = int(theFiring.next.Add(1)) }, &numbers[i]); err != nil {
				return
			}
		}
		for i := range o.t {
			if i%3 == 0 && o.t[i].Stop() {
				o.begun.Add(1)
			}
		}
		sched.Sleep(10 * time.Millisecond)
		for i := range o.t {
			if o.t[i].Stop() {
				o.begun.Add(1000)
			}
		}
	}, begins(o))
	within(t, "Wait", s.Wait)
	n := 0
	for i, got := range o.spot {
		switch {
		case i%3 == 0 && got != 0:
			t.Errorf("the %d. was stopped and ran", i)
		case i%3 != 0:
			if n++; got != n {
				t.Errorf("the %d. ran as the %d., not the %d.", i, got, n)
			}
		}
	}
	if o.begun.Load() != 20 {
		t.Errorf("%d were stopped", o.begun.Load())
	}
}

// TestFunctionThatIsNotDueDoesNotHoldUpClose, nor runs after it.
func TestFunctionThatIsNotDueDoesNotHoldUpClose(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	type late struct {
		t   sched.Timer
		ran atomic.Int64
		err note
	}
	x := new(late)
	run(t, s, func(x *late) { x.err = noteOf(sched.AfterFunc(&x.t, time.Hour, count, &x.ran)) }, x)
	want(t, "AfterFunc", x.err.err(), nil)
	want(t, "AfterFunc on a goroutine", sched.AfterFunc(&x.t, time.Hour, count, &x.ran), sched.ErrNotFiber)
	want(t, "AfterFunc without one", sched.AfterFunc[int](&x.t, time.Hour, nil, nil), sched.ErrNilFunc)
	within(t, "Close", s.Close)
	if x.t.Stop() || x.ran.Load() != 0 {
		t.Error("it is still set after Close")
	}
}

// A trial is one thing that is tried where a Timer can wait.
type trial struct {
	t, t2  sched.Timer
	c      sched.Chan[int]
	k      sched.Ticker
	sem    sched.Semaphore
	tok    sched.Token
	d      time.Duration
	took   time.Duration
	n      int
	err    note
	ok     bool
	failed int // a line
}

func clock() time.Duration { return time.Duration(futex.Monotonic()) }

// everywhere runs fn on a fiber, a thread and a goroutine.
func everywhere(t *testing.T, fn func(*trial), make func() *trial, check func(t *testing.T, x *trial)) {
	t.Run("fiber", func(t *testing.T) {
		s := beginWith(t, sched.Config{Workers: 1, StackSize: 16 << 10}) // Select takes some in unoptimized code
		x := make()
		s.Hold()
		run(t, s, fn, x)
		s.Release()
		check(t, x)
	})
	t.Run("thread", func(t *testing.T) {
		lwptest.SkipRace(t)
		x := make()
		lwptest.OnThread(t, fn, x)
		check(t, x)
	})
	t.Run("goroutine", func(t *testing.T) {
		x := make()
		lwptest.Within(t, "the goroutine", func() { fn(x) })
		check(t, x)
	})
}

// TestTimerComesOnceAndNotEarly, wherever it is waited for.
func TestTimerComesOnceAndNotEarly(t *testing.T) {
	everywhere(t, func(x *trial) {
		start := clock()
		x.t.Reset(x.d)
		x.t.Wait()
		x.took = clock() - start
		x.err = noteOf(x.t.WaitWithin(sched.For(2 * time.Millisecond)))
		x.ok = x.t.Stop()
	}, func() *trial { return &trial{d: 3 * time.Millisecond} }, func(t *testing.T, x *trial) {
		if x.took < x.d {
			t.Errorf("early: after %v", x.took)
		}
		want(t, "the second Wait", x.err.err(), sched.ErrTimeout)
		if x.ok {
			t.Error("Stop of a Timer that has fired")
		}
	})
}

// TestTimerSetAndStopped: what Stop says, and what a Wait gets afterwards.
func TestTimerSetAndStopped(t *testing.T) {
	fail := func(x *trial, n int, bad bool) {
		if bad && x.failed == 0 {
			x.failed = n
		}
	}
	everywhere(t, func(x *trial) {
		soon := sched.For(100 * time.Microsecond)
		fail(x, 1, x.t.Stop())                               // never set
		fail(x, 2, x.t.WaitWithin(soon) != sched.ErrTimeout) // never set
		x.t.Reset(time.Hour)
		fail(x, 3, !x.t.Stop())
		fail(x, 4, x.t.Stop())
		fail(x, 5, x.t.WaitWithin(soon) != sched.ErrTimeout)
		x.t.Reset(0)
		fail(x, 6, x.t.WaitWithin(soon) != nil)
		x.t.Reset(-1)
		fail(x, 7, x.t.Stop()) // due, not taken
		fail(x, 8, x.t.WaitWithin(soon) != sched.ErrTimeout)
		x.t.Reset(time.Microsecond)
		for until := clock() + 10*time.Microsecond; clock() < until; {
		}
		x.t.Reset(time.Hour) // forgets that it came
		fail(x, 9, x.t.WaitWithin(soon) != sched.ErrTimeout)
		x.t.ResetAt(futex.AtMonotonic(1))
		fail(x, 10, x.t.WaitWithin(sched.Limit{}) != nil)
		x.t.ResetAt(futex.Never)
		fail(x, 11, x.t.Stop())
		x.t.Reset(time.Hour)
		fail(x, 12, x.t.WaitWithin(sched.For(0)) != sched.ErrTimeout)
		x.t.Reset(1<<63 - 1)
		fail(x, 13, !x.t.Stop())
		x.tok.Cancel()
		fail(x, 14, x.t.WaitWithin(sched.Until(&x.tok)) != sched.ErrCanceled)
		a := sched.After(time.Microsecond)
		a.Wait()
		fail(x, 15, a.Stop())
	}, func() *trial { return new(trial) }, func(t *testing.T, x *trial) {
		if x.failed != 0 {
			t.Errorf("step %d", x.failed)
		}
	})
}

// TestTickerCountsWhatWasMissed and does not drift.
func TestTickerCountsWhatWasMissed(t *testing.T) {
	everywhere(t, func(x *trial) {
		const d = time.Millisecond
		start := clock()
		x.k.Reset(d)
		for x.n < 20 {
			n := x.k.Wait()
			x.n += n
			if clock()-start < time.Duration(x.n)*d {
				x.failed = 1
			}
			if n > 1 {
				x.ok = true
			}
			if x.n >= 5 && x.n < 10 {
				for until := clock() + 4*d; clock() < until; {
				}
			}
		}
		x.took = clock() - start
		x.k.Stop()
		_, err := x.k.WaitWithin(sched.For(3 * d))
		x.err = noteOf(err)
		if x.k.Reset(0) != sched.ErrConfig {
			x.failed = 2
		}
		e := sched.Every(d)
		if e.Wait() < 1 {
			x.failed = 3
		}
	}, func() *trial { return new(trial) }, func(t *testing.T, x *trial) {
		if x.failed != 0 || !x.ok {
			t.Errorf("step %d, missed ticks counted: %t", x.failed, x.ok)
		}
		if most := int(x.took / time.Millisecond); x.n > most {
			t.Errorf("%d ticks in %v", x.n, x.took)
		}
		want(t, "Wait for a stopped one", x.err.err(), sched.ErrTimeout)
	})
}

// TestResetWhileSomebodyWaits, earlier and later, set and stopped.
func TestResetWhileSomebodyWaits(t *testing.T) {
	everywhere(t, func(x *trial) {
		start := clock()
		x.t.Wait()
		x.took = clock() - start
	}, func() *trial {
		x := &trial{}
		x.t.Reset(time.Hour)
		go func() {
			time.Sleep(2 * time.Millisecond)
			x.t.Reset(time.Minute)
			x.t.Stop()
			time.Sleep(2 * time.Millisecond)
			x.t.Reset(2 * time.Hour)
			time.Sleep(2 * time.Millisecond)
			x.t.Reset(time.Millisecond)
		}()
		return x
	}, func(t *testing.T, x *trial) {
		if x.took > 30*time.Second {
			t.Error("it went by the first setting")
		}
	})
}

// TestTimerThatSomebodyWaitsForIsNoDeadlock, but one that is stopped is.
func TestTimerThatSomebodyWaitsForIsNoDeadlock(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(sched.Config{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	x := &trial{}
	x.k.Reset(time.Millisecond) // nobody waits for that one
	x.t.Reset(10 * time.Millisecond)
	f := spawn(t, s, func(x *trial) { x.t.Wait() }, x)
	within(t, "Join", f.Join)
	x.t.Reset(time.Hour)
	f = spawn(t, s, func(x *trial) { x.t.Wait() }, x)
	want(t, "WaitFor", s.WaitFor(5*time.Millisecond), sched.ErrTimeout)
	got := make(chan error, 1)
	go func() { got <- f.Join() }()
	time.Sleep(2 * time.Millisecond)
	if !x.t.Stop() {
		t.Error("Stop: it had fired")
	}
	select {
	case err := <-got:
		want(t, "Join", err, sched.ErrDeadlock)
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told of the deadlock")
	}
	want(t, "Close", s.Close(), sched.ErrDeadlock)
	x.t.Reset(0) // the queue must be empty
	if err := x.t.WaitWithin(sched.For(time.Second)); err != nil {
		t.Error("after Close: ", err)
	}
}

// TestTimerOfAnotherSchedulerIsNoDeadlock: fibers of two schedulers wait for one
// Ticker, and it is in the wheel of the first. Both have ticks; when it is stopped,
// both are told.
func TestTimerOfAnotherSchedulerIsNoDeadlock(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	type both struct {
		t      sched.Timer
		k      sched.Ticker
		c      sched.Chan[int]
		none   int
		over   atomic.Bool
		begun  atomic.Int64
		waited [2]int
	}
	waits := func(x *both) {
		x.begun.Add(1)
		for !x.over.Load() {
			x.k.Wait()
			x.waited[0]++
		}
	}
	selects := func(x *both) {
		x.begun.Add(1)
		for range 3 {
			if i, err := sched.Select(x.c.RecvCase(&x.none), x.k.Case()); i != 1 || err != nil {
				return
			}
			x.waited[1]++
		}
	}
	for _, other := range []func(*both){selects, func(x *both) {
		x.begun.Add(1)
		for range 3 {
			x.k.Wait()
			x.waited[1]++
		}
	}} {
		var s [2]*sched.Scheduler
		for i := range s {
			var err error
			if s[i], err = sched.New(sched.Config{Workers: 1}); err != nil {
				t.Fatal(err)
			}
		}
		x := new(both)
		want(t, "Reset", x.k.Reset(5*time.Millisecond), nil)
		spawn(t, s[0], waits, x)
		lwptest.Eventually(t, "the first to wait", func() bool { return x.begun.Load() == 1 })
		f := spawn(t, s[1], other, x)
		within(t, "Join of the second", f.Join)
		x.over.Store(true)
		within(t, "Wait for the first", s[0].Wait)
		if x.waited[0] == 0 || x.waited[1] != 3 {
			t.Errorf("the first had %d ticks, the second %d", x.waited[0], x.waited[1])
		}

		x.t.Reset(time.Hour)
		for i := range s {
			spawn(t, s[i], func(x *both) {
				x.begun.Add(1)
				x.t.Wait()
			}, x)
			lwptest.Eventually(t, "a fiber to wait", func() bool { return x.t.Waiting() == i+1 })
		}
		for i := range s {
			want(t, "WaitFor", s[i].WaitFor(2*time.Millisecond), sched.ErrTimeout)
		}
		x.t.Stop()
		for i := range s {
			want(t, "WaitFor", s[i].WaitFor(20*time.Second), sched.ErrDeadlock)
		}
		for i := range s {
			want(t, "Close", s[i].Close(), sched.ErrDeadlock)
		}
	}
}

// TestThreadSleepsWhileTimerHasAFunction: who waits for a Timer that gets a
// function waits for the next Reset, and does not look for it all the time.
func TestThreadSleepsWhileTimerHasAFunction(t *testing.T) {
	s := begin(t, 1)
	x := &trial{}
	run(t, s, func(x *trial) {
		sched.AfterFunc(&x.t, time.Hour, func(*trial) {}, x)
	}, x)
	got := make(chan error, 1)
	go func() { got <- x.t.WaitWithin(sched.For(time.Minute)) }()
	lwptest.Eventually(t, "the goroutine to wait", func() bool { return x.t.Waiting() == 1 })
	missed := 0
	for range 20_000 { // one who looks is out of the queue now and then
		if x.t.Waiting() == 0 {
			missed++
		}
	}
	x.t.Reset(0)
	want(t, "WaitWithin", <-got, nil)
	if missed > 0 {
		t.Errorf("%d times of 20000 it was not in the queue", missed)
	}
}

// TestForReadsNoClock: a limit that does not come into play is free, and lasts
// from the wait on, not from its making.
func TestForReadsNoClock(t *testing.T) {
	everywhere(t, func(x *trial) {
		l := sched.For(3 * time.Millisecond)
		for range 3 {
			start := clock()
			x.err = noteOf(x.sem.AcquireWithin(1, l))
			if clock()-start < 3*time.Millisecond {
				x.failed++
			}
		}
		x.sem.Release(2)
		x.ok = x.sem.AcquireWithin(1, l) == nil && x.sem.AcquireWithin(1, sched.For(0)) == nil
	}, func() *trial { return new(trial) }, func(t *testing.T, x *trial) {
		want(t, "AcquireWithin", x.err.err(), sched.ErrTimeout)
		if x.failed != 0 || !x.ok {
			t.Errorf("%d waits were short; permits that were there: %t", x.failed, x.ok)
		}
	})
}
