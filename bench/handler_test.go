package bench

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/sched"
)

// BenchmarkHandler: one op is a call of a function that adds one to a number,
// and whose caller waits for it.
//
//   - handler: lwp.Handler.Call on a thread; the function runs on a goroutine.
//   - handlerfiber: the same on a fiber, the only one of its worker.
//   - handlerfibers: on each of 100 fibers of one worker.
//   - goroutine: a goroutine asks another by a channel, and gets the answer by
//     one. GOMAXPROCS=2: they may be on two threads, and mostly are on one.
//   - lockedgoroutine: the same from a goroutine that is locked to its thread.
//
// op=hot calls again at once: both sides spin for some microseconds before they
// sleep. op=sleeping sleeps 200 µs before each call, so that all are asleep when
// it comes; the time is that of the calls.
func BenchmarkHandler(b *testing.B) { compare(b, handlerRows) }

var handlerRows = []row{
	{"impl=handler/op=hot", func(b *testing.B) error { return callOnThread(b, 0) }},
	{"impl=handlerfiber/op=hot", func(b *testing.B) error { return callOnFibers(b, 1, 0) }},
	{"impl=handlerfibers/op=hot", func(b *testing.B) error { return callOnFibers(b, 100, 0) }},
	{"impl=goroutine/op=hot", withProcs(2, func(b *testing.B) error { return callByChannel(b, 0, false) })},
	{"impl=lockedgoroutine/op=hot", withProcs(2, func(b *testing.B) error { return callByChannel(b, 0, true) })},
	{"impl=handler/op=sleeping", func(b *testing.B) error { return callOnThread(b, pauseBetween) }},
	{"impl=handlerfiber/op=sleeping", func(b *testing.B) error { return callOnFibers(b, 1, pauseBetween) }},
	{"impl=goroutine/op=sleeping", withProcs(2, func(b *testing.B) error { return callByChannel(b, pauseBetween, false) })},
	{"impl=lockedgoroutine/op=sleeping", withProcs(2, func(b *testing.B) error { return callByChannel(b, pauseBetween, true) })},
}

const pauseBetween = 200 * time.Microsecond

type calls struct {
	h      *lwp.Handler[int]
	n      int
	count  int
	pause  time.Duration
	spent  int64 // in calls, if there are pauses
	failed bool
}

func (c *calls) all() {
	for range c.n {
		begun := int64(0)
		if c.pause > 0 {
			sched.Sleep(c.pause)
			begun = futex.Monotonic()
		}
		if c.h.Call(&c.count) != nil {
			c.failed = true
			return
		}
		if c.pause > 0 {
			c.spent += futex.Monotonic() - begun
		}
	}
}

// called checks what the calls have counted, and reports the time of those with
// pauses between.
func called(b *testing.B, cs ...calls) error {
	sum, spent := 0, int64(0)
	for i := range cs {
		if cs[i].failed {
			return fmt.Errorf("a call failed")
		}
		sum += cs[i].count
		spent += cs[i].spent
	}
	if spent > 0 {
		b.ReportMetric(float64(spent)/float64(b.N), "ns/op")
	}
	return did(sum, b.N)
}

func addOne() (*lwp.Handler[int], error) { return lwp.NewHandler(func(n *int) { *n++ }) }

func callOnThread(b *testing.B, pause time.Duration) error {
	h, err := addOne()
	if err != nil {
		return err
	}
	defer h.Close()
	c := &calls{h: h, n: b.N, pause: pause}
	b.ResetTimer()
	t, err := lwp.Start((*calls).all, c)
	if err != nil {
		return err
	}
	err = t.Join()
	b.StopTimer()
	if err != nil {
		return err
	}
	return called(b, *c)
}

func callOnFibers(b *testing.B, n int, pause time.Duration) error {
	h, err := addOne()
	if err != nil {
		return err
	}
	defer h.Close()
	cs := make([]calls, n)
	for i := range cs {
		cs[i] = calls{h: h, n: (b.N + i) / n, pause: pause}
	}
	type crowd struct {
		cs []calls
		fs [100]sched.Fiber
	}
	if err := onFibers(b, 1, func(x *crowd) {
		for i := range x.cs {
			x.fs[i], _ = sched.GoAttr((*calls).all, &x.cs[i], sched.Attr{StackSize: 4 << 10})
		}
		for i := range x.cs {
			x.fs[i].Join()
		}
	}, &crowd{cs: cs}); err != nil {
		return err
	}
	return called(b, cs...)
}

func callByChannel(b *testing.B, pause time.Duration, locked bool) error {
	ask, answer := make(chan *int), make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := range ask {
			*n++
			answer <- true
		}
	})
	c := calls{n: b.N}
	b.ResetTimer()
	wg.Go(func() {
		defer close(ask)
		if locked {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		for range c.n {
			begun := time.Now()
			if pause > 0 {
				time.Sleep(pause)
				begun = time.Now()
			}
			ask <- &c.count
			<-answer
			if pause > 0 {
				c.spent += int64(time.Since(begun))
			}
		}
	})
	wg.Wait()
	b.StopTimer()
	return called(b, c)
}
