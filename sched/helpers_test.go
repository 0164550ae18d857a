package sched_test

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// begin makes a scheduler and checks at the end that nothing has leaked: no
// fiber, no slot, no thread, no memory.
func begin(t testing.TB, workers int) *sched.Scheduler {
	t.Helper()
	return beginWith(t, sched.Config{Workers: workers, StackSize: 4 << 10})
}

func beginWith(t testing.TB, config sched.Config) *sched.Scheduler {
	t.Helper()
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(config)
	if err != nil {
		t.Fatal("New: ", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			return // what is left may never end
		}
		within(t, "Close", func() error {
			if err := s.Wait(); err != nil {
				return err
			}
			lwptest.Eventually(t, "the slots to be free", func() bool { return s.Slots() == 0 })
			return s.Close()
		})
	})
	return s
}

// warm has everything made that is made once in a program.
var warm = sync.OnceFunc(func() {
	if s, err := sched.New(sched.Config{}); err == nil {
		s.Close()
	}
})

// within fails t if what takes longer than a minute or returns an error.
func within(t testing.TB, what string, do func() error) {
	t.Helper()
	lwptest.Within(t, what, func() {
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

// run runs fn(arg) on a fiber of s and waits for its end.
func run[T any](t testing.TB, s *sched.Scheduler, fn func(*T), arg *T) {
	t.Helper()
	f := spawn(t, s, fn, arg)
	within(t, "Join", f.Join)
}

func spawn[T any](t testing.TB, s *sched.Scheduler, fn func(*T), arg *T) sched.Fiber {
	t.Helper()
	return spawnAttr(t, s, fn, arg, sched.Attr{})
}

func spawnAttr[T any](t testing.TB, s *sched.Scheduler, fn func(*T), arg *T, attr sched.Attr) sched.Fiber {
	t.Helper()
	f, err := sched.SpawnAttr(s, fn, arg, attr)
	if err != nil {
		t.Fatal("Spawn: ", err)
	}
	return f
}

func want(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// A note is an error as a fiber can keep it.
type note uint32

// noteOf returns the number of an error of this package, 0 for nil. It is freestanding.
func noteOf(err error) note {
	for i := range noted {
		if err == noted[i] {
			return note(i)
		}
	}
	return note(len(noted))
}

var noted = [...]error{nil, sched.ErrNilFunc, sched.ErrStackSize, sched.ErrConfig, sched.ErrNoFiber, sched.ErrJoined,
	sched.ErrDetached, sched.ErrSelf, sched.ErrNotFiber, sched.ErrHosted, sched.ErrClosed, sched.ErrTimeout,
	sched.ErrDeadlock, sched.ErrChanClosed, sched.ErrNilChan, sched.ErrNotReady, sched.ErrCanceled}

func (n note) err() error {
	if int(n) < len(noted) {
		return noted[n]
	}
	return errors.New("an error that is not of this package, or a fault")
}

const soon = 20 * time.Millisecond

// stressTime is how long a stress test runs: LWPRT_SCHED_STRESS, if that is
// set, or d, a tenth of it under -short.
func stressTime(d time.Duration) time.Duration {
	if long, err := time.ParseDuration(os.Getenv("LWPRT_SCHED_STRESS")); err == nil {
		return long
	}
	return d / time.Duration(lwptest.Count(1, 10))
}
