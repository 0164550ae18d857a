package sched_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lwprt/lwp/lwptest"
	"lwprt/sched"
)

type ints = sched.Chan[int]

// An answer is what one call on a channel comes to.
type answer struct {
	how   uint8
	value int
}

const (
	works uint8 = iota
	blocks
	closed
	isNil
	isOdd
)

// answered is freestanding, as all that the tests below have run everywhere.
func answered(v int, err error) answer {
	switch err {
	case nil:
		return answer{works, v}
	case sched.ErrNotReady, sched.ErrTimeout:
		return answer{blocks, v}
	case sched.ErrChanClosed:
		return answer{closed, v}
	case sched.ErrNilChan:
		return answer{isNil, v}
	}
	return answer{isOdd, v}
}

// A chanCall is a call of a channel, and the same of Go's channels.
type chanCall struct {
	name  string
	here  func(c *ints) answer
	there func(c chan int) answer
	waits bool // for ever, if there is nothing to do
}

func goSends(c chan int) answer {
	select {
	case c <- 7:
		return answer{how: works}
	default:
		return answer{how: blocks}
	}
}

func goReceives(c chan int) answer {
	select {
	case v, ok := <-c:
		if !ok {
			return answer{closed, v}
		}
		return answer{works, v}
	default:
		return answer{how: blocks}
	}
}

func goCloses(c chan int) answer {
	close(c)
	return answer{}
}

// goes is what f comes to, with the panics of Go's channels as answers.
func goes(f func(chan int) answer, c chan int) (a answer) {
	defer func() {
		if err, _ := recover().(error); err != nil {
			a = answer{how: closed}
			if strings.Contains(err.Error(), "nil") {
				a = answer{how: isNil}
			}
		}
	}()
	return f(c)
}

const moment = time.Millisecond

var chanCalls = []chanCall{
	{"Send", func(c *ints) answer { return answered(0, c.Send(7)) }, goSends, true},
	{"SendWithin", func(c *ints) answer { return answered(0, c.SendWithin(7, sched.For(moment))) }, goSends, false},
	{"TrySend", func(c *ints) answer { return answered(0, c.TrySend(7)) }, goSends, false},
	{"Recv", func(c *ints) answer {
		v, ok := c.Recv()
		if !ok {
			return answer{closed, v}
		}
		return answer{works, v}
	}, goReceives, true},
	{"RecvWithin", func(c *ints) answer { return answered(c.RecvWithin(sched.For(moment))) }, goReceives, false},
	{"TryRecv", func(c *ints) answer { return answered(c.TryRecv()) }, goReceives, false},
	{"Select to send", func(c *ints) answer {
		v := 7
		i, err := sched.Select(c.SendCase(&v))
		return answered(i, err)
	}, goSends, true},
	{"SelectWithin to send", func(c *ints) answer {
		v := 7
		i, err := sched.SelectWithin(sched.For(moment), c.SendCase(&v))
		return answered(max(i, 0), err)
	}, goSends, false},
	{"TrySelect to send", func(c *ints) answer {
		v := 7
		i, err := sched.TrySelect(c.SendCase(&v))
		return answered(max(i, 0), err)
	}, goSends, false},
	{"Select to receive", func(c *ints) answer {
		v := -1
		i, err := sched.Select(c.RecvCase(&v))
		return answered(v+i, err)
	}, goReceives, true},
	{"SelectWithin to receive", func(c *ints) answer {
		v := -1
		i, err := sched.SelectWithin(sched.For(moment), c.RecvCase(&v))
		return answered(v-i, err)
	}, goReceives, false},
	{"TrySelect to receive", func(c *ints) answer {
		v := -1
		i, err := sched.TrySelect(c.RecvCase(&v))
		return answered(v-i, err)
	}, goReceives, false},
	{"Close", func(c *ints) answer { return answered(0, c.Close()) }, goCloses, false},
	{"Len", func(c *ints) answer { return answer{value: c.Len()} }, func(c chan int) answer { return answer{value: len(c)} }, false},
	{"Cap", func(c *ints) answer { return answer{value: c.Cap()} }, func(c chan int) answer { return answer{value: cap(c)} }, false},
}

// A condition is what a channel is in before a call.
type condition struct {
	name      string
	cap, vals int
	closed    bool
}

var conditions = []condition{
	{"nil", -1, 0, false},
	{"unbuffered", 0, 0, false},
	{"empty", 2, 0, false},
	{"half full", 2, 1, false},
	{"full", 2, 2, false},
	{"full of one", 1, 1, false},
	{"closed, unbuffered", 0, 0, true},
	{"closed, empty", 2, 0, true},
	{"closed, half full", 2, 1, true},
	{"closed, full", 2, 2, true},
}

func (k condition) both() (*ints, chan int) {
	if k.cap < 0 {
		return nil, nil
	}
	c, g := sched.MakeChan[int](k.cap), make(chan int, k.cap)
	for i := range k.vals {
		c.TrySend(40 + i)
		g <- 40 + i
	}
	if k.closed {
		c.Close()
		close(g)
	}
	return c, g
}

// A place is where code runs that can wait.
type place struct {
	name string
	run  func(t testing.TB, s *sched.Scheduler, fn func(*errand), arg *errand)
}

// An errand is a call to be made somewhere, and another right after it.
type errand struct {
	call, then func(*ints) answer
	c          *ints
	got, next  answer
}

func (e *errand) do() {
	e.got = e.call(e.c)
	if e.then != nil {
		e.next = e.then(e.c)
	}
}

var places = []place{
	{"fiber", func(t testing.TB, s *sched.Scheduler, fn func(*errand), arg *errand) { run(t, s, fn, arg) }},
	{"thread", func(t testing.TB, _ *sched.Scheduler, fn func(*errand), arg *errand) { lwptest.OnThread(t, fn, arg) }},
	{"goroutine", func(t testing.TB, _ *sched.Scheduler, fn func(*errand), arg *errand) {
		lwptest.Within(t, "a goroutine", func() { fn(arg) })
	}},
}

// TestChannelsAreLikeGos makes every call on a channel in every condition, from
// everywhere, and then receives, and compares both with a channel of Go.
func TestChannelsAreLikeGos(t *testing.T) {
	s := begin(t, 1)
	receive := chanCalls[5]
	for _, p := range places {
		for _, k := range conditions {
			for _, x := range chanCalls {
				c, g := k.both()
				want := goes(x.there, g)
				if x.waits && want.how == blocks {
					continue // for TestDeadlockNamesChannels
				}
				e := &errand{call: x.here, then: receive.here, c: c}
				p.run(t, s, (*errand).do, e)
				if strings.HasPrefix(x.name, "SelectWithin to rec") || strings.HasPrefix(x.name, "TrySelect to rec") {
					if want.how == blocks { // the variable is as it was, the index -1
						want.value = 0
					}
				}
				if next := goes(receive.there, g); e.got != want || e.next != next {
					t.Errorf("%s of a channel that is %s on a %s: %v, then %v; Go's: %v, then %v", x.name, k.name, p.name, e.got, e.next, want, next)
				}
				if c.Len() != len(g) || c.Waiting0() != 0 {
					t.Errorf("%s of a channel that is %s on a %s leaves %d values, and %d in the queue; Go's %d", x.name, k.name, p.name, c.Len(), c.Waiting0(), len(g))
				}
			}
		}
	}
}

// TestDeadlockNamesChannels: what blocks for ever is told as Go tells it.
func TestDeadlockNamesChannels(t *testing.T) {
	lwptest.SkipRace(t)
	warm()
	lwptest.Leaks(t)
	reasons := map[string]string{"Send": "chan send", "Recv": "chan receive", "Select to send": "select", "Select to receive": "select"}
	for _, k := range conditions {
		for _, x := range chanCalls {
			c, g := k.both()
			if !x.waits || goes(x.there, g).how != blocks {
				continue
			}
			s, err := sched.New(sched.Config{Workers: 1})
			if err != nil {
				t.Fatal(err)
			}
			e := &errand{call: x.here, c: c}
			f := spawn(t, s, (*errand).do, e)
			want := reasons[x.name]
			if k.cap < 0 && want != "select" {
				want += " (nil chan)"
			}
			var dead *sched.DeadlockError
			within(t, "Join", func() error {
				if err := f.Join(); !errors.As(err, &dead) {
					return fmt.Errorf("no deadlock: %v", err)
				}
				return nil
			})
			if i := dead.Fibers[0]; len(dead.Fibers) != 1 || i.Reason != want || i.State != "waiting" || !strings.Contains(i.String(), "chan_test.go") {
				t.Errorf("%s of a channel that is %s: %v, want %q", x.name, k.name, dead, want)
			}
			if n := c.Waiting0(); (n != 1) != (k.cap < 0) {
				t.Errorf("%s of a channel that is %s: %d wait", x.name, k.name, n)
			}
			within(t, "Close", func() error {
				if !errors.As(s.Close(), &dead) {
					return errors.New("no deadlock")
				}
				return nil
			})
			if n := c.Waiting0(); n != 0 {
				t.Errorf("%s of a channel that is %s: %d wait that are gone", x.name, k.name, n)
			}
			if c != nil {
				if err, _ := c.TryRecv(); k.vals == 0 && err != 0 {
					t.Error("a value came from nowhere")
				}
			}
		}
	}
}

// TestSelectOfNothingWaits: no cases, and only such as are never ready.
func TestSelectOfNothingWaits(t *testing.T) {
	s := begin(t, 1)
	for _, p := range places {
		for i, call := range []func(*ints) answer{
			func(*ints) answer {
				i, err := sched.SelectWithin(sched.For(moment))
				return answered(i, err)
			},
			func(c *ints) answer {
				v := 0
				i, err := sched.SelectWithin(sched.For(moment), c.SendCase(&v), c.RecvCase(&v))
				return answered(i, err)
			},
			func(*ints) answer {
				i, err := sched.TrySelect()
				return answered(i, err)
			},
			func(*ints) answer {
				i, err := sched.TrySelect(sched.Case{}, sched.Case{})
				return answered(i, err)
			},
		} {
			e := &errand{call: call}
			p.run(t, s, (*errand).do, e)
			if e.got != (answer{blocks, -1}) {
				t.Errorf("%d on a %s: %v", i, p.name, e.got)
			}
		}
	}
}

// TestSelectDoesNotMeetItself: a send and a receive case of one channel, which
// are each other's other side, but of one Select; and the same case twice.
func TestSelectDoesNotMeetItself(t *testing.T) {
	s := begin(t, 1)
	for _, p := range places {
		c := new(ints)
		e := &errand{c: c, call: func(c *ints) answer {
			v, w := 1, 2
			i, err := sched.SelectWithin(sched.For(moment), c.SendCase(&v), c.RecvCase(&w), c.RecvCase(&v), c.SendCase(&w), c.SendCase(&w))
			return answered(i*100+v*10+w, err)
		}}
		p.run(t, s, (*errand).do, e)
		if e.got != (answer{blocks, -100 + 12}) || c.Waiting() != 0 {
			t.Errorf("on a %s: %v, and %d wait", p.name, e.got, c.Waiting())
		}
	}
}

// TestSelectChoosesFairly: of four cases that are ready, one three times.
func TestSelectChoosesFairly(t *testing.T) {
	s := begin(t, 1)
	const draws = 6000
	type draw struct {
		c      [5]*ints
		counts [6]int
		failed int
	}
	draws1 := func(d *draw) {
		var v [6]int
		for range draws {
			i, err := sched.Select(d.c[0].RecvCase(&v[0]), d.c[4].RecvCase(&v[1]), d.c[1].RecvCase(&v[2]), d.c[2].SendCase(&v[3]), d.c[3].RecvCase(&v[4]), d.c[0].RecvCase(&v[5]))
			if err != nil {
				d.failed++
				return
			}
			d.counts[i]++
			switch i {
			case 0, 5:
				d.c[0].TrySend(1)
			case 2:
				d.c[1].TrySend(1)
			case 3:
				d.c[2].TryRecv()
			case 4:
				d.c[3].TrySend(1)
			}
		}
	}
	for _, p := range places {
		d := new(draw)
		for i := range d.c {
			d.c[i] = sched.MakeChan[int](1)
			if i != 2 && i != 4 {
				d.c[i].TrySend(1)
			}
		}
		switch p.name {
		case "fiber":
			run(t, s, draws1, d)
		case "thread":
			lwptest.OnThread(t, draws1, d)
		case "goroutine":
			draws1(d)
		}
		// Of 6000 draws a fifth, 31 being the standard deviation; but the dice
		// of threads and goroutines is a clock, and its steps may be coarse.
		least, most := 1200-6*31, 1200+6*31
		if p.name != "fiber" {
			least, most = 300, 4000
		}
		for i, n := range d.counts {
			if i == 1 && n != 0 || i != 1 && (n < least || n > most) || d.failed != 0 {
				t.Errorf("on a %s: chosen %v times", p.name, d.counts)
				break
			}
		}
	}
}
