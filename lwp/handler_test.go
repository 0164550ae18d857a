package lwp_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// A query is an argument of handlers in tests.
type query struct {
	in, out int
}

func newHandler[T any](t testing.TB, fn func(*T), config lwp.HandlerConfig) *lwp.Handler[T] {
	t.Helper()
	h, err := lwp.NewHandlerConfig(fn, config)
	if err != nil {
		t.Fatal("NewHandler: ", err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// An asking is a thread that calls a handler some times.
type asking struct {
	h    *lwp.Handler[query]
	n    int
	sum  int
	errs atomic.Int64
}

func callHandler(c *asking) {
	for i := range c.n {
		q := query{in: i}
		if c.h.Call(&q) != nil {
			c.errs.Add(1)
		}
		c.sum += q.out
	}
}

// square does what no thread can: it allocates, formats, and uses a map and a channel.
func square(q *query) {
	c := make(chan int)
	go func() {
		var n int
		fmt.Sscan(fmt.Sprint(q.in), &n)
		c <- n * n
	}()
	q.out = <-c
}

func TestHandlerDoesWhatThreadsCannot(t *testing.T) {
	begin(t)
	h := newHandler(t, square, lwp.HandlerConfig{})
	callers := make([]asking, 4)
	var threads []lwp.Thread
	for i := range callers {
		callers[i] = asking{h: h, n: lwptest.Count(200, 50)}
		threads = append(threads, start(t, callHandler, &callers[i]))
	}
	own := asking{h: h, n: callers[0].n}
	callHandler(&own)
	for _, th := range threads {
		join(t, th)
	}
	for i := range callers {
		if c := &callers[i]; c.errs.Load() != 0 || c.sum != own.sum || c.sum == 0 {
			t.Errorf("caller %d: %d errors, sum %d, want %d", i, c.errs.Load(), c.sum, own.sum)
		}
	}
}

func TestHandlerTellsWhatIsNotPossible(t *testing.T) {
	begin(t)
	_, err := lwp.NewHandler[int](nil)
	want(t, "NewHandler of nil", err, lwp.ErrNilFunc)
	_, err = lwp.NewHandlerConfig(func(*int) {}, lwp.HandlerConfig{Limit: -1})
	want(t, "a limit of -1", err, lwp.ErrAttr)
	var none *lwp.Handler[query]
	for _, h := range []*lwp.Handler[query]{none, new(lwp.Handler[query])} {
		want(t, "Call of none", h.Call(new(query)), lwp.ErrNilFunc)
		want(t, "CallFor of none", h.CallFor(new(query), time.Second), lwp.ErrNilFunc)
		want(t, "CallContext of none", h.CallContext(t.Context(), new(query)), lwp.ErrNilFunc)
		want(t, "Close of none", h.Close(), lwp.ErrNilFunc)
	}
	h := newHandler(t, func(q *query) { q.out++ }, lwp.HandlerConfig{})
	want(t, "Close", h.Close(), nil)
	want(t, "second Close", h.Close(), lwp.ErrHandlerClosed)
	q := &query{}
	want(t, "Call after Close", h.Call(q), lwp.ErrHandlerClosed)
	want(t, "CallContext after Close", h.CallContext(t.Context(), q), lwp.ErrHandlerClosed)
	c := &asking{h: h}
	ctx := t.Context()
	type asked struct {
		asking
		ctx  context.Context
		errs [6]bool
	}
	a := &asked{asking: asking{h: h}, ctx: ctx}
	lwptest.OnThread(t, func(a *asked) {
		var q query
		_, err := lwp.NewHandler(func(*int) {})
		a.errs = [...]bool{a.h.Call(&q) == lwp.ErrHandlerClosed, a.h.CallFor(&q, time.Second) == lwp.ErrHandlerClosed,
			a.h.Close() == lwp.ErrHosted, a.h.CallContext(a.ctx, &q) == lwp.ErrHosted, err == lwp.ErrHosted,
			(*lwp.Handler[query])(nil).Call(&q) == lwp.ErrNilFunc}
	}, a)
	if a.errs != [6]bool{true, true, true, true, true, true} || q.out != 0 || c.errs.Load() != 0 {
		t.Errorf("on a thread: %v", a.errs)
	}
}

type wordy struct{ s string }

func (w wordy) Error() string { return w.s }

var noMap map[string]int

type broken struct{}

func (broken) String() string { panic("again") }

// TestHandlerPanicsComeBack: on a thread, and on a goroutine.
func TestHandlerPanicsComeBack(t *testing.T) {
	begin(t)
	h := newHandler(t, func(q *query) {
		q.out = 1
		switch q.in {
		case 0:
			panic("no such thing")
		case 1:
			panic(wordy{"an error"})
		case 2:
			panic(broken{})
		case 3:
			noMap["x"] = q.in
		case 4:
			panic(strings.Repeat("long ", 100))
		case 5:
			panic(nil)
		}
		q.out = 2
	}, lwp.HandlerConfig{Limit: 1})
	texts := []string{"no such thing", "an error", "lwp_test.broken", "nil map", strings.Repeat("long ", 24), "nil"}
	check := func(t *testing.T, who string, i int, err error, out int) {
		t.Helper()
		f := new(lwp.Fault)
		if !errors.As(err, &f) || f.Reason != lwp.HandlerPanic || !strings.Contains(f.Error(), texts[i]) || out != 1 {
			t.Errorf("%s: %v, want %q in it; out %d", who, err, texts[i], out)
			return
		}
		if !strings.Contains(f.Stack(), "TestHandlerPanicsComeBack") {
			t.Errorf("%s: the trace of %v is\n%s", who, f, f.Stack())
		}
	}
	for i := range texts {
		q := query{in: i}
		check(t, "goroutine", i, h.Call(&q), q.out)
		check(t, "CallContext", i, h.CallContext(t.Context(), &q), q.out)
		// The thread holds the Fault while this goroutine looks at it.
		type held struct {
			h        *lwp.Handler[query]
			q        query
			f        lwp.Ref[lwp.Fault]
			up, down lwptest.Flag
		}
		x := &held{h: h, q: q}
		th := start(t, func(x *held) {
			if f, ok := x.h.Call(&x.q).(*lwp.Fault); ok {
				x.f.Set(f)
			}
			x.up.Raise()
			x.down.Wait()
		}, x)
		lwptest.Eventually(t, "the call", x.up.Up)
		if f := x.f.Ptr(); f == nil {
			t.Errorf("thread: no Fault for %q", texts[i])
		} else {
			check(t, "thread", i, f, x.q.out)
		}
		x.down.Raise()
		join(t, th)
	}
	q := query{in: 9}
	if err := h.Call(&q); err != nil || q.out != 2 {
		t.Errorf("after all that: %v, %d", err, q.out)
	}
}

// TestHandlerGoexit: the function ends its goroutine, and the host goes on.
func TestHandlerGoexit(t *testing.T) {
	begin(t)
	h := newHandler(t, func(q *query) {
		if q.in%2 == 0 {
			runtime.Goexit()
		}
		q.out = 1
	}, lwp.HandlerConfig{Limit: 2})
	c := &asking{h: h, n: 20}
	join(t, start(t, callHandler, c))
	if c.errs.Load() != 10 || c.sum != 10 {
		t.Errorf("%d of 20 calls failed, %d went well", c.errs.Load(), c.sum)
	}
	want(t, "CallContext", h.CallContext(t.Context(), &query{}), lwp.ErrGoexit)
	ended := make(chan bool)
	go func() {
		defer func() { ended <- true }()
		h.Call(&query{}) // its own goroutine
		t.Error("the goroutine has not ended")
	}()
	lwptest.Within(t, "the goroutine", func() { <-ended })
}

// TestHandlerDeadlines: the caller gives up, the function has a copy.
func TestHandlerDeadlines(t *testing.T) {
	begin(t)
	open := make(chan struct{})
	var ran atomic.Int64
	h := newHandler(t, func(q *query) {
		if q.in == 1 {
			<-open
		}
		ran.Add(1)
		q.out = q.in + 100
	}, lwp.HandlerConfig{Limit: 1})
	type asker struct {
		h                 *lwp.Handler[query]
		stuck, quick, end query
		late, fine, turn  bool
		d                 time.Duration
	}
	a := &asker{h: h, stuck: query{in: 1}, quick: query{in: 2}, end: query{in: 3}}
	lwptest.OnThread(t, func(a *asker) {
		a.fine = a.h.CallFor(&a.quick, time.Minute) == nil
		begun := futex.Monotonic()
		a.late = a.h.CallFor(&a.stuck, 5*time.Millisecond) == lwp.ErrDeadline
		a.turn = a.h.CallFor(&a.end, 5*time.Millisecond) == lwp.ErrDeadline // the first is still under way
		a.d = time.Duration(futex.Monotonic() - begun)
	}, a)
	if !a.fine || !a.late || !a.turn || a.d < 10*time.Millisecond {
		t.Errorf("in time %v, late %v, while another runs %v, after %v", a.fine, a.late, a.turn, a.d)
	}
	if a.quick.out != 102 || a.stuck.out != 0 || a.end.out != 0 {
		t.Errorf("results %d, %d, %d", a.quick.out, a.stuck.out, a.end.out)
	}
	q := query{in: 4}
	want(t, "CallFor", h.CallFor(&q, 5*time.Millisecond), lwp.ErrDeadline)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, "CallContext", h.CallContext(ctx, &q), context.Canceled)
	ctx, cancel = context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	want(t, "CallContext", h.CallContext(ctx, &q), context.DeadlineExceeded)

	soon, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	want(t, "CloseContext", h.CloseContext(soon), context.DeadlineExceeded)
	close(open)
	lwptest.Eventually(t, "what was given up to end", func() bool { return ran.Load() >= 2 })
	time.Sleep(5 * time.Millisecond)
	if n := ran.Load(); n != 2 || a.stuck.out != 0 || q.out != 0 {
		t.Errorf("%d have run, which should be those that had begun", n)
	}
}

// TestHandlerDeadlineRaces: a call ends as its time is up; it is one or the other.
func TestHandlerDeadlineRaces(t *testing.T) {
	begin(t)
	var ran atomic.Int64
	h := newHandler(t, func(q *query) {
		if q.in%3 == 0 {
			time.Sleep(time.Duration(q.in%50) * time.Microsecond)
		}
		ran.Add(1)
		q.out = q.in
	}, lwp.HandlerConfig{})
	type asker struct {
		h                 *lwp.Handler[query]
		n                 int
		fine, late, wrong int
	}
	as := make([]asker, 3)
	var threads []lwp.Thread
	for i := range as {
		as[i] = asker{h: h, n: lwptest.Soak(500, 100)}
		threads = append(threads, start(t, func(a *asker) {
			for i := range a.n {
				q := query{in: i + 1}
				err := a.h.CallFor(&q, time.Duration(i%60)*time.Microsecond)
				switch {
				case err == nil && q.out == i+1:
					a.fine++
				case err == lwp.ErrDeadline && q.out == 0:
					a.late++
				default:
					a.wrong++
				}
			}
		}, &as[i]))
	}
	for i, th := range threads {
		join(t, th)
		if a := &as[i]; a.wrong != 0 || a.fine+a.late != a.n {
			t.Errorf("%+v", *a)
		}
	}
	want(t, "Close", h.Close(), nil)
	t.Logf("%d ran; %+v", ran.Load(), as)
}

// TestHandlerLimitHolds: never more at a time, and everybody's turn comes.
func TestHandlerLimitHolds(t *testing.T) {
	begin(t)
	var now, most atomic.Int64
	h := newHandler(t, func(q *query) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(50 * time.Microsecond)
		now.Add(-1)
		q.out = 1
	}, lwp.HandlerConfig{Limit: 3})
	callers := make([]asking, 12)
	var threads []lwp.Thread
	var wg sync.WaitGroup
	for i := range callers {
		callers[i] = asking{h: h, n: lwptest.Soak(30, 10)}
		if i%3 == 0 {
			wg.Go(func() { callHandler(&callers[i]) })
		} else {
			threads = append(threads, start(t, callHandler, &callers[i]))
		}
	}
	for _, th := range threads {
		join(t, th)
	}
	lwptest.Within(t, "the goroutines", wg.Wait)
	for i := range callers {
		if c := &callers[i]; c.sum != c.n || c.errs.Load() != 0 {
			t.Errorf("caller %d: %d of %d", i, c.sum, c.n)
		}
	}
	if most.Load() != 3 {
		t.Errorf("%d at a time, with a limit of 3", most.Load())
	}
}

// TestHandlerCloseSettlesEveryCall closes while threads call: each call has run
// to its end or was refused.
func TestHandlerCloseSettlesEveryCall(t *testing.T) {
	begin(t)
	for round := range lwptest.Soak(50, 15) {
		var ran atomic.Int64
		h := newHandler(t, func(q *query) {
			if q.in%4 == 0 {
				time.Sleep(20 * time.Microsecond)
			}
			ran.Add(1)
		}, lwp.HandlerConfig{Limit: round % 3})
		callers := make([]asking, 4)
		var threads []lwp.Thread
		var wg sync.WaitGroup
		again := func(c *asking) {
			for {
				q := query{in: c.n}
				if err := c.h.Call(&q); err != nil {
					if err != lwp.ErrHandlerClosed {
						c.errs.Add(1)
					}
					return
				}
				c.n++
			}
		}
		for i := range callers {
			callers[i].h = h
			if i == 0 {
				wg.Go(func() { again(&callers[i]) })
			} else {
				threads = append(threads, start(t, again, &callers[i]))
			}
		}
		time.Sleep(time.Duration(round%10) * 30 * time.Microsecond)
		lwptest.Within(t, "Close", func() { want(t, "Close", h.Close(), nil) })
		after := ran.Load()
		for _, th := range threads {
			join(t, th)
		}
		wg.Wait()
		sum := int64(0)
		for i := range callers {
			sum += int64(callers[i].n) + 100_000*callers[i].errs.Load()
		}
		if sum != after || ran.Load() != after {
			t.Fatalf("round %d: %d ran by the end of Close, %d in all, %d calls went well", round, after, ran.Load(), sum)
		}
	}
}

// TestHandlerFromHooks: a thread calls one as it exits.
func TestHandlerFromHooks(t *testing.T) {
	begin(t)
	var ran atomic.Int64
	h := newHandler(t, func(q *query) { ran.Add(int64(q.in)) }, lwp.HandlerConfig{})
	c := &asking{h: h}
	for _, end := range []func(*asking){
		func(*asking) {},
		func(*asking) { lwp.Exit() },
		func(*asking) { *nowhere() = 1 },
	} {
		type leaver struct {
			asking
			end func(*asking)
		}
		th := start(t, func(l *leaver) {
			lwp.OnExit(func(l *leaver) {
				q := query{in: 1}
				if l.h.Call(&q) != nil {
					l.errs.Add(1)
				}
			}, l)
			l.end(&l.asking)
		}, &leaver{asking: asking{h: h}, end: end})
		lwptest.Within(t, "the thread", func() { th.Join() })
	}
	if ran.Load() != 3 || c.errs.Load() != 0 {
		t.Errorf("%d of 3 hooks have called", ran.Load())
	}
}

// TestHandlerCallsHandler: a body calls handlers, starts threads that do, and
// joins them.
func TestHandlerCallsHandler(t *testing.T) {
	begin(t)
	var h *lwp.Handler[query]
	h = newHandler(t, func(q *query) {
		if q.in == 0 {
			q.out = 1
			return
		}
		own, theirs := query{in: q.in - 1}, &asking{h: h, n: 1}
		err := h.Call(&own)
		th, startErr := lwp.Start(callHandler, theirs)
		if err != nil || startErr != nil || th.Join() != nil {
			return
		}
		q.out = own.out + theirs.sum
	}, lwp.HandlerConfig{})
	type asker struct {
		h *lwp.Handler[query]
		q query
	}
	a := &asker{h: h, q: query{in: 5}}
	lwptest.OnThread(t, func(a *asker) { a.h.Call(&a.q) }, a)
	if a.q.out != 6 {
		t.Errorf("%d, want 6", a.q.out)
	}
}

// TestManyCallersTieUpFewThreads: threads that wait in handlers whose functions
// block cost the runtime no thread each.
func TestManyCallersTieUpFewThreads(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "tasks of its own in /proc")
	open := make(chan struct{})
	var in atomic.Int64
	h := newHandler(t, func(q *query) {
		in.Add(1)
		<-open
	}, lwp.HandlerConfig{})
	n := lwptest.Count(200, 50)
	before := lwptest.NumTasks()
	callers := make([]asking, n)
	var threads []lwp.Thread
	for i := range callers {
		callers[i] = asking{h: h, n: 1}
		threads = append(threads, startAttr(t, callHandler, &callers[i], lwp.Attr{StackSize: 8 << 10}))
	}
	lwptest.Eventually(t, "all to call", func() bool { return in.Load() == int64(n) })
	if now := lwptest.NumTasks() - n; now > before+10 {
		t.Errorf("%d threads of Go's, and %d with %d calls", before, now, n)
	}
	close(open)
	for _, th := range threads {
		join(t, th)
	}
}

// TestIdleHandlersCostNothing measures the CPU time of a process of which a
// thread waits in a handler.
func TestIdleHandlersCostNothing(t *testing.T) {
	lwptest.NotEmulated(t, "CPU times")
	if lwptest.MustPass(t, nil) { // where no other test's goroutines run
		return
	}
	begin(t)
	open := make(chan struct{})
	h := newHandler(t, func(q *query) {
		if q.in == 1 {
			<-open
		}
	}, lwp.HandlerConfig{})
	c := &asking{h: h, n: 2}
	th := start(t, callHandler, c)
	time.Sleep(100 * time.Millisecond)
	runtime.GC()
	var a, b syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &a)
	time.Sleep(500 * time.Millisecond)
	syscall.Getrusage(syscall.RUSAGE_SELF, &b)
	used := time.Duration(b.Utime.Nano() + b.Stime.Nano() - a.Utime.Nano() - a.Stime.Nano())
	if used > 20*time.Millisecond {
		t.Errorf("%v of CPU time in half a second", used)
	}
	close(open)
	join(t, th)
}

// TestProcessHasNoHandlers: a child has no goroutines.
func TestProcessHasNoHandlers(t *testing.T) {
	begin(t)
	lwptest.NotEmulated(t, "fork of a process with threads")
	h := newHandler(t, func(q *query) {}, lwp.HandlerConfig{})
	p, err := lwp.StartProcess(func(h *lwp.Handler[query]) int {
		var q query
		if h.Call(&q) == lwp.ErrHosted && h.CallFor(&q, time.Second) == lwp.ErrHosted {
			return 7
		}
		return 1
	}, h, lwp.ProcessAttr{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Wait()
	if err != nil || s.ExitCode() != 7 {
		t.Errorf("%v, %v", s, err)
	}
}
