package futex_test

import (
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// Every scenario of this package runs on threads of package lwp too, and on threads and
// goroutines in turns, in a program that can have them.
func init() {
	if _, err := lwp.StartAttr(func(*world) {}, nil, lwp.Attr{Detached: true}); err != nil {
		return // TestThreadsRunTheScenarios says why
	}
	starters = append(starters,
		starter{name: "threads", offheap: true, start: startThread},
		starter{name: "mixed", offheap: true, start: startMixed},
		starter{name: "mixed-onheap", start: startMixed},
	)
}

func startThread(w *world, _ int, body func(*world)) (join func()) {
	th, err := lwp.Start(body, w)
	if err != nil {
		panic(err)
	}
	return func() {
		if err := th.Join(); err != nil {
			panic(err)
		}
	}
}

func startMixed(w *world, i int, body func(*world)) (join func()) {
	if i%2 == 0 {
		return startThread(w, i, body)
	}
	return startGoroutine(w, i, body)
}

// TestThreadsRunTheScenarios fails where the scenarios of this package run on
// goroutines alone, or on something that is not a thread.
func TestThreadsRunTheScenarios(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.Leaks(t)
	kinds := map[string]int32{"goroutines": 0, "goroutines-offheap": 0, "threads": 4, "mixed": 2, "mixed-onheap": 2}
	seen := 0
	play(t, 4, 1, nil, func(w *world) {
		if lwp.Self() != (lwp.Thread{}) {
			atomic.AddInt32(&w.inside, 1)
		}
	}, func(t *testing.T, w *world) {
		want := kinds[t.Name()[len("TestThreadsRunTheScenarios/"):]]
		if w.inside != want {
			t.Errorf("%d of 4 bodies ran on threads, want %d", w.inside, want)
		}
		seen++
	})
	if seen != len(kinds) {
		t.Errorf("%d kinds of starters, want %d", seen, len(kinds))
	}
}

// onceInTurns uses one Once again and again, between barriers.
func onceInTurns(w *world) {
	for i := range w.rounds {
		w.bar.Wait()
		w.once.Do(func() {
			w.plain++
			if i%4 == 0 {
				busy(20 * time.Microsecond)
			}
			w.plain2++
		})
		if w.plain != i+1 || w.plain2 != i+1 {
			w.wrong()
		}
		if w.bar.Wait() {
			w.once = futex.Once{}
		}
	}
}

func TestOnceInTurns(t *testing.T) {
	play(t, 6, 3000, func(w *world) { w.bar.Init(w.n) }, onceInTurns, func(t *testing.T, w *world) {
		if w.plain != w.rounds {
			t.Errorf("f ran %d times in %d rounds", w.plain, w.rounds)
		}
	})
}

// ringAround is a bounded buffer: two conditions on one mutex, and numbers that must
// come out as they went in.
func ringAround(w *world) {
	produce := w.id()%2 == 0
	for range w.rounds {
		w.mu.Lock()
		if produce {
			for w.head-w.tail == len(w.ring) {
				w.full.Wait(&w.mu)
			}
			w.ring[w.head%len(w.ring)] = w.head
			w.head++
			w.mu.Unlock()
			w.cond.Signal()
		} else {
			for w.head == w.tail {
				w.cond.Wait(&w.mu)
			}
			if w.ring[w.tail%len(w.ring)] != w.tail {
				w.wrong()
			}
			w.tail++
			w.mu.Unlock()
			w.full.Signal()
		}
	}
}

func TestRingOfMutexAndConds(t *testing.T) {
	play(t, 6, 5000, nil, ringAround, func(t *testing.T, w *world) {
		if w.head != w.tail || w.head != w.n/2*w.rounds {
			t.Errorf("%d put in, %d taken out", w.head, w.tail)
		}
	})
}

// allInOne uses every primitive in one round, so that a starter's sleep in one
// is another's wake in the next.
func allInOne(w *world) {
	id := w.id()
	for i := range w.rounds {
		w.mu.Lock()
		w.plain++
		w.mu.Unlock()
		if id%2 == 0 {
			w.rw.Lock()
			w.plain2++
			w.rw.Unlock()
		} else {
			w.rw.RLock()
			if w.plain2 < i {
				_ = w.plain2
			}
			w.rw.RUnlock()
		}
		if w.bar.Wait() {
			w.ev.Reset()
			w.wg.Add(w.n)
		}
		w.bar.Wait()
		w.wg.Done()
		if i%w.n == id {
			w.wg.Wait()
			w.ev.Set()
		}
		w.ev.Wait()
		w.sem.Release(1)
		w.sem.Acquire()
		w.bar.Wait()
	}
}

func TestEveryPrimitiveInOneRound(t *testing.T) {
	play(t, 4, 2000, func(w *world) { w.bar.Init(w.n) }, allInOne, func(t *testing.T, w *world) {
		if w.plain != w.n*w.rounds || w.plain2 != w.n/2*w.rounds {
			t.Errorf("counted %d and %d", w.plain, w.plain2)
		}
	})
}

// TestScenariosWhileCollecting runs some of them while the collector marks, when
// a store of a pointer anywhere would stop a thread.
func TestScenariosWhileCollecting(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.Leaks(t)
	lwptest.Collect(t)
	t.Run("ring", func(t *testing.T) {
		play(t, 4, 1000, nil, ringAround, func(*testing.T, *world) {})
	})
	t.Run("all", func(t *testing.T) {
		play(t, 4, 500, func(w *world) { w.bar.Init(w.n) }, allInOne, func(*testing.T, *world) {})
	})
}

// timeouts is what a thread measures of calls that must run out of time.
type timeouts struct {
	w     world
	d     time.Duration
	came  atomic.Uint32 // bit i: call i did not time out
	early atomic.Uint32 // bit i: it ended before its time
}

func runOut(o *timeouts) {
	for i := range 8 {
		began := futex.Monotonic()
		came := false
		switch i {
		case 0:
			came = o.w.mu.LockFor(o.d)
		case 1:
			came = o.w.mu.LockUntil(futex.After(o.d))
		case 2:
			came = o.w.sem.AcquireFor(o.d)
		case 3:
			came = o.w.sem.AcquireUntil(futex.After(o.d))
		case 4:
			came = o.w.ev.WaitFor(o.d)
		case 5:
			came = o.w.wg.WaitFor(o.d)
		case 6:
			came = o.w.cond.WaitFor(&o.w.mu, o.d)
			// It returns with the lock, and timed out or not it was held before.
		case 7:
			out, err := futex.WaitFor(&o.w.stop, 0, o.d)
			came = err != nil || out != futex.TimedOut
		}
		if came {
			o.came.Or(1 << i)
		}
		if time.Duration(futex.Monotonic()-began) < o.d {
			o.early.Or(1 << i)
		}
	}
}

func TestTimedCallsRunOutOnThreads(t *testing.T) {
	lwptest.SkipRace(t)
	for _, d := range []time.Duration{10 * time.Millisecond, 0, -time.Second} {
		o := &timeouts{d: d}
		o.w.mu.Lock()
		o.w.wg.Add(1)
		lwptest.OnThread(t, runOut, o)
		if came, early := o.came.Load(), o.early.Load(); came != 0 || early != 0 {
			t.Errorf("%v: calls %#b came, calls %#b ended early", d, came, early)
		}
	}
}

// refusal is what a thread learns from calls that the kernel refuses.
type refusal struct {
	word   uint64
	errnos [4]atomic.Uint32
}

func beRefused(r *refusal) {
	odd := (*uint32)(unsafe.Add(unsafe.Pointer(&r.word), 1))
	_, err := futex.Wait(odd, 0)
	r.note(0, err)
	_, err = futex.Wake(odd, 1)
	r.note(1, err)
	_, err = futex.Private.WaitBitset((*uint32)(unsafe.Pointer(&r.word)), 0, 0, futex.Never)
	r.note(2, err)
	_, err = futex.Wake((*uint32)(unsafe.Pointer(&r.word)), -1)
	r.note(3, err)
}

func (r *refusal) note(i int, err error) {
	if e, ok := err.(*futex.Error); ok {
		r.errnos[i].Store(uint32(e.Errno))
	}
}

func TestErrorsReachThreads(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.Collect(t)
	for range 20 {
		r := new(refusal)
		lwptest.OnThread(t, beRefused, r)
		for i := range r.errnos {
			if got := syscall.Errno(r.errnos[i].Load()); got != syscall.EINVAL {
				t.Errorf("call %d: %v, want EINVAL", i, got)
			}
		}
	}
}
