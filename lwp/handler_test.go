package lwp_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
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
