package lwp_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// edge is how many frames of each size a thread puts on its stack first.
type edge struct{ small, middle, large int }

//go:noinline
func small(e *edge, n int) int {
	var a [16]byte
	a[n%16] = 1
	if n > 0 {
		return small(e, n-1) + int(a[0])
	}
	th, err := lwp.StartAttr(func(*edge) {}, e, lwp.Attr{StackSize: lwp.MinStackSize})
	if err == nil {
		th.Join()
	}
	return int(a[1])
}

//go:noinline
func middle(e *edge, n int) int {
	var a [32]byte
	a[n%32] = 1
	if n > 0 {
		return middle(e, n-1) + int(a[0])
	}
	return small(e, e.small) + int(a[1])
}

//go:noinline
func large(e *edge, n int) int {
	var a [48]byte
	a[n%48] = 1
	if n > 0 {
		return large(e, n-1) + int(a[0])
	}
	return middle(e, e.middle) + int(a[1])
}

// A stack that is exhausted somewhere in Start or Join leaves no lock held that
// others need, and no sleeper without its wake.
func TestOverflowWithinStartHoldsUpNobody(t *testing.T) {
	lwptest.SkipRace(t)
	var stop atomic.Bool
	done := make(chan bool)
	for range 2 { // for contention
		go func() {
			for !stop.Load() {
				if th, err := lwp.StartAttr(func(*edge) {}, new(edge), lwp.Attr{StackSize: lwp.MinStackSize}); err == nil {
					th.Join()
				}
			}
			done <- true
		}()
	}
	overflows, inside := 0, 0
	for i := range lwptest.Count(20_000, 4_000) {
		e := &edge{i * 7 % 20, i * 3 % 20, i % 50}
		var err error
		lwptest.Within(t, "a thread at the edge of its stack", func() {
			var th lwp.Thread
			if th, err = lwp.StartAttr(func(e *edge) { large(e, e.large) }, e, lwp.Attr{StackSize: lwp.MinStackSize}); err == nil {
				err = th.Join()
			}
		})
		if f, ok := err.(*lwp.Fault); ok && f.Reason == lwp.StackOverflow {
			overflows++
			if strings.Contains(f.Stack(), "lwprt/lwp.start") {
				inside++
			}
			for _, lock := range []string{"futex.Scope", "futex.(*Mutex)"} {
				if strings.Contains(f.Stack(), lock) {
					t.Errorf("the stack was exhausted in a lock\n%s", f.Stack())
				}
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	<-done
	<-done
	if inside == 0 {
		t.Errorf("%d overflows, none in Start", overflows)
	}
	alive(t)
}

// A stack that is exhausted while Start takes back the memory of detached
// threads loses none of those that it had in hand.
func TestOverflowWithinStartLosesNoDetachedThread(t *testing.T) {
	lwptest.SkipRace(t)
	var left []lwp.Thread
	overflows := 0
	for i := range lwptest.Count(20_000, 4_000) {
		for range 2 { // for Start to find
			left = append(left, startAttr(t, func(*edge) {}, new(edge), lwp.Attr{Detached: true, StackSize: lwp.MinStackSize}))
		}
		e := &edge{i * 7 % 20, i * 3 % 20, i % 50}
		th := startAttr(t, func(e *edge) { large(e, e.large) }, e, lwp.Attr{StackSize: lwp.MinStackSize})
		if f, ok := th.Join().(*lwp.Fault); ok && strings.Contains(f.Stack(), "lwprt/lwp.start") {
			overflows++
		}
	}
	if overflows == 0 {
		t.Error("no overflow in Start")
	}
	lwptest.Eventually(t, "detached threads to be taken back", func() bool {
		lwp.Trim()
		for len(left) > 0 && left[0].TID() == 0 {
			left = left[1:]
		}
		return len(left) == 0
	})
}
