package bench

import (
	"fmt"
	"testing"

	"lwprt/sched"
)

// BenchmarkChan: values of eight bytes through channels; workers= is the number
// of workers, or GOMAXPROCS.
//
//   - op=pingpong: two flows, two channels without a buffer; each receives,
//     counts and sends on. One op is one hop: a Send, a Recv, and the switch.
//   - op=buffered: one flow sends, another receives, through a buffer of 128.
//     One op is one value.
//   - op=select: two flows send, each to a channel without a buffer; a third
//     receives by a Select of both. One op is one value.
//
// fiber is sched.Chan and Select, with stacks of 2 KiB that a wait in a Select of
// two fits on; values are copied as bytes, and nobody preempts. goroutine is Go's
// chan and select, in the same program: their values can be pointers that the
// collector sees.
func BenchmarkChan(b *testing.B) { compare(b, chanRows) }

var chanRows = func() (rows []row) {
	for _, op := range []struct {
		name      string
		fiber     func(b *testing.B, workers int) error
		goroutine func(b *testing.B) error
	}{
		{"pingpong", pingFibers, pingGoroutines},
		{"buffered", bufferedFibers, bufferedGoroutines},
		{"select", selectFibers, selectGoroutines},
	} {
		for _, n := range []int{1, 2} {
			rows = append(rows,
				row{fmt.Sprintf("impl=fiber/op=%s/workers=%d", op.name, n), func(b *testing.B) error {
					if err := needCPUs(n); err != nil {
						return err
					}
					return op.fiber(b, n)
				}},
				row{fmt.Sprintf("impl=goroutine/op=%s/workers=%d", op.name, n), withProcs(n, op.goroutine)})
		}
	}
	return rows
}()

const chanBuffer = 128

// A court is what two or three flows have in common: two channels, and what they
// are to do and have done.
type court struct {
	n, sum   int
	a, b     sched.Chan[int]
	buf      [chanBuffer]int
	goA, goB chan int
}

// total is the sum that n values make, which are numbered from 0.
func total(n int) int { return n * (n - 1) / 2 }

// hops receives from one channel and sends one more to the other, until the
// last of the n hops, whose value says how many there have been.
//
//go:noinline
func (c *court) hops(from, to *sched.Chan[int]) {
	for {
		v, ok := from.Recv()
		if !ok {
			return
		}
		if v == c.n {
			c.sum = v
			to.Close()
			return
		}
		to.Send(v + 1)
	}
}

func pingFibers(b *testing.B, workers int) error {
	c := &court{n: b.N}
	err := onFibers(b, workers, func(c *court) {
		f, err := sched.Go(func(c *court) { c.hops(&c.b, &c.a) }, c)
		if err != nil {
			return
		}
		c.b.Send(1)
		c.hops(&c.a, &c.b)
		f.Join()
	}, c)
	if err != nil {
		return err
	}
	return did(c.sum, b.N)
}

//go:noinline
func (c *court) goHops(from, to chan int) {
	for {
		v, ok := <-from
		if !ok {
			return
		}
		if v == c.n {
			c.sum = v
			close(to)
			return
		}
		to <- v + 1
	}
}

func pingGoroutines(b *testing.B) error {
	c := &court{n: b.N, goA: make(chan int), goB: make(chan int)}
	done := make(chan bool)
	b.ResetTimer()
	go func() {
		go func() {
			c.goHops(c.goB, c.goA)
			done <- true
		}()
		c.goB <- 1
		c.goHops(c.goA, c.goB)
		done <- true
	}()
	<-done
	<-done
	b.StopTimer()
	return did(c.sum, b.N)
}

func bufferedFibers(b *testing.B, workers int) error {
	c := &court{n: b.N}
	c.a.Init(c.buf[:])
	err := onFibers(b, workers, func(c *court) {
		f, err := sched.Go((*court).produces, c)
		if err != nil {
			return
		}
		for {
			v, ok := c.a.Recv()
			if !ok {
				break
			}
			c.sum += v
		}
		f.Join()
	}, c)
	if err != nil {
		return err
	}
	return did(c.sum, total(b.N))
}

func (c *court) produces() {
	for i := range c.n {
		c.a.Send(i)
	}
	c.a.Close()
}

func bufferedGoroutines(b *testing.B) error {
	c := &court{n: b.N, goA: make(chan int, chanBuffer)}
	b.ResetTimer()
	done := make(chan bool)
	go func() {
		go func() {
			for i := range c.n {
				c.goA <- i
			}
			close(c.goA)
		}()
		for v := range c.goA {
			c.sum += v
		}
		done <- true
	}()
	<-done
	b.StopTimer()
	return did(c.sum, total(b.N))
}

func selectFibers(b *testing.B, workers int) error {
	c := &court{n: b.N}
	err := onFibers(b, workers, func(c *court) {
		f, err := sched.Go(func(c *court) { c.sends(&c.a, 0) }, c)
		if err != nil {
			return
		}
		g, err := sched.Go(func(c *court) { c.sends(&c.b, 1) }, c)
		if err != nil {
			return
		}
		v, w := 0, 0
		for range c.n {
			switch i, _ := sched.Select(c.a.RecvCase(&v), c.b.RecvCase(&w)); i {
			case 0:
				c.sum += v
			case 1:
				c.sum += w
			}
		}
		f.Join()
		g.Join()
	}, c)
	if err != nil {
		return err
	}
	return did(c.sum, total(b.N))
}

// sends sends every second number from first on.
//
//go:noinline
func (c *court) sends(to *sched.Chan[int], first int) {
	for i := first; i < c.n; i += 2 {
		to.Send(i)
	}
}

func selectGoroutines(b *testing.B) error {
	c := &court{n: b.N, goA: make(chan int), goB: make(chan int)}
	done := make(chan bool)
	b.ResetTimer()
	go func() {
		go c.goSends(c.goA, 0)
		go c.goSends(c.goB, 1)
		for range c.n {
			select {
			case v := <-c.goA:
				c.sum += v
			case w := <-c.goB:
				c.sum += w
			}
		}
		done <- true
	}()
	<-done
	b.StopTimer()
	return did(c.sum, total(b.N))
}

//go:noinline
func (c *court) goSends(to chan int, first int) {
	for i := first; i < c.n; i += 2 {
		to <- i
	}
}
