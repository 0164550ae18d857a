package sched_test

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
	"lwprt/tls"
)

// TestCloseMeetsThoseWhoWait has goroutines come to wait at any moment of a
// Close: nobody tells them anything once the workers are gone.
func TestCloseMeetsThoseWhoWait(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	for round := range lwptest.Count(200, 40) {
		s, err := sched.New(sched.Config{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		stays := round%2 == 1
		f := spawn(t, s, func(stays *bool) {
			if *stays {
				sched.Park("nobody")
			}
		}, &stays)
		var dead *sched.DeadlockError
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				switch err := s.Wait(); {
				case err == sched.ErrClosed:
					return
				case err != nil && !errors.As(err, &dead):
					t.Error("Wait: ", err)
				}
			}
		})
		wg.Go(func() {
			for {
				switch err := f.Join(); {
				case err == nil || err == sched.ErrJoined || err == sched.ErrNoFiber:
					return
				case !errors.As(err, new(*sched.DeadlockError)):
					t.Error("Join: ", err)
				}
			}
		})
		for range round % 7 {
			runtime.Gosched()
		}
		lwptest.Within(t, "Close", func() {
			if err := s.Close(); (err != nil) != stays {
				t.Error("Close: ", err)
			}
		})
		lwptest.Within(t, "those who wait", wg.Wait)
		if t.Failed() {
			return
		}
	}
}

// TestCloseMeetsHandles uses the handles of fibers while their slots go.
func TestCloseMeetsHandles(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	for round := range lwptest.Count(200, 40) {
		s, err := sched.New(sched.Config{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		ran := new(atomic.Int64)
		var fs [8]sched.Fiber
		for i := range fs {
			fs[i] = spawn(t, s, count, ran)
		}
		within(t, "Wait", s.Wait)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					err := error(nil)
					for i := range fs[:7] {
						err = fs[i].Unpark()
					}
					if err != nil {
						return
					}
				}
			})
		}
		for range round % 5 {
			runtime.Gosched()
		}
		within(t, "Close", s.Close)
		if err := fs[7].Detach(); err != sched.ErrJoined && err != sched.ErrNoFiber {
			t.Error("Detach: ", err)
		}
		lwptest.Within(t, "Unpark", wg.Wait)
	}
}

var otherKey = mustKey(tls.NewKey[uint64](nil))

// TestCloseOfADeadlockLetsArgumentsGo: fibers that never end keep nothing
// reachable once their scheduler is closed.
func TestCloseOfADeadlockLetsArgumentsGo(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	const n = 20
	let := new(atomic.Int64)
	for range n {
		arg := new([1 << 16]byte)
		runtime.AddCleanup(arg, func(n *atomic.Int64) { n.Add(1) }, let)
		spawn(t, s, func(*[1 << 16]byte) {
			sched.Set(stressKey, 1)
			sched.Park("nobody")
		}, arg)
	}
	if err := s.Close(); !errors.As(err, new(*sched.DeadlockError)) {
		t.Error("Close: ", err)
	}
	// Nor do those to come find their values.
	s, err = sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	stale := new(atomic.Int64)
	for range 2 * n {
		run(t, s, func(n *atomic.Int64) {
			sched.Set(otherKey, 1)
			if _, ok := sched.Get(stressKey); ok {
				n.Add(1)
			}
		}, stale)
	}
	within(t, "Close", s.Close)
	if stale.Load() != 0 {
		t.Errorf("%d fibers have values that they have not set", stale.Load())
	}
	lwptest.Eventually(t, "the arguments to go", func() bool {
		runtime.GC()
		return let.Load() == n
	})
}

// TestCloseMeetsThoseWhoWake: fibers in a deadlock that somebody wakes when the
// workers have ended do not go on, and leave nothing behind: neither a place in
// the queue of what they waited with, nor a lock that waits for them to come.
func TestCloseMeetsThoseWhoWake(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	type shared struct {
		m     sched.Mutex
		token sched.Token
		begun atomic.Int64
	}
	x := new(shared)
	x.m.Lock()
	parks := spawn(t, s, func(x *shared) {
		x.begun.Add(1)
		sched.ParkWithin("the test", sched.Until(&x.token))
	}, x)
	spawn(t, s, func(x *shared) {
		x.begun.Add(1)
		x.m.Lock()
	}, x)
	within(t, "Close", func() error {
		err := s.CloseAmid(func() {
			want(t, "Unpark", parks.Unpark(), nil)
			x.m.Unlock()
		})
		if !errors.As(err, new(*sched.DeadlockError)) || x.begun.Load() != 2 {
			t.Errorf("%d have begun: %v", x.begun.Load(), err)
		}
		return nil
	})
	if !x.token.Deserted() {
		t.Error("a fiber that is gone waits with a Token")
	}
	within(t, "Lock", func() error { return x.m.LockWithin(sched.For(soon)) })
	x.m.Unlock()
	if !x.m.TryLock() {
		t.Error("a Mutex that nobody has or waits for is not free")
	}
}
