package bench

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"lwprt/sched"
)

// BenchmarkTimer compares timers, on one worker and one P.
//
//   - armcancel: so many functions are to run in a minute to an hour, in no
//     order; one op is to cancel one of them and to set it anew. Each in turn,
//     so that of a million none is in the cache. The fiber's is AfterFunc and
//     Stop, the goroutine's Reset and Stop of a Timer that time.AfterFunc made.
//   - reset: the same for timers that are to be waited for. Neither side keeps
//     them in a queue before somebody waits.
//   - within: one op is a wait with a deadline that has been armed when it ends
//     otherwise, by another fiber or goroutine: two switches, and a clock read.
//     The goroutine's is a select on a channel and a timer.
//   - expire: one op is to set a function that is due in up to a millisecond,
//     and that it runs, on a fiber or goroutine of its own; a thousand at a time.
func BenchmarkTimer(b *testing.B) { compare(b, timerRows) }

var timerRows = func() (rows []row) {
	for _, n := range []int{1, 1000, 1_000_000} {
		rows = append(rows,
			row{fmt.Sprintf("impl=fiber/op=armcancel/timers=%d", n), func(b *testing.B) error { return cancelFibers(b, n) }},
			row{fmt.Sprintf("impl=goroutine/op=armcancel/timers=%d", n), withProcs(1, func(b *testing.B) error { return cancelGoroutines(b, n) })})
	}
	return append(rows,
		row{"impl=fiber/op=reset", resetFibers},
		row{"impl=goroutine/op=reset", withProcs(1, resetGoroutines)},
		row{"impl=fiber/op=within", withinFibers},
		row{"impl=goroutine/op=within", withProcs(1, withinGoroutines)},
		row{"impl=fiber/op=expire", expireFibers},
		row{"impl=goroutine/op=expire", withProcs(1, expireGoroutines)},
	)
}()

// far returns a minute to an hour, and moves x on: no run takes as long, and
// one that has fired could not be cancelled.
func far(x *uint64) time.Duration {
	*x = *x*6364136223846793005 + 1442695040888963407
	return time.Minute + time.Duration(*x>>33)*1650
}

type cancels struct {
	n, count, ran int
	x             uint64
	timers        []sched.Timer
}

func cancelFibers(b *testing.B, n int) error {
	c := &cancels{n: b.N, timers: make([]sched.Timer, n)}
	s, err := sched.New(sched.Config{Workers: 1, StackSize: fiberStack})
	if err != nil {
		return err
	}
	defer s.Close()
	do := func(fn func(*cancels)) error {
		f, err := sched.Spawn(s, fn, c)
		if err != nil {
			return err
		}
		return f.Join()
	}
	ran := func(c *cancels) {
		for i := range c.timers {
			sched.AfterFunc(&c.timers[i], far(&c.x), func(n *int) { *n++ }, &c.ran)
		}
	}
	if err := do(ran); err != nil {
		return err
	}
	b.ResetTimer()
	err = do(func(c *cancels) {
		for i, at := 0, 0; i < c.n; i++ {
			t := &c.timers[at]
			if t.Stop() {
				c.count++
			}
			sched.AfterFunc(t, far(&c.x), func(n *int) { *n++ }, &c.ran)
			if at++; at == len(c.timers) {
				at = 0
			}
		}
	})
	b.StopTimer()
	if err != nil {
		return err
	}
	err = do(func(c *cancels) {
		for i := range c.timers {
			c.timers[i].Stop()
		}
	})
	if err != nil {
		return err
	}
	return did(c.count, b.N)
}

func cancelGoroutines(b *testing.B, n int) error {
	timers := make([]*time.Timer, n)
	x := uint64(0)
	for i := range timers {
		timers[i] = time.AfterFunc(far(&x), func() {})
	}
	count := 0
	b.ResetTimer()
	for i, at := 0, 0; i < b.N; i++ {
		if timers[at].Stop() {
			count++
		}
		timers[at].Reset(far(&x))
		if at++; at == n {
			at = 0
		}
	}
	b.StopTimer()
	for _, t := range timers {
		t.Stop()
	}
	runtime.KeepAlive(timers)
	return did(count, b.N)
}

func resetFibers(b *testing.B) error {
	c := &cancels{n: b.N, timers: make([]sched.Timer, 1)}
	err := onFibers(b, 1, func(c *cancels) {
		for range c.n {
			c.timers[0].Reset(time.Hour)
			if c.timers[0].Stop() {
				c.count++
			}
		}
	}, c)
	if err != nil {
		return err
	}
	return did(c.count, b.N)
}

func resetGoroutines(b *testing.B) error {
	t := time.NewTimer(time.Hour)
	count := 0
	for range b.N {
		t.Reset(time.Hour)
		if t.Stop() {
			count++
		}
	}
	return did(count, b.N)
}

type withins struct {
	n, count   int
	ping, pong sched.Semaphore
}

func withinFibers(b *testing.B) error {
	c := &withins{n: b.N}
	err := onFibers(b, 1, func(c *withins) {
		f, err := sched.Go(func(c *withins) {
			for range c.n {
				c.ping.Acquire(1)
				c.pong.Release(1)
			}
		}, c)
		if err != nil {
			return
		}
		for range c.n {
			c.ping.Release(1)
			if c.pong.AcquireWithin(1, sched.For(time.Hour)) == nil {
				c.count++
			}
		}
		f.Join()
	}, c)
	if err != nil {
		return err
	}
	return did(c.count, b.N)
}

func withinGoroutines(b *testing.B) error {
	ping, pong := make(chan int), make(chan int)
	go func() {
		for range ping {
			pong <- 1
		}
	}()
	t := time.NewTimer(time.Hour)
	count := 0
	for range b.N {
		ping <- 1
		t.Reset(time.Hour)
		select {
		case n := <-pong:
			count += n
		case <-t.C:
		}
		t.Stop()
	}
	close(ping)
	return did(count, b.N)
}

func expireFibers(b *testing.B) error {
	c := &cancels{n: b.N, timers: make([]sched.Timer, 1000)}
	err := onFibers(b, 1, func(c *cancels) {
		for left := c.n; left > 0; {
			n := min(left, len(c.timers))
			left -= n
			c.ran = 0
			for i := range n {
				sched.AfterFunc(&c.timers[i], far(&c.x)%time.Millisecond, func(n *int) { *n++ }, &c.ran)
			}
			for c.ran < n {
				sched.Yield()
			}
			c.count += c.ran
		}
	}, c)
	if err != nil {
		return err
	}
	return did(c.count, b.N)
}

func expireGoroutines(b *testing.B) error {
	var wg sync.WaitGroup
	timers := make([]*time.Timer, 1000)
	for i := range timers {
		timers[i] = time.AfterFunc(time.Hour, wg.Done)
		timers[i].Stop()
	}
	x := uint64(0)
	b.ResetTimer()
	for left := b.N; left > 0; {
		n := min(left, len(timers))
		left -= n
		wg.Add(n)
		for i := range n {
			timers[i].Reset(far(&x) % time.Millisecond)
		}
		wg.Wait()
	}
	return nil
}
