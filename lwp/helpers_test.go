package lwp_test

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// begin skips where there are no threads, and checks at the end that nothing has leaked.
func begin(t *testing.T) {
	t.Helper()
	lwptest.SkipRace(t)
	lwptest.Leaks(t)
	before := lwp.Records()
	t.Cleanup(func() {
		if t.Failed() || t.Skipped() {
			return
		}
		lwptest.Eventually(t, "records to be free again", func() bool {
			lwp.Trim()
			return lwp.Records() <= before
		})
	})
}

// start starts fn(arg) on a thread that must come to be.
func start[T any](t testing.TB, fn func(*T), arg *T) lwp.Thread {
	t.Helper()
	return startAttr(t, fn, arg, lwp.Attr{})
}

func startAttr[T any](t testing.TB, fn func(*T), arg *T, attr lwp.Attr) lwp.Thread {
	t.Helper()
	th, err := lwp.StartAttr(fn, arg, attr)
	if err != nil {
		t.Fatal("start: ", err)
	}
	return th
}

// join joins a thread that must be there to join.
func join(t testing.TB, th lwp.Thread) {
	t.Helper()
	lwptest.Within(t, "a thread to end", func() {
		if err := th.Join(); err != nil {
			t.Error("join: ", err)
		}
	})
}

// gone waits until the kernel has no task of that ID.
func gone(t testing.TB, tid int) {
	t.Helper()
	lwptest.Eventually(t, "the end of a task", func() bool {
		return errors.Is(unix.Tgkill(os.Getpid(), tid, 0), unix.ESRCH)
	})
}

// want checks the error of a call.
func want(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// A stage is what a thread that stays for a while shows, and is told.
type stage struct {
	up, leave lwptest.Flag
	tid       atomic.Int32
	self      lwp.Thread
	n         atomic.Int64
	here      atomic.Uintptr // an address on the stack of stay
}

// stay reports that it has come and stays until it may leave.
func stay(s *stage) {
	var here byte
	s.here.Store(uintptr(unsafe.Pointer(&here)))
	s.self = lwp.Self()
	s.tid.Store(int32(gettid()))
	s.up.Raise()
	s.leave.Wait()
	s.n.Add(1)
}

// come does not stay.
func come(s *stage) {
	s.self = lwp.Self()
	s.tid.Store(int32(gettid()))
	s.n.Add(1)
}

func gettid() int {
	tid, _, _ := unix.RawSyscall(unix.SYS_GETTID, 0, 0, 0)
	return int(tid)
}

func readTrim(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
