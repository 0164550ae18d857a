package sched_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A crew is a number of flows of control that do one function: fibers of two
// schedulers, threads and goroutines.
type crew struct {
	t    testing.TB
	s    [2]*sched.Scheduler
	wait []func()
}

// newCrew returns a crew whose schedulers have so many workers each.
func newCrew(t testing.TB, workers int) *crew {
	c := &crew{t: t}
	for i := range c.s {
		c.s[i] = beginWith(t, sched.Config{Workers: workers, StackSize: 8 << 10})
		c.s[i].Hold() // what they wait for may come from elsewhere
	}
	return c
}

// muster lets fn(&args[i]) run for all i.
func muster[T any](c *crew, fn func(*T), args []T) {
	for i := range args {
		a := &args[i]
		switch i % 5 {
		default:
			f := spawn(c.t, c.s[i%2], fn, a)
			c.wait = append(c.wait, func() { within(c.t, "Join", f.Join) })
		case 3:
			done := make(chan struct{})
			go func() {
				fn(a)
				close(done)
			}()
			c.wait = append(c.wait, func() { lwptest.Within(c.t, "a goroutine", func() { <-done }) })
		case 4:
			done := make(chan struct{})
			go func() {
				lwptest.OnThread(c.t, fn, a)
				close(done)
			}()
			c.wait = append(c.wait, func() { lwptest.Within(c.t, "a thread", func() { <-done }) })
		}
	}
}

// gather waits for all.
func (c *crew) gather() {
	for _, w := range c.wait {
		w()
	}
	c.wait = nil
}

// end waits for all, and they are the last.
func (c *crew) end() {
	c.gather()
	for _, s := range c.s {
		s.Release()
	}
}

// A ward has every primitive in a state in which whoever comes has to wait.
type ward struct {
	m, cm sched.Mutex
	rw    sched.RWMutex
	c     sched.Cond
	s     sched.Semaphore
	g     sched.WaitGroup
	b     sched.Barrier
	o     sched.Once
	e     sched.Event
	in    sched.Event // of o
	out   sched.Event // of o
}

// Kinds of waits.
const (
	forMutex = iota
	forRead
	forWrite
	forCond
	forSemaphore
	forGroup
	forBarrier
	forOnce
	forEvent
	numWaits
)

var waitNames = [numWaits]string{"mutex", "read lock", "write lock", "cond", "semaphore", "wait group", "barrier", "once", "event"}

var theWard *ward // for f of Once, which can capture nothing

func enterWard(w *ward) {
	w.in.Set()
	w.out.Wait()
}

func (w *ward) close() {
	w.m.Lock()
	w.rw.Lock()
	w.g.Add(1)
	w.b.Init(2)
}

// occupy runs w's Once, until free.
func occupy(w *ward) { w.o.Do(func() { enterWard(theWard) }) }

// wait waits as kind says. It is freestanding.
func (w *ward) wait(kind int, l sched.Limit) (err error) {
	switch kind {
	case forMutex:
		if err = w.m.LockWithin(l); err == nil {
			w.m.Unlock()
		}
	case forRead:
		if err = w.rw.RLockWithin(l); err == nil {
			w.rw.RUnlock()
		}
	case forWrite:
		if err = w.rw.LockWithin(l); err == nil {
			w.rw.Unlock()
		}
	case forCond:
		w.cm.Lock()
		err = w.c.WaitWithin(&w.cm, l)
		w.cm.Unlock()
	case forSemaphore:
		if err = w.s.AcquireWithin(1, l); err == nil {
			w.s.Release(1)
		}
	case forGroup:
		err = w.g.WaitWithin(l)
	case forBarrier:
		_, err = w.b.WaitWithin(l)
	case forOnce:
		err = w.o.DoWithin(nil, l)
	case forEvent:
		err = w.e.WaitWithin(l)
	}
	return err
}

// waitLong waits as kind says, by the form without a limit.
func (w *ward) waitLong(kind int) {
	switch kind {
	case forMutex:
		w.m.Lock()
		w.m.Unlock()
	case forRead:
		w.rw.RLock()
		w.rw.RUnlock()
	case forWrite:
		w.rw.Lock()
		w.rw.Unlock()
	case forCond:
		w.cm.Lock()
		w.c.Wait(&w.cm)
		w.cm.Unlock()
	case forSemaphore:
		w.s.Acquire(1)
		w.s.Release(1)
	case forGroup:
		w.g.Wait()
	case forBarrier:
		w.b.Wait()
	case forOnce:
		w.o.Do(nil)
	case forEvent:
		w.e.Wait()
	}
}

// free lets one go that waits as kind says, or any number.
func (w *ward) free(kind int) {
	switch kind {
	case forMutex:
		w.m.Unlock()
	case forRead, forWrite:
		w.rw.Unlock()
	case forCond:
		w.cm.Lock()
		w.c.Signal()
		w.cm.Unlock()
	case forSemaphore:
		w.s.Release(1)
	case forGroup:
		w.g.Done()
	case forBarrier:
		w.b.Wait()
	case forOnce:
		w.out.Set()
	case forEvent:
		w.e.Set()
	}
}

// A visit is one wait in a ward.
type visit struct {
	w     *ward
	kind  int
	token sched.Token
	limit sched.Limit
	long  bool
	began atomic.Bool
	err   note
	over  atomic.Bool
}

func (v *visit) run() {
	v.began.Store(true)
	if v.long {
		v.w.waitLong(v.kind)
	} else {
		v.err = noteOf(v.w.wait(v.kind, v.limit))
	}
	v.over.Store(true)
}

func visitWard(v *visit) { v.run() }

// TestLimitsEndEveryWait: each wait, on a fiber, thread and goroutine, by a
// deadline that has passed, one that comes, a Token that is canceled and one
// that will be; and what the wait was for can be had afterwards, so that nothing
// was left in a queue.
func TestLimitsEndEveryWait(t *testing.T) {
	lwptest.SkipRace(t)
	type bounded struct {
		name string
		make func(v *visit)
		want error
	}
	all := newCrew(t, 1)
	defer all.end()
	for kind := range numWaits {
		for _, how := range []bounded{
			{"passed", func(v *visit) { v.limit = sched.For(0) }, sched.ErrTimeout},
			{"comes", func(v *visit) { v.limit = sched.For(soon / 10) }, sched.ErrTimeout},
			{"canceled", func(v *visit) { v.token.Cancel(); v.limit = sched.Until(&v.token) }, sched.ErrCanceled},
			{"cancel", func(v *visit) { v.limit = sched.Until(&v.token) }, sched.ErrCanceled},
			{"cancel before a deadline", func(v *visit) { v.limit = sched.For(time.Hour); v.limit.Token = &v.token }, sched.ErrCanceled},
			{"let go", func(v *visit) { v.limit = sched.For(time.Hour); v.limit.Token = &v.token }, nil},
			{"let go, no limit", func(v *visit) { v.long = true }, nil},
			{"let go, zero limit", func(v *visit) {}, nil},
		} {
			t.Run(waitNames[kind]+"/"+strings.ReplaceAll(how.name, " ", "-"), func(t *testing.T) {
				c := &crew{t: t, s: all.s}
				w := new(ward)
				w.close()
				if kind == forOnce {
					theWard = w
					f := spawn(t, c.s[0], occupy, w)
					defer func() {
						w.out.Set()
						within(t, "Join", f.Join)
					}()
					w.in.Wait()
				}
				visits := make([]visit, 5)
				if how.want == nil { // one lets one go
					visits = visits[:1]
				}
				for i := range visits {
					visits[i].w, visits[i].kind = w, kind
					how.make(&visits[i])
					if kind == forBarrier && how.want != nil {
						w.b.Init(100)
					}
				}
				muster(c, visitWard, visits)
				if strings.HasPrefix(how.name, "cancel ") || how.name == "cancel" {
					time.Sleep(soon / 20)
					for i := range visits {
						visits[i].token.Cancel()
					}
				}
				if how.want == nil {
					for !visits[0].began.Load() {
						time.Sleep(time.Microsecond)
					}
					time.Sleep(soon / 10)
					if visits[0].over.Load() {
						t.Error("it did not wait")
					}
					w.free(kind)
				}
				c.gather()
				for i := range visits {
					want(t, "a wait", visits[i].err.err(), how.want)
				}
				if how.want == nil || kind == forOnce {
					return
				}
				if kind == forBarrier {
					w.b.Init(1)
				} else if kind != forCond {
					w.free(kind)
				}
				if kind != forCond {
					lwptest.Within(t, "what it was for", func() {
						if err := w.wait(kind, sched.For(time.Minute)); err != nil {
							t.Error(err)
						}
					})
				}
			})
		}
	}
}

// TestReportsNameWhatIsWaitedFor has a fiber wait at each primitive for ever.
func TestReportsNameWhatIsWaitedFor(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	w := new(ward)
	w.close()
	theWard = w
	f := spawn(t, s, func(w *ward) { w.o.Do(sched.Exit) }, w)
	within(t, "Join", f.Join)
	for kind := range numWaits {
		spawnAttr(t, s, visitWard, &visit{w: w, kind: kind, long: true}, sched.Attr{Name: waitNames[kind]})
	}
	var dead *sched.DeadlockError
	if err := s.Wait(); !errors.As(err, &dead) {
		t.Fatal("Wait: ", err)
	}
	if len(dead.Fibers) != int(numWaits) {
		t.Errorf("%d fibers", len(dead.Fibers))
	}
	for _, f := range dead.Fibers {
		if f.State != "waiting" || f.Reason != f.Name || !strings.Contains(f.String(), "visitWard") {
			t.Error(f)
		}
	}
	if err := s.Close(); !errors.Is(err, sched.ErrDeadlock) {
		t.Error("Close: ", err)
	}
}

// TestMisuseOfPrimitives: the panic of a goroutine says what was wrong.
func TestMisuseOfPrimitives(t *testing.T) {
	for name, do := range map[string]func(){
		"sched: Unlock of an unlocked Mutex":              func() { new(sched.Mutex).Unlock() },
		"sched: RUnlock of an RWMutex that nobody reads":  func() { new(sched.RWMutex).RUnlock() },
		"sched: Unlock of an RWMutex that nobody writes":  func() { new(sched.RWMutex).Unlock() },
		"sched: Wait of a Cond with an unlocked Mutex":    func() { new(sched.Cond).Wait(new(sched.Mutex)) },
		"sched: negative WaitGroup counter":               func() { new(sched.WaitGroup).Done() },
		"sched: WaitGroup counter too large":              func() { new(sched.WaitGroup).Add(1 << 31) },
		"sched: Barrier of 0":                             func() { new(sched.Barrier).Wait() },
		"sched: a negative number of permits":             func() { new(sched.Semaphore).Release(-1) },
		"sched: RUnlock of an RWMutex that nobody reads ": func() { var rw sched.RWMutex; rw.Lock(); rw.RUnlock() },
		"sched: Unlock of an RWMutex that nobody writes ": func() { var rw sched.RWMutex; rw.RLock(); rw.Unlock() },
		"sched: Barrier of 0 ":                            func() { new(sched.Barrier).Init(0) },
		"sched: negative WaitGroup counter ":              func() { var g sched.WaitGroup; g.Add(2); g.Add(-3) },
		"sched: a negative number of permits ":            func() { new(sched.Semaphore).TryAcquire(-1) },
		"sched: Unlock of an unlocked Mutex ":             func() { var m sched.Mutex; m.TryLock(); m.Unlock(); m.Unlock() },
		"sched: more permits than a Semaphore can hold":   func() { var s sched.Semaphore; s.Release(sched.MaxPermits); s.Release(1) },
	} {
		func() {
			defer func() {
				if got := recover(); got != strings.TrimSpace(name) {
					t.Errorf("%v, want %q", got, name)
				}
			}()
			do()
		}()
	}
}

// TestMisuseEndsTheFiber, and leaves the primitive as it was.
func TestMisuseEndsTheFiber(t *testing.T) {
	s := begin(t, 1)
	w := new(ward)
	f := spawn(t, s, func(w *ward) { w.m.Unlock() }, w)
	if err := f.Join(); err == nil || !strings.Contains(err.Error(), "panic") {
		t.Error("Join: ", err)
	}
	if !w.m.TryLock() || w.m.TryLock() {
		t.Error("the mutex is damaged")
	}
}

// TestOnceOnAGoroutineThatPanics counts as done, as with package futex.
func TestOnceOnAGoroutineThatPanics(t *testing.T) {
	var o sched.Once
	func() {
		defer func() { recover() }()
		o.Do(func() { panic("f") })
	}()
	lwptest.Within(t, "Do", func() { o.Do(func() { t.Error("again") }) })
}

func lockAndUnlock(m *sched.Mutex) {
	m.Lock()
	//lint:ignore SA2001 it waits, and that is all
	m.Unlock()
}

// TestFaultLeavesTheMutexLocked, and the report says who waits for it.
func TestFaultLeavesTheMutexLocked(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	s, err := sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	m := new(sched.Mutex)
	if err := spawn(t, s, func(m *sched.Mutex) { m.Lock(); *nowhere = 1; m.Unlock() }, m).Join(); err == nil {
		t.Error("no fault")
	}
	f := spawnAttr(t, s, lockAndUnlock, m, sched.Attr{Name: "heir"})
	if err := f.Join(); !errors.Is(err, sched.ErrDeadlock) || !strings.Contains(err.Error(), "(heir): waiting: mutex") {
		t.Error("Join: ", err)
	}
	m.Unlock() // anybody may
	within(t, "Join", f.Join)
	within(t, "Close", s.Close)
}
