package futex

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Clocks of a Deadline.
const (
	never = iota
	monotonic
	realtime
)

// A Deadline is an instant on a clock of the kernel, or never. It is a small
// value without pointers; copy it freely. == compares clock and instant.
type Deadline struct {
	ns    int64 // since the clock's origin, >= 0
	clock uint32
}

// Never is the zero Deadline, the one that does not come.
var Never Deadline

// After returns the instant d from now on the monotonic clock, which does not
// jump and does not advance while the machine is suspended. If d is zero or
// negative it has passed; if it is too far to represent it is 292 years after
// boot.
func After(d time.Duration) Deadline {
	if d <= 0 {
		return Deadline{0, monotonic}
	}
	now := Monotonic()
	if int64(d) > math.MaxInt64-now {
		return Deadline{math.MaxInt64, monotonic}
	}
	return Deadline{now + int64(d), monotonic}
}

// At returns t as an instant on the real-time clock, CLOCK_REALTIME: whoever
// sets the clock moves the end of the wait. t's monotonic reading is not used.
// Instants before 1970, the zero Time too, have passed; those after 2262 are
// taken as 2262.
func At(t time.Time) Deadline {
	const limit = math.MaxInt64 / int64(time.Second)
	switch sec := t.Unix(); {
	case sec < 0:
		return Deadline{0, realtime}
	case sec >= limit:
		return Deadline{math.MaxInt64, realtime}
	}
	return Deadline{t.UnixNano(), realtime}
}

// AtMonotonic returns the instant ns of the monotonic clock, as Monotonic reads
// it. Instants before its origin have passed.
func AtMonotonic(ns int64) Deadline { return Deadline{max(ns, 0), monotonic} }

// Remaining returns how long it is to d: the largest Duration for Never, zero
// or less if d has passed.
func (d Deadline) Remaining() time.Duration {
	switch d.clock {
	case never:
		return math.MaxInt64
	case monotonic:
		return time.Duration(d.ns - now(unix.CLOCK_MONOTONIC))
	}
	return time.Duration(d.ns - now(unix.CLOCK_REALTIME))
}

// Monotonic returns d as an instant of the monotonic clock, in nanoseconds as
// Monotonic reads it: one on the real-time clock as what it is now. Never is the
// largest value.
func (d Deadline) Monotonic() int64 {
	if d.clock == monotonic {
		return d.ns
	}
	if left, now := d.Remaining(), Monotonic(); int64(left) < math.MaxInt64-now {
		return max(now+int64(left), 0)
	}
	return math.MaxInt64
}

// Passed reports whether d has come.
func (d Deadline) Passed() bool { return d.clock != never && d.Remaining() <= 0 }

// Monotonic returns the monotonic clock in nanoseconds since about the boot.
// It is a system call and not the vDSO, which needs more stack than a thread
// of ours may have.
//
// Context: goroutine or thread.
// Source: CLOCK_MONOTONIC in clock_gettime(2).
func Monotonic() int64 { return now(unix.CLOCK_MONOTONIC) }

// now reads a clock. The raw call is right on a goroutine too: it never sleeps.
func now(clock uintptr) int64 {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("futex: clock_gettime is refused")
	}
	return ts.Nano()
}
