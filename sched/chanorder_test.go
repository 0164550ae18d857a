package sched_test

import (
	"cmp"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

// A queue1 is a channel and those who wait in it, one after the other.
type queue1 struct {
	c     ints
	order [16]int
	n     int
	next  int
}

// TestFirstComeFirstServed: those who wait have their turn in the order in which
// they came, receivers and senders, and values come out as they went in.
func TestFirstComeFirstServed(t *testing.T) {
	s := begin(t, 1)
	q := new(queue1)
	run(t, s, func(q *queue1) {
		for range q.order {
			sched.GoAttr(func(q *queue1) {
				i := q.next
				q.next++
				if v, ok := q.c.Recv(); ok && v == i {
					q.order[q.n] = i
				}
				q.n++
			}, q, sched.Attr{Detached: true})
			sched.Yield()
		}
		for i := range q.order {
			q.c.Send(i)
			sched.Yield()
		}
	}, q)
	if q.n != len(q.order) || !slices.IsSorted(q.order[:]) || q.order[1] != 1 {
		t.Errorf("receivers: %d, %v", q.n, q.order)
	}
	q = new(queue1)
	run(t, s, func(q *queue1) {
		for range q.order {
			sched.GoAttr(func(q *queue1) {
				q.next++
				q.c.Send(q.next - 1)
			}, q, sched.Attr{Detached: true})
			sched.Yield()
		}
		for i := range q.order {
			q.order[i], _ = q.c.Recv()
			q.n++
		}
	}, q)
	if q.n != len(q.order) || !slices.IsSorted(q.order[:]) || q.order[1] != 1 {
		t.Errorf("senders: %d, %v", q.n, q.order)
	}
	// The same with threads and goroutines in the queue.
	q = new(queue1)
	s.Hold()
	waits := func(q *queue1) {
		i := q.next
		q.next++
		if v, ok := q.c.Recv(); ok {
			q.order[i] = v
		}
	}
	done := make(chan bool)
	for i := range q.order {
		switch i % 3 {
		case 0:
			spawnAttr(t, s, waits, q, sched.Attr{Detached: true})
		case 1:
			go func() {
				waits(q)
				done <- true
			}()
		case 2:
			go func() {
				lwptest.OnThread(t, waits, q)
				done <- true
			}()
		}
		lwptest.Eventually(t, "one more to wait", func() bool { return q.c.Waiting() == i+1 })
	}
	for i := range q.order {
		q.c.Send(i)
	}
	for range 10 {
		<-done
	}
	s.Release()
	within(t, "Wait", s.Wait)
	if !slices.IsSorted(q.order[:]) || q.order[15] != 15 {
		t.Errorf("mixed: %v", q.order)
	}
}

// A pipe carries n patterns from one end to the other.
type pipe[T comparable] struct {
	c          *sched.Chan[T]
	own        sched.Chan[T]
	buf        [5]T
	n          int
	sent, good int
}

// pattern returns a T every byte of which depends on i.
func pattern[T any](i int) (v T) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v))
	for j := range b {
		b[j] = byte(i*7 + j*3 + i>>8)
	}
	return v
}

func (p *pipe[T]) send() {
	for i := range p.n {
		v := pattern[T](i)
		var err error
		if i%3 == 2 {
			_, err = sched.Select(p.c.SendCase(&v))
		} else {
			err = p.c.Send(v)
		}
		if err == nil {
			p.sent++
		}
	}
	p.c.Close()
}

func (p *pipe[T]) receive() {
	for i := 0; ; i++ {
		var v T
		ok := false
		if i%5 == 4 {
			_, err := sched.Select(p.c.RecvCase(&v))
			ok = err == nil
		} else {
			v, ok = p.c.Recv()
		}
		if !ok {
			var zero T
			if v == zero && i == p.n {
				p.good++
			}
			return
		}
		if v == pattern[T](i) {
			p.good++
		}
	}
}

func testSizes[T comparable](t *testing.T, s *sched.Scheduler) {
	for buffer := -1; buffer <= 64; buffer++ {
		if buffer > 1 && buffer < 64 {
			continue
		}
		for from := range 3 {
			for to := range 3 {
				p := &pipe[T]{n: lwptest.Count(40, 12)}
				switch {
				case buffer < 0:
					p.c = &p.own
					p.own.Init(p.buf[:])
				default:
					p.c = sched.MakeChan[T](buffer)
				}
				done := make(chan bool, 2)
				begins := func(where int, fn func(*pipe[T])) {
					switch where {
					case 0:
						spawnAttr(t, s, fn, p, sched.Attr{Detached: true})
						done <- true
					case 1:
						go func() {
							fn(p)
							done <- true
						}()
					case 2:
						go func() {
							lwptest.OnThread(t, fn, p)
							done <- true
						}()
					}
				}
				s.Hold()
				begins(from, (*pipe[T]).send)
				begins(to, (*pipe[T]).receive)
				within(t, "the ends", func() error {
					<-done
					<-done
					s.Release()
					return s.Wait()
				})
				if p.sent != p.n || p.good != p.n+1 {
					t.Errorf("%T, buffer %d, from %d to %d: %d sent, %d good", p.buf[0], buffer, from, to, p.sent, p.good)
				}
			}
		}
	}
}

// TestValuesOfAllSizes: every byte comes over, by every way, and none beyond.
func TestValuesOfAllSizes(t *testing.T) {
	s := begin(t, 2)
	testSizes[struct{}](t, s)
	testSizes[[1]byte](t, s)
	testSizes[[7]byte](t, s)
	testSizes[[8]byte](t, s)
	testSizes[[2]uint64](t, s)
	testSizes[[100]byte](t, s)
}

// TestGoroutineIsToldOfItsOwnStack: what others reach must not lie there, since
// it moves.
func TestGoroutineIsToldOfItsOwnStack(t *testing.T) {
	lwptest.SkipRace(t)
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s does not panic", what)
			}
		}()
		f()
	}
	panics("a Recv", func() {
		var c ints
		c.Recv()
	})
	panics("a Select", func() {
		var c ints
		v := 0
		sched.SelectWithin(sched.For(moment), c.RecvCase(&v))
	})
	panics("Init", func() {
		var buf [4]int
		c := new(ints)
		c.Init(buf[:])
	})
	panics("a Token", func() {
		var k sched.Token
		kept.RecvWithin(sched.Until(&k))
	})
	runtime.KeepAlive(kept)
}

var kept = new(ints)

// fills uses a good part of a stack, and leaves it full of n.
//
//go:noinline
func fills(n int) int {
	var room [1 << 11]int
	for i := range room {
		room[i] = n
	}
	return room[n&1023]
}

// TestSelectOutlivesItsStack: the stack of a goroutine shrinks, and so moves,
// while it is in the middle of a Select of cases that lie on it.
func TestSelectOutlivesItsStack(t *testing.T) {
	lwptest.SkipRace(t)
	for range 2 {
		var cs [4]*ints
		for i := range cs {
			cs[i] = sched.MakeChan[int](1)
		}
		slices.SortFunc(cs[:], func(a, b *ints) int {
			return cmp.Compare(uintptr(unsafe.Pointer(a)), uintptr(unsafe.Pointer(b)))
		})
		cs[1].Latch()
		begun, got := make(chan bool), make(chan int)
		go func() {
			n := fills(1)
			begun <- true
			var v [4]int
			i, _ := sched.TrySelect(cs[3].RecvCase(&v[3]), cs[1].RecvCase(&v[1]), cs[0].RecvCase(&v[0]), cs[2].RecvCase(&v[2]))
			got <- i + n - 1
		}()
		<-begun
		lwptest.Eventually(t, "the Select to come to the latch", cs[0].Latched)
		for range 2 {
			runtime.GC()
			for range 8 {
				go fills(0x123456789)
			}
			runtime.Gosched()
		}
		cs[1].Unlatch()
		lwptest.Within(t, "the Select", func() {
			if i := <-got; i != -1 {
				t.Errorf("case %d of channels that are empty", i)
			}
		})
		for i := range cs {
			if cs[i].Latched() {
				t.Fatalf("the latch of channel %d is held", i)
			}
		}
	}
}
