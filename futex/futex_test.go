package futex_test

import (
	"errors"
	"math"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

var scopes = map[string]futex.Scope{"private": futex.Private, "shared": futex.Shared}

func expect(t *testing.T, want futex.Outcome, got futex.Outcome, err error) {
	t.Helper()
	if got != want || err != nil {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

func TestEveryFormOfWaitSeesAChangedWord(t *testing.T) {
	x := new(uint32)
	for name, s := range scopes {
		t.Run(name, func(t *testing.T) {
			out, err := s.Wait(x, 1)
			expect(t, futex.Changed, out, err)
			out, err = s.WaitFor(x, 1, time.Hour)
			expect(t, futex.Changed, out, err)
			out, err = s.WaitUntil(x, 1, futex.After(time.Hour))
			expect(t, futex.Changed, out, err)
			out, err = s.WaitBitset(x, 1, 2, futex.Never)
			expect(t, futex.Changed, out, err)
		})
	}
}

func TestWakeCountsThoseItWoke(t *testing.T) {
	for name, s := range scopes {
		t.Run(name, func(t *testing.T) {
			x := new(uint32)
			count := func() int {
				n, err := s.Requeue(x, x, 0, futex.All)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			if n, err := s.Wake(x, futex.All); n != 0 || err != nil {
				t.Errorf("with nobody there: %d, %v", n, err)
			}
			const waiters = 5
			var woken atomic.Int32
			c := newCrew(t)
			for range waiters {
				c.start(func() {
					if out, err := s.Wait(x, 0); out != futex.Woken || err != nil {
						t.Errorf("%v, %v", out, err)
					}
					woken.Add(1)
				})
			}
			eventually(t, "sleepers", func() bool { return count() == waiters })
			for _, step := range []struct{ n, want int }{{0, 0}, {1, 1}, {2, 2}, {math.MaxInt, 2}} {
				if n, err := s.Wake(x, step.n); n != step.want || err != nil {
					t.Errorf("Wake(%d) = %d, %v; want %d", step.n, n, err, step.want)
				}
			}
			eventually(t, "waiters to return", func() bool { return woken.Load() == waiters })
		})
	}
}

func TestScopesDoNotMeet(t *testing.T) {
	x := new(uint32)
	c := newCrew(t)
	c.start(func() { futex.Private.Wait(x, 0) })
	asleep(t, x, 1)
	if n, err := futex.Shared.Wake(x, 1); n != 0 || err != nil {
		t.Errorf("shared wake of a private waiter: %d, %v", n, err)
	}
	if n, err := futex.Private.Wake(x, 1); n != 1 || err != nil {
		t.Errorf("private wake: %d, %v", n, err)
	}
}

func TestBitsetSelects(t *testing.T) {
	x := new(uint32)
	c := newCrew(t)
	var ended [3]atomic.Bool
	for i, bits := range []uint32{1, 2, futex.MatchAny} {
		c.start(func() {
			out, err := futex.Private.WaitBitset(x, 0, bits, futex.Never)
			expect(t, futex.Woken, out, err)
			ended[i].Store(true)
		})
		asleep(t, x, i+1)
	}
	if n, err := futex.Private.WakeBitset(x, futex.All, 4); n != 1 || err != nil {
		t.Errorf("a bit that only MatchAny has: %d, %v", n, err)
	}
	eventually(t, "MatchAny", ended[2].Load)
	if n, err := futex.Private.WakeBitset(x, futex.All, 2); n != 1 || err != nil {
		t.Errorf("bit 2: %d, %v", n, err)
	}
	eventually(t, "bit 2", ended[1].Load)
	if ended[0].Load() {
		t.Error("bit 1 was woken")
	}
	if n, err := futex.Wake(x, futex.All); n != 1 || err != nil {
		t.Errorf("a wake without bitset: %d, %v", n, err)
	}
}

func TestRequeueSumsUp(t *testing.T) {
	for _, cmp := range []bool{false, true} {
		x, y := new(uint32), new(uint32)
		c := newCrew(t)
		for range 10 {
			c.start(func() { futex.Wait(x, 0) })
		}
		asleep(t, x, 10)
		requeue := func() (int, error) {
			if !cmp {
				return futex.Private.Requeue(x, y, 3, 5)
			}
			if n, changed, err := futex.Private.CmpRequeue(x, 1, y, 3, 5); n != 0 || !changed || err != nil {
				t.Errorf("CmpRequeue with another value: %d, %v, %v", n, changed, err)
			}
			n, changed, err := futex.Private.CmpRequeue(x, 0, y, 3, 5)
			if changed {
				t.Error("CmpRequeue says changed")
			}
			return n, err
		}
		if n, err := requeue(); n != 8 || err != nil {
			t.Errorf("cmp %v: 3 woken and 5 moved give %d, %v", cmp, n, err)
		}
		if n := sleepers(x); n != 2 {
			t.Errorf("cmp %v: %d stayed, want 2", cmp, n)
		}
		if n, _ := futex.Wake(y, futex.All); n != 5 {
			t.Errorf("cmp %v: %d were moved, want 5", cmp, n)
		}
		futex.Wake(x, futex.All)
	}
}

// unmapped is the address of a page that cannot be accessed.
func unmapped(t *testing.T) *uint32 {
	mem, err := unix.Mmap(-1, 0, 4096, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return (*uint32)(unsafe.Pointer(unsafe.SliceData(mem)))
}

func TestErrorsNameTheCallAndTheErrno(t *testing.T) {
	none := unmapped(t)
	x := new([2]uint32)
	odd := (*uint32)(unsafe.Add(unsafe.Pointer(x), 1))
	p, s := futex.Private, futex.Shared
	for _, c := range []struct {
		name  string
		call  func() error
		errno syscall.Errno
		text  string
	}{
		{"wait unmapped", func() error { _, err := futex.Wait(none, 0); return err }, syscall.EFAULT, "futex wait: bad address"},
		{"wait shared unmapped", func() error { _, err := s.Wait(none, 0); return err }, syscall.EFAULT, "futex wait: bad address"},
		{"wait nil", func() error { _, err := futex.Wait(nil, 0); return err }, syscall.EFAULT, "futex wait: bad address"},
		{"wait odd", func() error { _, err := futex.Wait(odd, 0); return err }, syscall.EINVAL, "futex wait: invalid argument"},
		{"waitfor odd", func() error { _, err := p.WaitFor(odd, 0, 1); return err }, syscall.EINVAL, "futex wait: invalid argument"},
		{"waituntil odd", func() error { _, err := p.WaitUntil(odd, 0, futex.After(1)); return err }, syscall.EINVAL, "futex wait: invalid argument"},
		{"wait no bits", func() error { _, err := p.WaitBitset(&x[0], 0, 0, futex.Never); return err }, syscall.EINVAL, "futex wait: invalid argument"},
		{"wake odd", func() error { _, err := futex.Wake(odd, 1); return err }, syscall.EINVAL, "futex wake: invalid argument"},
		{"wake negative", func() error { _, err := futex.Wake(&x[0], -1); return err }, syscall.EINVAL, "futex wake: invalid argument"},
		{"wake bits negative", func() error { _, err := p.WakeBitset(&x[0], -1, 1); return err }, syscall.EINVAL, "futex wake: invalid argument"},
		{"wake no bits", func() error { _, err := p.WakeBitset(&x[0], 1, 0); return err }, syscall.EINVAL, "futex wake: invalid argument"},
		{"wake shared unmapped", func() error { _, err := s.Wake(none, 1); return err }, syscall.EFAULT, "futex wake: bad address"},
		{"requeue negative", func() error { _, err := p.Requeue(&x[0], &x[1], -1, 1); return err }, syscall.EINVAL, "futex requeue: invalid argument"},
		{"cmprequeue negative", func() error { _, _, err := p.CmpRequeue(&x[0], 0, &x[1], 1, -1); return err }, syscall.EINVAL, "futex requeue: invalid argument"},
		{"cmprequeue unmapped", func() error { _, _, err := p.CmpRequeue(none, 0, &x[1], 1, 1); return err }, syscall.EFAULT, "futex requeue: bad address"},
		{"requeue odd", func() error { _, err := p.Requeue(&x[0], odd, 1, 1); return err }, syscall.EINVAL, "futex requeue: invalid argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.call()
			if !errors.Is(err, c.errno) {
				t.Fatalf("%v, want %v", err, c.errno)
			}
			var fe *futex.Error
			if !errors.As(err, &fe) || fe.Errno != c.errno || err.Error() != c.text {
				t.Errorf("%#v, %q; want %q", err, err.Error(), c.text)
			}
			if n := testing.AllocsPerRun(10, func() { _ = c.call().Error() }); n != 0 {
				t.Errorf("%v allocations: a thread cannot allocate", n)
			}
		})
	}
	if n, err := futex.Wake(none, 1); n != 0 || err != nil {
		t.Errorf("private wake of unmapped memory, as a late Unlock does: %d, %v", n, err)
	}
}

func TestSignalHandlerInterruptsATimedWait(t *testing.T) {
	x := new(uint32)
	tid := make(chan int, 1)
	c := newCrew(t)
	ended := new(atomic.Bool)
	c.startOpen(func() {
		runtime.LockOSThread() // and let the thread die, so that no signal reaches another use of it
		tid <- unix.Gettid()
		out, err := futex.WaitFor(x, 0, time.Hour)
		expect(t, futex.Interrupted, out, err)
		ended.Store(true)
	})
	id := <-tid
	asleep(t, x, 1)
	// The runtime's handler takes SIGURG for a late preemption request.
	if err := unix.Tgkill(unix.Getpid(), id, unix.SIGURG); err != nil {
		t.Fatal(err)
	}
	if !comes(hang, ended.Load) {
		t.Error("the wait goes on after a signal")
		futex.Wake(x, 1)
	}
}

func TestSleepingGoroutineGivesUpItsP(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	x := new(uint32)
	go func() {
		atomic.StoreUint32(x, 1)
		futex.Wake(x, 1)
	}()
	// The other goroutine gets to run only if this wait lets go of the one P.
	for atomic.LoadUint32(x) == 0 {
		if out, err := futex.WaitFor(x, 0, hang); out == futex.TimedOut || err != nil {
			t.Fatalf("%v, %v", out, err)
		}
	}
}

func TestOutcomesHaveNames(t *testing.T) {
	for out, want := range map[futex.Outcome]string{
		futex.Woken: "woken", futex.Changed: "changed", futex.Interrupted: "interrupted",
		futex.TimedOut: "timed out", 99: "unknown outcome",
	} {
		if got := out.String(); got != want {
			t.Errorf("%d: %q, want %q", out, got, want)
		}
	}
}
