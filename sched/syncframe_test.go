package sched_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"lwprt/asm"
	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A tenant waits at something in its frame, and then has something else there.
type tenant struct {
	kind  int
	n     int
	let   atomic.Uintptr // the primitive, for whoever lets it go
	wrong atomic.Int64
	over  atomic.Bool
}

// frame is what a tenant waits at.
type frame struct {
	m sched.Mutex
	s sched.Semaphore
	e sched.Event
	g sched.WaitGroup
}

//go:noinline
func (t *tenant) lodge() {
	var f frame
	f.m.Lock()
	f.g.Add(2)
	t.let.Store(addressOf(&f))
	switch t.kind {
	case forMutex:
		f.m.Lock()
	case forSemaphore:
		f.s.Acquire(1)
	case forGroup:
		f.g.Done()
		f.g.Wait()
	case forEvent:
		f.e.Wait()
	}
}

const stain = 0x5ca1ab1e5ca1ab1e

// stained fills the stack where the frame was, and looks whether it stays so.
//
//go:noinline
func (t *tenant) stained(turns int) {
	var a [128]uint64
	for i := range a {
		a[i] = stain
	}
	for range turns {
		keep(&a)
		asm.Relax()
	}
	for i := range a {
		if a[i] != stain {
			t.wrong.Add(1)
		}
	}
}

//go:noinline
func keep(*[128]uint64) {}

func lodgeOn(t *tenant) {
	for i := range t.n {
		t.lodge()
		t.stained(i % 20 * 5)
	}
	t.over.Store(true)
}

// evict lets tenants go until they have enough.
func evict(t *tenant) {
	for !t.over.Load() {
		p := t.let.Swap(0)
		if p == 0 {
			sched.Yield()
			continue
		}
		f := frameAt(p)
		switch t.kind {
		case forMutex:
			f.m.Unlock()
		case forSemaphore:
			f.s.Release(1)
		case forGroup:
			f.g.Done()
		case forEvent:
			f.e.Set()
		}
	}
}

func TestFrameIsFreeOnceItsFiberGoes(t *testing.T) {
	for _, kind := range []int{forMutex, forSemaphore, forGroup, forEvent} {
		for _, tenants := range []int{1, 10} {
			t.Run(fmt.Sprintf("%s/tenants=%d", waitNames[kind], tenants), func(t *testing.T) { frames(t, kind, tenants) })
		}
	}
}

// stressFactor is how much longer a run is that is told to be long.
func stressFactor() int {
	if d, err := time.ParseDuration(os.Getenv("LWPRT_SCHED_STRESS")); err == nil {
		return max(int(d/time.Second), 1)
	}
	return 1
}

// frames has so many fibers wait, and as many others of all kinds let them go.
func frames(t *testing.T, kind, n int) {
	c := newCrew(t, 2)
	if n > 1 {
		lwptest.Collect(t)
	}
	tenants := make([]tenant, n)
	var fs []sched.Fiber
	for i := range tenants {
		tenants[i].kind, tenants[i].n = kind, lwptest.Count(8000, 1000)*stressFactor()/n
		fs = append(fs, spawn(t, c.s[1-i/2%2], lodgeOn, &tenants[i]))
	}
	muster(c, evict, tenants)
	for _, f := range fs {
		within(t, "Join", f.Join)
	}
	c.end()
	for i := range tenants {
		if n := tenants[i].wrong.Load(); n != 0 {
			t.Errorf("tenant %d: %d words were written over", i, n)
		}
	}
}

// addressOf and frameAt carry a frame through memory that holds no pointers.
func addressOf[T any](f *T) uintptr { return uintptr(unsafe.Pointer(f)) }

func frameAt(p uintptr) *frame { return *(**frame)(unsafe.Pointer(&p)) }

// TestPrimitivesCanLieOnAStack: none goes to the heap, which a fiber has not.
func TestPrimitivesCanLieOnAStack(t *testing.T) {
	s := begin(t, 1)
	got := new(note)
	run(t, s, func(got *note) {
		var w ward
		var token sched.Token
		w.b.Init(1)
		for kind := range numWaits {
			l := sched.For(time.Hour)
			l.Token = &token
			switch kind {
			case forCond:
				l = sched.For(time.Microsecond)
			case forSemaphore:
				w.s.Release(1)
			case forOnce:
				w.o.Do(sched.Yield)
			case forEvent:
				w.e.Set()
			}
			if err := w.wait(kind, l); err != nil && (kind != forCond || err != sched.ErrTimeout) {
				*got = noteOf(err)
			}
			if kind != forCond {
				w.waitLong(kind)
			}
			w.e.Reset()
		}
		token.Cancel()
	}, got)
	want(t, "a wait", got.err(), nil)
}

// hide hides from the compiler that p goes on to another fiber.
func hide[T any](p *T) *T {
	at := addressOf(p)
	return *(**T)(unsafe.Pointer(&at))
}
