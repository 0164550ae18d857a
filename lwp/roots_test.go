package lwp_test

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// A cargo is what only a thread refers to.
type cargo struct {
	check [512]uint64
	at    *hold
}

// A hold is where a cargo's thread waits. It outlives the cargo.
type hold struct {
	up, leave lwptest.Flag
	wrong     atomic.Int64
}

const pattern = 0x6b65657020746869

func keep(c *cargo) {
	at := c.at
	at.up.Raise()
	at.leave.Wait()
	for _, w := range c.check {
		if w != pattern {
			at.wrong.Add(1)
		}
	}
}

// load makes a cargo and a closure over another one, starts a thread with the two,
// and returns weak pointers: nothing else refers to them when load has
// returned.
//
//go:noinline
func load(t *testing.T, at *hold, attr lwp.Attr) (th lwp.Thread, arg, captured weak.Pointer[cargo]) {
	t.Helper()
	c, in := newCargo(at), newCargo(at)
	arg, captured = weak.Make(c), weak.Make(in)
	th = startAttr(t, func(c *cargo) {
		keep(c)
		keep(in)
	}, c, attr)
	return th, arg, captured
}

func newCargo(at *hold) *cargo {
	c := &cargo{at: at}
	for i := range c.check {
		c.check[i] = pattern
	}
	return c
}

// trash fills what the collector has freed with something else.
func trash() {
	runtime.GC()
	for range 200 {
		c := newCargo(nil)
		clear(c.check[:])
		runtime.KeepAlive(c)
	}
	runtime.GC()
}

// released checks that collections free what ps point to: the first has tidy
// run, on a goroutine of the runtime's, and one after that finds what tidy has
// let go.
func released(t *testing.T, what string, ps ...weak.Pointer[cargo]) {
	t.Helper()
	collections := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); collections++ {
		runtime.GC()
		left := 0
		for _, p := range ps {
			if p.Value() != nil {
				left++
			}
		}
		if left == 0 {
			return
		}
		time.Sleep(time.Duration(collections) * 100 * time.Microsecond)
	}
	t.Errorf("%s: still reachable after %d collections", what, collections)
}

func TestArgumentLivesAsLongAsItsThread(t *testing.T) {
	everyKind(t, func(t *testing.T, attr lwp.Attr) {
		for _, detached := range []bool{false, true} {
			attr.Detached = detached
			at := new(hold)
			th, arg, captured := load(t, at, attr)
			at.up.Wait()
			for range 3 {
				trash()
			}
			if arg.Value() == nil || captured.Value() == nil {
				t.Fatalf("detached %v: collected while the thread lives", detached)
			}
			tid := th.TID()
			at.leave.Raise()
			if !detached {
				join(t, th)
			} else if attr.Pool == nil {
				gone(t, tid)
			} else {
				lwptest.Eventually(t, "the run to end", func() bool { return th.TID() == 0 })
			}
			released(t, "after the end", arg, captured)
			if n := at.wrong.Load(); n != 0 {
				t.Errorf("detached %v: the thread found %d words of something else", detached, n)
			}
		}
	})
}

// TestArgumentIsReleasedByEveryEnd ends threads in each of the other ways.
func TestArgumentIsReleasedByEveryEnd(t *testing.T) {
	begin(t)
	at := new(hold)
	at.leave.Raise()
	everyEnd := map[string]func(lwp.Thread){
		"joined by a thread": func(th lwp.Thread) {
			w := &waiter{of: th}
			lwptest.OnThread(t, waitFor, w)
			if c := lwptest.Code(w.code.Load()); c != 0 {
				t.Error(c)
			}
		},
		"detached while it runs": func(th lwp.Thread) { want(t, "Detach", th.Detach(), nil) },
		"detached after the end": func(th lwp.Thread) {
			gone(t, th.TID())
			want(t, "Detach", th.Detach(), nil)
		},
		"tried": func(th lwp.Thread) {
			lwptest.Eventually(t, "TryJoin", func() bool { return th.TryJoin() == nil })
		},
	}
	for name, end := range everyEnd {
		var args []weak.Pointer[cargo]
		for range 20 {
			th, arg, captured := load(t, at, lwp.Attr{})
			end(th)
			args = append(args, arg, captured)
		}
		lwptest.Eventually(t, "threads to end", func() bool { return len(lwp.Threads()) == 0 })
		released(t, name, args...)
	}
	if n := at.wrong.Load(); n != 0 {
		t.Errorf("threads found %d words of something else", n)
	}
}

// TestArgumentOfRefusedStartIsReleased starts threads that do not come to be.
func TestArgumentOfRefusedStartIsReleased(t *testing.T) {
	begin(t)
	full := newPool(t, lwp.PoolConfig{MaxThreads: 1})
	_, s := stays(t, lwp.Attr{Pool: full, Detached: true})
	refuse := func(attr lwp.Attr) weak.Pointer[cargo] {
		c := newCargo(nil)
		if _, err := lwp.StartAttr(func(*cargo) {}, c, attr); err == nil {
			t.Error("the thread came to be")
		}
		return weak.Make(c)
	}
	var args []weak.Pointer[cargo]
	for range 10 {
		args = append(args,
			refuse(lwp.Attr{StackSize: 1}),
			refuse(lwp.Attr{Enter: []int{-1}}),
			refuse(lwp.Attr{Enter: []int{-1}, Detached: true}),
			refuse(lwp.Attr{Pool: full}))
	}
	released(t, "refused", args...)
	s.leave.Raise()
	closePool(t, full)
}
