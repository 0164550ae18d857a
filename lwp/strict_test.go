package lwp_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"unsafe"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

func TestStrictNeedsAChecker(t *testing.T) {
	lwptest.SkipRace(t)
	if _, err := lwp.StartAttr(func(*int) {}, new(int), lwp.Attr{Strict: true}); err != lwp.ErrNoChecker {
		t.Errorf("got %v, want ErrNoChecker", err)
	}
}

// TestStrictAsksOnceForAFunction has a checker that counts, in a program of its
// own: there is one checker for all.
func TestStrictAsksOnceForAFunction(t *testing.T) {
	lwptest.SkipRace(t)
	if lwptest.MustPass(t, nil) {
		return
	}
	begin(t)
	refused := errors.New("refused")
	asked := 0
	verdict := refused
	lwp.SetChecker(func(func(unsafe.Pointer)) error {
		asked++
		return verdict
	})
	pool := newPool(t, lwp.PoolConfig{})
	n := new(atomic.Int64)
	for _, attr := range []lwp.Attr{{Strict: true}, {Strict: true, Detached: true}, {Strict: true, Pool: pool}} {
		th, err := lwp.StartAttr(count, n, attr)
		want(t, "a function that is refused", err, refused)
		if th != (lwp.Thread{}) {
			t.Error("a handle comes with the error")
		}
	}
	verdict = nil
	for range 3 {
		join(t, startAttr(t, come, new(stage), lwp.Attr{Strict: true}))
	}
	if asked != 2 {
		t.Errorf("the checker was asked %d times about two functions", asked)
	}
	join(t, start(t, count, n)) // not strict, not refused
	if got := n.Load(); got != 1 {
		t.Errorf("the refused function ran %d times, want once", got)
	}
	closePool(t, pool)
}
