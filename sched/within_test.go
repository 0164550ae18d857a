package sched_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A bounder is what the tests of limits work on.
type bounder struct {
	tok, canceled sched.Token
	target        sched.Fiber
	release       sched.Semaphore
	waiting       atomic.Int64
	over          atomic.Bool
	failed        int
	counts        [8]atomic.Int64
}

func (x *bounder) step(n int, ok bool) {
	if !ok && x.failed == 0 {
		x.failed = n
	}
}

func (x *bounder) check(t *testing.T) {
	t.Helper()
	if x.failed != 0 {
		t.Errorf("step %d", x.failed)
	}
}

// TestParkWithinEndsByWhatComes: an Unpark, the time, a Token before and while it waits.
func TestParkWithinEndsByWhatComes(t *testing.T) {
	s := begin(t, 1)
	x := &bounder{}
	x.canceled.Cancel()
	f := spawn(t, s, func(x *bounder) {
		start := clock()
		x.step(1, sched.ParkWithin("time", sched.For(2*time.Millisecond)) == sched.ErrTimeout && clock()-start >= 2*time.Millisecond)
		x.step(2, sched.ParkWithin("token", sched.Until(&x.canceled)) == sched.ErrCanceled)
		sched.Current().Unpark()
		x.step(3, sched.ParkWithin("token", sched.Until(&x.canceled)) == nil)
		x.step(4, sched.ParkWithin("no time", sched.For(0)) == sched.ErrTimeout)
		x.waiting.Store(1)
		x.step(5, sched.ParkWithin("the test", sched.Limit{Timeout: time.Hour, Token: &x.tok}) == nil)
		x.waiting.Store(2)
		x.step(6, sched.ParkWithin("the test", sched.Limit{Timeout: time.Hour, Token: &x.tok}) == sched.ErrCanceled)
		x.waiting.Store(3)
		x.step(7, sched.ParkWithin("the test", sched.Limit{}) == nil)
	}, x)
	s.Hold()
	wait := func(n int64) {
		lwptest.Eventually(t, "the fiber to wait", func() bool { return x.waiting.Load() == n })
		time.Sleep(time.Millisecond)
	}
	wait(1)
	f.Unpark()
	wait(2)
	x.tok.Cancel()
	wait(3)
	f.Unpark()
	s.Release()
	within(t, "Join", f.Join)
	x.check(t)
	want(t, "ParkWithin on a goroutine", sched.ParkWithin("", sched.For(0)), sched.ErrNotFiber)
}

// TestSleepWithin on a fiber, a thread and a goroutine.
func TestSleepWithin(t *testing.T) {
	everywhere(t, func(x *trial) {
		const d = 2 * time.Millisecond
		fail := func(n int, bad bool) {
			if bad && x.failed == 0 {
				x.failed = n
			}
		}
		start := clock()
		fail(1, sched.SleepWithin(d, sched.For(time.Hour)) != nil || clock()-start < d)
		start = clock()
		fail(2, sched.SleepWithin(time.Hour, sched.For(d)) != sched.ErrTimeout || clock()-start < d)
		fail(3, sched.SleepWithin(d, sched.Limit{}) != nil)
		fail(4, sched.SleepWithin(time.Hour, sched.Until(&x.tok)) != sched.ErrCanceled)
		fail(5, sched.SleepWithin(time.Hour, sched.Until(&x.tok)) != sched.ErrCanceled)
		fail(6, sched.SleepWithin(0, sched.Limit{}) != nil)
	}, func() *trial {
		x := new(trial)
		time.AfterFunc(10*time.Millisecond, x.tok.Cancel)
		return x
	}, func(t *testing.T, x *trial) {
		if x.failed != 0 {
			t.Errorf("step %d", x.failed)
		}
	})
}

// TestJoinWithinCanBeTriedAgain: the fiber is joined after limits that came
// first, and its fault is told then.
func TestJoinWithinCanBeTriedAgain(t *testing.T) {
	s := begin(t, 2)
	other := begin(t, 1)
	joins := func(x *bounder) {
		start := clock()
		x.step(1, x.target.JoinWithin(sched.For(time.Millisecond)) == sched.ErrTimeout && clock()-start >= time.Millisecond)
		x.step(2, x.target.JoinWithin(sched.Until(&x.canceled)) == sched.ErrCanceled)
		x.step(3, x.target.JoinFor(0) == sched.ErrTimeout)
		x.step(4, x.target.JoinWithin(sched.Limit{Timeout: time.Hour, Token: &x.tok}) == sched.ErrCanceled)
		x.step(5, x.target.JoinFor(time.Millisecond) == sched.ErrTimeout)
		x.release.Release(1)
		_, ok := x.target.JoinWithin(sched.For(time.Minute)).(*lwp.Fault)
		x.step(6, ok)
		x.step(7, x.target.JoinWithin(sched.For(time.Minute)) == sched.ErrJoined)
		x.step(8, sched.Fiber{}.JoinWithin(sched.Limit{}) == sched.ErrNoFiber)
		if me := sched.Current(); me != (sched.Fiber{}) {
			x.step(9, me.JoinWithin(sched.For(time.Minute)) == sched.ErrSelf)
		}
	}
	for what, where := range map[string]func(*bounder){
		"fiber":               func(x *bounder) { run(t, s, joins, x) },
		"another scheduler's": func(x *bounder) { run(t, other, joins, x) },
		"goroutine":           func(x *bounder) { joins(x) },
		"thread":              func(x *bounder) { lwptest.OnThread(t, joins, x) },
	} {
		t.Run(what, func(t *testing.T) {
			x := &bounder{}
			x.canceled.Cancel()
			time.AfterFunc(20*time.Millisecond, x.tok.Cancel)
			s.Hold()
			defer s.Release()
			x.target = spawn(t, s, func(x *bounder) {
				x.release.Acquire(1)
				*nowhere = 1
			}, x)
			where(x)
			x.check(t)
		})
	}
	// Without a Hold, a goroutine is told of a deadlock, whatever its limit.
	x := &bounder{}
	f := spawn(t, s, func(x *bounder) { x.release.Acquire(1) }, x)
	want(t, "JoinWithin", f.JoinWithin(sched.Limit{Timeout: time.Hour, Token: &x.tok}), sched.ErrDeadlock)
	want(t, "JoinWithin", f.JoinWithin(sched.For(time.Hour)), sched.ErrDeadlock)
	x.release.Release(1)
	within(t, "JoinWithin", func() error { return f.JoinWithin(sched.For(time.Minute)) })
}

// TestCloseEndsWaitsWithATokenToo: what is left of them in the Token's queue
// would be found by its Cancel.
func TestCloseEndsWaitsWithATokenToo(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	for range 20 {
		s, err := sched.New(sched.Config{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		x := &bounder{}
		x.target = spawn(t, s, func(x *bounder) { x.release.AcquireWithin(1, sched.Until(&x.tok)) }, x)
		spawn(t, s, func(x *bounder) { sched.ParkWithin("a token", sched.Until(&x.tok)) }, x)
		spawn(t, s, func(x *bounder) { x.target.JoinWithin(sched.Until(&x.tok)) }, x)
		spawn(t, s, func(x *bounder) {
			var timer sched.Timer
			timer.WaitWithin(sched.Until(&x.tok))
		}, x)
		var dead *sched.DeadlockError
		if err := s.Close(); !errors.As(err, &dead) || len(dead.Fibers) != 4 {
			t.Fatal(err)
		}
		x.tok.Cancel()
	}
}

// TestLimitsThatRaceWithWhatIsWaitedFor: every Unpark, every end of a fiber and
// every permit is had by somebody, once, whatever else ends a wait just then.
func TestLimitsThatRaceWithWhatIsWaitedFor(t *testing.T) {
	s := begin(t, 8)
	other := begin(t, 1)
	lwptest.Collect(t)
	x := &bounder{}
	tokens := make([]sched.Token, 64)
	theTokens = tokens
	var fs []sched.Fiber
	for range 16 {
		fs = append(fs, spawn(t, s, joinRace, x))
	}
	for range 4 {
		fs = append(fs, spawn(t, other, joinRace, x), spawn(t, other, parkRace, x))
	}
	for range 8 {
		fs = append(fs, spawn(t, s, parkRace, x))
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		seed := uint64(1)
		for !x.over.Load() {
			f := spawn(t, s, func(x *bounder) { sched.Yield() }, x)
			for f.JoinWithin(sched.Limit{Timeout: time.Duration(random(&seed) % 30_000), Token: &x.tok}) != nil {
			}
		}
	})
	time.Sleep(stressTime(700 * time.Millisecond))
	x.over.Store(true)
	for _, f := range fs {
		within(t, "Join", f.Join)
	}
	wg.Wait()
	x.check(t)
	t.Logf("joined, timed out, canceled: %d %d %d; parked: %d %d %d", x.counts[0].Load(), x.counts[1].Load(), x.counts[2].Load(),
		x.counts[3].Load(), x.counts[4].Load(), x.counts[5].Load())
}

var theTokens []sched.Token

// joinRace joins children that end at about the time of the limit.
func joinRace(x *bounder) {
	seed := sched.Current().Serial() * 77
	type child struct {
		d     time.Duration
		tok   sched.Token
		ended atomic.Int64
	}
	for !x.over.Load() {
		var c child
		c.d = time.Duration(random(&seed) % 40_000)
		f, err := sched.Go(func(c *child) {
			switch c.d % 3 {
			case 0:
				sched.Sleep(c.d)
			case 1:
				sched.Yield()
			}
			c.ended.Add(1)
		}, &c)
		if err != nil {
			x.step(1, false)
			return
		}
		k, err := sched.Go(func(c *child) {
			sched.Sleep(c.d)
			c.tok.Cancel()
		}, &c)
		if err != nil {
			x.step(2, false)
			return
		}
		l := sched.Limit{Timeout: time.Duration(random(&seed)%40_000) + 1}
		if random(&seed)%2 == 0 {
			l.Token = &c.tok
		}
		switch f.JoinWithin(l) {
		case nil:
			x.counts[0].Add(1)
			x.step(3, c.ended.Load() == 1)
			x.step(4, f.Join() == sched.ErrJoined)
		case sched.ErrTimeout:
			x.counts[1].Add(1)
			x.step(5, f.Join() == nil && c.ended.Load() == 1)
		case sched.ErrCanceled:
			x.counts[2].Add(1)
			x.step(6, f.JoinFor(time.Minute) == nil && c.ended.Load() == 1)
		default:
			x.step(7, false)
		}
		k.Join()
	}
}

// parkRace is woken by a child, by the time and by a Token at about the same time.
func parkRace(x *bounder) {
	seed := sched.Current().Serial() * 99
	type child struct {
		d      time.Duration
		tok    sched.Token
		parent sched.Fiber
		woken  atomic.Int64
	}
	for !x.over.Load() {
		var c child
		c.d = time.Duration(random(&seed) % 40_000)
		c.parent = sched.Current()
		f, err := sched.Go(func(c *child) {
			if c.d%4 != 0 {
				sched.Sleep(c.d)
			}
			c.woken.Add(1)
			c.parent.Unpark()
		}, &c)
		if err != nil {
			x.step(8, false)
			return
		}
		k, err := sched.Go(func(c *child) {
			sched.Sleep(c.d)
			c.tok.Cancel()
		}, &c)
		if err != nil {
			x.step(9, false)
			return
		}
		l := sched.Limit{Timeout: time.Duration(random(&seed)%40_000) + 1}
		if random(&seed)%2 == 0 {
			l.Token = &c.tok
		}
		switch sched.ParkWithin("a child", l) {
		case nil:
			x.counts[3].Add(1)
			x.step(10, c.woken.Load() == 1)
		case sched.ErrTimeout:
			x.counts[4].Add(1)
			sched.Park("a child") // the Unpark is not lost
			x.step(11, c.woken.Load() == 1)
		case sched.ErrCanceled:
			x.counts[5].Add(1)
			x.step(12, sched.ParkWithin("a child", sched.For(time.Minute)) == nil && c.woken.Load() == 1)
		}
		f.Join()
		k.Join()
		x.step(13, !sched.ParkFor("nobody", 0)) // nor is it there twice
	}
}
