package futex_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
)

// TestConformanceFutex holds what the Linux Test Project's programs of the same
// names do.
func TestConformanceFutex(t *testing.T) {
	for _, r := range []struct {
		name string
		test func(*testing.T)
	}{
		{"futex_wait01", futexWait01},
		{"futex_wait02", futexWait02},
		{"futex_wait03", futexWait03},
		{"futex_wait04", futexWait04},
		{"futex_wait05", futexWait05},
		{"futex_wait06", futexWait06},
		{"futex_wait07", futexWait07},
		{"futex_wait_bitset01", futexWaitBitset01},
		{"futex_wake01", futexWake01},
		{"futex_wake02", futexWake02},
		{"futex_wake03", futexWake03},
		{"futex_wake04", futexWake04},
		{"futex_wake05", futexWake05},
		{"futex_cmp_requeue01", futexCmpRequeue01},
		{"futex_cmp_requeue02", futexCmpRequeue02},
		{"futex_cmp_requeue03", futexCmpRequeue03},
		{"futex_waitv01", futexWaitv01},
		{"futex_waitv02", func(t *testing.T) { wokenByIndex(t, futex.Private) }},
		{"futex_waitv03", futexWaitv03},
	} {
		t.Run(r.name, r.test)
	}
}

// refused checks for an *Error with the given errno.
func refused(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if fe := (*futex.Error)(nil); !errors.As(err, &fe) || fe.Errno != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// raw is futex(2) itself, for arguments that the package has no way to say.
func raw(addr unsafe.Pointer, op uintptr, val uint32, arg4 uintptr, addr2 unsafe.Pointer, val3 uint32) (uintptr, syscall.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(addr), op, uintptr(val), arg4, uintptr(addr2), uintptr(val3))
	return r, errno
}

// page maps one page, or size bytes, and unmaps it in the end.
func page(t *testing.T, fd, prot, flags int) []byte {
	t.Helper()
	mem, err := unix.Mmap(fd, 0, os.Getpagesize(), prot, flags)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

func wordAt(mem []byte) *uint32 { return (*uint32)(unsafe.Pointer(unsafe.SliceData(mem))) }

const readWrite = unix.PROT_READ | unix.PROT_WRITE

func eachScope(t *testing.T, f func(*testing.T, futex.Scope)) {
	for name, s := range scopes {
		t.Run(name, func(t *testing.T) { f(t, s) })
	}
}

// timesOut checks that a call times out, and not before d is over.
func timesOut(t *testing.T, what string, d time.Duration, call func() (futex.Outcome, error)) {
	t.Helper()
	began := futex.Monotonic()
	out, err := call()
	if out != futex.TimedOut || err != nil {
		t.Errorf("%s: %v, %v; want %v", what, out, err, futex.TimedOut)
	}
	if took := time.Duration(futex.Monotonic() - began); took < d {
		t.Errorf("%s: %v early", what, d-took)
	}
}

func futexWait01(t *testing.T) {
	eachScope(t, func(t *testing.T, s futex.Scope) {
		x := new(uint32)
		c := newCrew(t)
		c.start(func() {
			timesOut(t, "the right value", 10*time.Millisecond, func() (futex.Outcome, error) { return s.WaitFor(x, 0, 10*time.Millisecond) })
			out, err := s.WaitFor(x, 1, time.Hour)
			expect(t, futex.Changed, out, err)
		})
		within(t, "timeouts", c.wg.Wait)
	})
}

func init() {
	roles["wakeOne"] = func(c *common) int {
		for sharedSleepers(&c.word[0]) != 1 {
			time.Sleep(100 * time.Microsecond)
		}
		if n, err := futex.Shared.Wake(&c.word[0], 1); n != 1 || err != nil {
			return 1
		}
		return 0
	}
	roles["waitOnce"] = func(c *common) int {
		for {
			switch out, err := futex.Shared.Wait(&c.word[0], 0); {
			case err != nil:
				return 1
			case out == futex.Woken:
				return 0
			case out == futex.Changed:
				return 2
			}
		}
	}
}

func futexWait02(t *testing.T) {
	c, file := newCommon(t)
	cmd := spawn(t, file, "wakeOne")
	crew := newCrew(t)
	crew.start(func() {
		out, err := futex.Shared.WaitFor(&c.word[0], 0, hang)
		expect(t, futex.Woken, out, err)
	})
	within(t, "the wake", crew.wg.Wait)
	ended(t, cmd)
}

func futexWait03(t *testing.T) {
	x := new(uint32)
	c := newCrew(t)
	c.start(func() {
		out, err := futex.Private.Wait(x, 0)
		expect(t, futex.Woken, out, err)
	})
	asleep(t, x, 1)
	if n, err := futex.Private.Wake(x, 1); n != 1 || err != nil {
		t.Errorf("woke %d, %v", n, err)
	}
}

func futexWait04(t *testing.T) {
	eachScope(t, func(t *testing.T, s futex.Scope) {
		x := wordAt(page(t, -1, readWrite, unix.MAP_PRIVATE|unix.MAP_ANON))
		out, err := s.WaitFor(x, 1, time.Hour)
		expect(t, futex.Changed, out, err)
	})
}

func futexWait05(t *testing.T) {
	c := newCrew(t)
	c.start(func() {
		x := new(uint32)
		for _, d := range []time.Duration{time.Microsecond, 100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond} {
			best := hang
			for range 10 {
				began := futex.Monotonic()
				timesOut(t, d.String(), d, func() (futex.Outcome, error) { return futex.WaitFor(x, 0, d) })
				best = min(best, time.Duration(futex.Monotonic()-began))
			}
			// The kernel adds its slack, and a busy machine anything: the best of ten it is.
			if best > 10*d+10*time.Millisecond {
				t.Errorf("the best of ten waits for %v took %v", d, best)
			}
		}
	})
	within(t, "timeouts", c.wg.Wait)
}

func futexWait06(t *testing.T) {
	_, err := futex.Wait(unmapped(t), 0)
	refused(t, "unmapped word", err, syscall.EFAULT)
	x := new(uint32)
	const wait = 0
	if _, errno := raw(unsafe.Pointer(x), wait, 0, uintptr(unsafe.Pointer(unmapped(t))), nil, 0); errno != syscall.EFAULT {
		t.Errorf("unmapped timeout: %v", errno)
	}
}

func futexWait07(t *testing.T) {
	x := new(uint32)
	var tid atomic.Int32
	var ended atomic.Bool
	c := newCrew(t)
	c.startOpen(func() {
		runtime.LockOSThread()
		tid.Store(int32(unix.Gettid()))
		out, err := futex.WaitFor(x, 0, time.Hour)
		expect(t, futex.Interrupted, out, err)
		ended.Store(true)
	})
	asleep(t, x, 1)
	// The runtime takes SIGURG for a late request of its own.
	eventually(t, "the signal", func() bool {
		unix.Tgkill(unix.Getpid(), int(tid.Load()), unix.SIGURG)
		time.Sleep(time.Millisecond)
		return ended.Load()
	})
}

func futexWaitBitset01(t *testing.T) {
	x := new(uint32)
	c := newCrew(t)
	c.start(func() {
		const d = 10 * time.Millisecond
		for name, end := range map[string]func() futex.Deadline{
			"monotonic": func() futex.Deadline { return futex.After(d) },
			"realtime":  func() futex.Deadline { return futex.At(time.Now().Add(d)) },
		} {
			end := end()
			timesOut(t, name, 0, func() (futex.Outcome, error) { return futex.Private.WaitBitset(x, 0, futex.MatchAny, end) })
			if left := end.Remaining(); left > 0 {
				t.Errorf("%s: %v early", name, left)
			}
			out, err := futex.Private.WaitBitset(x, 1, futex.MatchAny, futex.After(time.Hour))
			expect(t, futex.Changed, out, err)
		}
	})
	within(t, "timeouts", c.wg.Wait)
}

func futexWake01(t *testing.T) {
	eachScope(t, func(t *testing.T, s futex.Scope) {
		x := new(uint32)
		for _, value := range []uint32{0, 1, 1 << 31} {
			*x = value
			for _, n := range []int{0, 1, 100, futex.All} {
				if got, err := s.Wake(x, n); got != 0 || err != nil {
					t.Errorf("Wake(%d) = %d, %v", n, got, err)
				}
			}
		}
	})
}

func futexWake02(t *testing.T) {
	x := new(uint32)
	c := newCrew(t)
	const most = 10
	var awake atomic.Int32
	for range most * (most + 1) / 2 {
		c.start(func() {
			if out, err := futex.Wait(x, 0); out != futex.Woken || err != nil {
				t.Errorf("%v, %v", out, err)
			}
			awake.Add(1)
		})
	}
	asleep(t, x, most*(most+1)/2)
	sum := int32(0)
	for n := 1; n <= most; n++ {
		if got, err := futex.Wake(x, n); got != n || err != nil {
			t.Errorf("Wake(%d) = %d, %v", n, got, err)
		}
		sum += int32(n)
		eventually(t, "the woken", func() bool { return awake.Load() == sum })
	}
}

func futexWake03(t *testing.T) {
	c, file := newCommon(t)
	n := 5
	if testing.Short() {
		n = 3
	}
	for range n {
		cmd := spawn(t, file, "waitOnce")
		t.Cleanup(func() { ended(t, cmd) })
	}
	eventually(t, "processes", func() bool { return sharedSleepers(&c.word[0]) == n })
	if got, err := futex.Shared.Wake(&c.word[0], n-1); got != n-1 || err != nil {
		t.Errorf("woke %d of %d, %v", got, n-1, err)
	}
	if got, err := futex.Shared.Wake(&c.word[0], futex.All); got != 1 || err != nil {
		t.Errorf("woke %d of 1, %v", got, err)
	}
}

// hugepage returns one huge page in a shared mapping, which it reserves if none is
// free and it may.
func hugepage(t *testing.T) []byte {
	t.Helper()
	const knob, size = "/proc/sys/vm/nr_hugepages", 2 << 20
	get := func() ([]byte, error) {
		return unix.Mmap(-1, 0, size, readWrite, unix.MAP_SHARED|unix.MAP_ANON|unix.MAP_HUGETLB)
	}
	mem, err := get()
	if err != nil {
		b, readErr := os.ReadFile(knob)
		before, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		if readErr != nil {
			t.Skip("no huge pages: ", readErr)
		}
		if err := os.WriteFile(knob, []byte(strconv.Itoa(before+2)), 0); err != nil {
			t.Skip("no huge page is free, and none can be reserved: ", err)
		}
		t.Cleanup(func() { os.WriteFile(knob, []byte(strconv.Itoa(before)), 0) })
		if mem, err = get(); err != nil {
			t.Skip("no huge page could be reserved: ", err)
		}
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return mem
}

func futexWake04(t *testing.T) {
	mem := hugepage(t)
	a, b := wordAt(mem), wordAt(mem[os.Getpagesize():])
	c := newCrew(t)
	wait := func(x *uint32) func() {
		return func() {
			out, err := futex.Shared.Wait(x, 0)
			expect(t, futex.Woken, out, err)
		}
	}
	c.start(wait(a))
	eventually(t, "a", func() bool { return sharedSleepers(a) == 1 })
	if n := sharedSleepers(b); n != 0 {
		t.Errorf("%d sleep on the second word, nobody does", n)
	}
	c.start(wait(b))
	eventually(t, "b", func() bool { return sharedSleepers(b) == 1 })
	if n, err := futex.Shared.Wake(b, futex.All); n != 1 || err != nil {
		t.Errorf("second word: woke %d, %v", n, err)
	}
	if n, err := futex.Shared.Wake(a, futex.All); n != 1 || err != nil {
		t.Errorf("first word: woke %d, %v", n, err)
	}
	within(t, "waiters", c.wg.Wait) // before the pages go
}

func futexWake05(t *testing.T) {
	none := unmapped(t)
	gone, err := unix.Mmap(-1, 0, os.Getpagesize(), readWrite, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	x := wordAt(gone)
	unix.Munmap(gone)
	file, err := os.Create(filepath.Join(t.TempDir(), "empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for what, addr := range map[string]*uint32{
		"unmapped":       x,
		"PROT_NONE":      none,
		"truncated file": wordAt(page(t, int(file.Fd()), readWrite, unix.MAP_SHARED)),
	} {
		_, err := futex.Shared.Wake(addr, 1)
		refused(t, what, err, syscall.EFAULT)
	}
}

func futexCmpRequeue01(t *testing.T) {
	eachScope(t, func(t *testing.T, s futex.Scope) {
		for _, k := range []struct{ waiters, wake, move int }{
			{1, 0, 0}, {1, 1, 0}, {1, 0, 1}, {6, 3, 3}, {10, 3, 5}, {10, 10, 10}, {10, 0, 2}, {10, 2, 0}, {20, 7, 1000},
		} {
			x, y := new(uint32), new(uint32)
			c := newCrew(t)
			for range k.waiters {
				c.start(func() {
					out, err := s.Wait(x, 0)
					expect(t, futex.Woken, out, err)
				})
			}
			eventually(t, "waiters", func() bool { n, _ := s.Requeue(x, x, 0, futex.All); return n == k.waiters })
			woken := min(k.wake, k.waiters)
			moved := min(k.move, k.waiters-woken)
			n, changed, err := s.CmpRequeue(x, 0, y, k.wake, k.move)
			if n != woken+moved || changed || err != nil {
				t.Errorf("%+v: %d, %v, %v", k, n, changed, err)
			}
			if n, _ := s.Wake(y, futex.All); n != moved {
				t.Errorf("%+v: %d were moved", k, n)
			}
			if n, _ := s.Wake(x, futex.All); n != k.waiters-woken-moved {
				t.Errorf("%+v: %d stayed", k, n)
			}
			within(t, "waiters", c.wg.Wait)
		}
	})
}

func futexCmpRequeue02(t *testing.T) {
	eachScope(t, func(t *testing.T, s futex.Scope) {
		x, y := new(uint32), new(uint32)
		for _, k := range [][2]int{{-1, 1}, {1, -1}} {
			_, _, err := s.CmpRequeue(x, 0, y, k[0], k[1])
			refused(t, "negative count", err, syscall.EINVAL)
			const cmpRequeue = 4
			_, errno := raw(unsafe.Pointer(x), cmpRequeue, uint32(k[0]), uintptr(k[1]), unsafe.Pointer(y), 0)
			if errno != syscall.EINVAL {
				t.Errorf("the kernel takes counts %v: %v", k, errno)
			}
		}
		if n, changed, err := s.CmpRequeue(x, 1, y, 1, 1); n != 0 || !changed || err != nil {
			t.Errorf("another value: %d, %v, %v", n, changed, err)
		}
	})
}

func futexCmpRequeue03(t *testing.T) {
	x, none := new(uint32), unmapped(t)
	_, _, err := futex.Shared.CmpRequeue(none, 0, x, 1, 1)
	refused(t, "first word", err, syscall.EFAULT)
	_, _, err = futex.Shared.CmpRequeue(x, 0, none, 1, 1)
	refused(t, "second word", err, syscall.EFAULT)
	_, _, err = futex.Private.CmpRequeue(none, 0, x, 1, 1)
	refused(t, "first word, private", err, syscall.EFAULT)
}
