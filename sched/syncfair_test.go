package sched_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A hog locks in a loop, and counts how often it does while another waits.
type hog struct {
	m      sched.Mutex
	rw     sched.RWMutex
	read   bool // the hog reads, and the other writes; or the other way round
	yields bool // inside
	wants  atomic.Bool
	has    atomic.Bool
	passed int64
	most   int64
	rounds int64
	in     int64
	over   atomic.Bool
}

// TestMutexCannotBeKeptFromAnother: one that locks in a loop, for ever, does not
// keep another from locking as well.
func TestMutexCannotBeKeptFromAnother(t *testing.T) {
	for _, workers := range []int{1, 2} {
		for _, yields := range []bool{false, true} {
			t.Run(fmt.Sprintf("workers=%d/yields=%v", workers, yields), func(t *testing.T) {
				s := begin(t, workers)
				h := &hog{yields: yields, rounds: int64(lwptest.Count(2000, 200))}
				a := spawn(t, s, func(h *hog) {
					for !h.over.Load() {
						h.m.Lock()
						if h.wants.Load() {
							h.passed++
						}
						if h.yields {
							sched.Yield()
						}
						h.m.Unlock()
						if !h.wants.Load() {
							sched.Yield()
						}
					}
				}, h)
				b := spawn(t, s, func(h *hog) {
					for range h.rounds {
						h.wants.Store(true)
						h.m.Lock()
						h.wants.Store(false)
						h.most = max(h.most, h.passed)
						h.passed = 0
						h.m.Unlock()
						sched.Yield()
					}
					h.over.Store(true)
				}, h)
				within(t, "the other", b.Join)
				within(t, "the hog", a.Join)
				// It may not wait yet when it wants to. TestMutexBoundIsExact knows.
				t.Logf("passed %d times at most", h.most)
			})
		}
	}
}

// TestMutexBoundIsExact: on one worker with nobody else the count is known. The
// hog does not let others run by itself.
func TestMutexBoundIsExact(t *testing.T) {
	s := begin(t, 1)
	h := new(hog)
	run(t, s, func(h *hog) {
		h.m.Lock()
		f, _ := sched.Go(func(h *hog) {
			h.m.Lock()
			h.has.Store(true)
			h.m.Unlock()
		}, h)
		sched.Yield() // it waits
		h.m.Unlock()
		for !h.has.Load() && h.passed < 1_000_000 {
			h.m.Lock()
			h.passed++
			h.m.Unlock()
		}
		f.Join()
	}, h)
	if h.passed == 0 || h.passed > 100 {
		t.Errorf("the lock was taken %d times before one who waited", h.passed)
	}
}

// TestRWMutexStarvesNobody: readers that overlap for ever do not keep a writer
// out, nor do writers a reader.
func TestRWMutexStarvesNobody(t *testing.T) {
	for _, read := range []bool{true, false} {
		t.Run(fmt.Sprintf("hogs-read=%v", read), func(t *testing.T) {
			s := begin(t, 2)
			h := &hog{read: read, rounds: int64(lwptest.Count(2000, 200))}
			var hogs []sched.Fiber
			for range 4 {
				hogs = append(hogs, spawn(t, s, func(h *hog) {
					for !h.over.Load() {
						if h.read {
							h.rw.RLock()
						} else {
							h.rw.Lock()
						}
						sched.Yield()
						if h.read {
							h.rw.RUnlock()
						} else {
							h.rw.Unlock()
						}
					}
				}, h))
			}
			f := spawn(t, s, func(h *hog) {
				for range h.rounds {
					if h.read {
						h.rw.Lock()
						h.in++
						h.rw.Unlock()
					} else {
						h.rw.RLock()
						h.most = max(h.most, h.in)
						h.rw.RUnlock()
					}
				}
				h.over.Store(true)
			}, h)
			within(t, "the other", f.Join)
			for _, f := range hogs {
				within(t, "a hog", f.Join)
			}
		})
	}
}

// A herd is many who wait for one thing, and what they find.
type herd struct {
	w     ward
	kind  int
	n     int
	here  atomic.Int64
	past  atomic.Int64
	ready bool
	in    int64
	wrong atomic.Int64
}

func (h *herd) graze() {
	h.here.Add(1)
	switch h.kind {
	case forCond:
		h.w.cm.Lock()
		for !h.ready {
			h.w.c.Wait(&h.w.cm)
		}
		if h.in++; h.in > 1 {
			h.wrong.Add(1)
		}
		if h.past.Load()%100 == 0 {
			sched.Yield()
		}
		h.in--
		h.w.cm.Unlock()
	case forMutex:
		h.w.m.Lock()
		if h.in++; h.in > 1 {
			h.wrong.Add(1)
		}
		h.in--
		h.w.m.Unlock()
	default:
		h.w.waitLong(h.kind)
	}
	h.past.Add(1)
}

func grazeOn(h *herd) { h.graze() }

// TestStampede has ten thousand wait, and lets them go at once.
func TestStampede(t *testing.T) {
	for _, workers := range []int{1, 2, 8} {
		for kind := range numWaits {
			if kind == forOnce {
				continue // see TestHistoriesAreLinear; its f would hold a worker
			}
			t.Run(fmt.Sprintf("%s/workers=%d", waitNames[kind], workers), func(t *testing.T) {
				s := begin(t, workers)
				s.Hold()
				defer s.Release()
				h := &herd{kind: kind, n: lwptest.Count(10_000, 1000)}
				h.w.close()
				h.w.b.Init(h.n + 2)
				for range h.n {
					spawnAttr(t, s, grazeOn, h, sched.Attr{Detached: true})
				}
				other := make(chan struct{})
				go func() { // and a thread
					lwptest.OnThread(t, grazeOn, h)
					close(other)
				}()
				lwptest.Eventually(t, "all to come", func() bool { return h.here.Load() == int64(h.n)+1 })
				time.Sleep(time.Millisecond)
				if got := h.past.Load(); got != 0 {
					t.Errorf("%d did not wait", got)
				}
				switch kind {
				case forCond:
					h.w.cm.Lock()
					h.ready = true
					h.w.c.Broadcast()
					h.w.cm.Unlock()
				default:
					h.w.free(kind)
				}
				lwptest.Eventually(t, "all to go", func() bool { return h.past.Load() == int64(h.n)+1 })
				<-other
				if h.wrong.Load() != 0 {
					t.Errorf("%d times two held the lock", h.wrong.Load())
				}
			})
		}
	}
}

// TestCloseOfADeadlockLeavesPrimitivesWhole: fibers of one scheduler are ended
// by Close while they wait at primitives that those of another go on to use.
func TestCloseOfADeadlockLeavesPrimitivesWhole(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	lwptest.Collect(t)
	b := begin(t, 2)
	for range lwptest.Count(200, 20) {
		a, err := sched.New(sched.Config{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		w := new(ward)
		w.close()
		const each = 3
		w.b.Init(each + 1 + each)
		var visits [2][numWaits][each]visit
		var others []sched.Fiber
		for kind := range numWaits {
			if kind == forOnce || kind == forBarrier { // who is gone has arrived there
				continue
			}
			for i := range each {
				for k, s := range []*sched.Scheduler{a, b} {
					v := &visits[k][kind][i]
					v.w, v.kind, v.long = w, kind, i > 0
					v.limit.Token = &v.token
					f := spawn(t, s, visitWard, v)
					if k == 1 {
						others = append(others, f)
					}
				}
			}
		}
		b.Hold()
		if err := a.Close(); !errors.Is(err, sched.ErrDeadlock) {
			t.Fatal("Close: ", err)
		}
		for kind := range numWaits {
			if kind != forWrite && kind != forOnce && kind != forBarrier && kind != forCond {
				w.free(kind)
			}
		}
		for i := 0; i < len(others); {
			w.cm.Lock()
			w.c.Broadcast() // those that come late too
			w.cm.Unlock()
			if err := others[i].JoinFor(time.Millisecond); err == nil {
				i++
			} else if err != sched.ErrTimeout {
				t.Fatal("Join: ", err)
			}
		}
		b.Release()
		if !w.m.TryLock() || !w.rw.TryLock() || !w.cm.TryLock() || !w.s.TryAcquire(1) || w.s.TryAcquire(1) {
			t.Fatal("something is not free")
		}
	}
}

// TestCloseLetsThoseBehindHaveTheirTurn: a fiber that Close ends stood in the way
// of others, or was counted.
func TestCloseLetsThoseBehindHaveTheirTurn(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	b := begin(t, 1)
	b.Hold()
	a, err := sched.New(sched.Config{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	w := new(ward)
	w.s.Release(1)
	w.rw.RLock()
	w.b.Init(3)
	spawn(t, a, func(w *ward) { w.s.Acquire(2) }, w)
	spawn(t, a, func(w *ward) { w.rw.Lock() }, w)
	spawn(t, a, func(w *ward) { w.b.Wait() }, w)
	want(t, "Wait", a.Wait(), sched.ErrDeadlock)
	var fs []sched.Fiber
	for _, kind := range []int{forSemaphore, forRead, forBarrier} {
		fs = append(fs, spawn(t, b, visitWard, &visit{w: w, kind: kind, long: true}))
	}
	for _, f := range fs {
		want(t, "JoinFor", f.JoinFor(soon/10), sched.ErrTimeout)
	}
	want(t, "Close", a.Close(), sched.ErrDeadlock)
	for _, f := range fs[:2] {
		within(t, "Join", f.Join)
	}
	want(t, "JoinFor", fs[2].JoinFor(soon/10), sched.ErrTimeout) // one is missing now
	fs = append(fs[2:], spawn(t, b, visitWard, &visit{w: w, kind: forBarrier, long: true}))
	lwptest.Within(t, "the barrier", func() { w.b.Wait() })
	for _, f := range fs {
		within(t, "Join", f.Join)
	}
	b.Release()
}

// # Frames
//
// A primitive that lies in the frame of a fiber is gone when the fiber returns,
// which it does as soon as it is let go. Whoever lets it go must be done with
// the primitive by then: what comes to lie there is written over otherwise.
