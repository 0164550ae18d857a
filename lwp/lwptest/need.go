package lwptest

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
)

// SkipRace skips the test where lwp.Start refuses to work at all: in programs
// built with -race.
func SkipRace(t testing.TB) {
	t.Helper()
	th, err := lwp.Start(func(*int) {}, new(int))
	if errors.Is(err, lwp.ErrRace) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal("no thread can be started: ", err)
	}
	if err := th.Join(); err != nil {
		t.Fatal(err)
	}
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs to be root")
	}
}

// NeedCap skips the test where the process lacks a capability, a unix.CAP_*.
func NeedCap(t testing.TB, capability int) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		t.Skip("capget: ", err)
	}
	if sets[capability/32].Effective&(1<<(capability%32)) == 0 {
		t.Skipf("needs capability %d of capabilities(7)", capability)
	}
}

// NeedClone skips the test where the kernel cannot make a task of this process
// that lacks some of the sharing that pthread_create asks for: qemu-user. It
// asks without the help of package lwp.
func NeedClone(t testing.TB, without uintptr) {
	t.Helper()
	if errno := tryClone(threadFlags &^ without); errno == syscall.EINVAL && Emulated() {
		t.Skipf("no clone without flags %#x under emulation: %v", without, errno)
	}
}

// NotEmulated skips the test under qemu-user, which lacks what.
func NotEmulated(t testing.TB, what string) {
	t.Helper()
	if Emulated() {
		t.Skip("qemu-user has no ", what)
	}
}

const (
	threadFlags = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
)

// Emulated reports whether the process runs under qemu-user: the one kernel
// that makes no thread without CLONE_SYSVSEM, which no real one asks for.
var Emulated = sync.OnceValue(func() bool {
	return tryClone(threadFlags&^unix.CLONE_SYSVSEM) == syscall.EINVAL
})

// tryClone makes a task that exits at once and touches no memory.
func tryClone(flags uintptr) syscall.Errno {
	_, errno := asm.Clone(&asm.CloneArgs{Flags: flags})
	return syscall.Errno(errno)
}

// Count returns how often to do something: full times; short times under
// -short, and a twentieth of that, but ten, under emulation. With LWPRT_STRESS=full in the
// environment it is always full.
func Count(full, short int) int {
	switch {
	case os.Getenv("LWPRT_STRESS") == "full":
		return full
	case Emulated():
		return min(short, max(10, short/20))
	case testing.Short():
		return short
	}
	return full
}

// Soak is Count, times twenty with LWPRT_STRESS=full in the environment: for
// tests of which minutes are worth while.
func Soak(full, short int) int {
	n := Count(full, short)
	if os.Getenv("LWPRT_STRESS") == "full" {
		n *= 20
	}
	return n
}

// patience is far longer than anything that is waited for can take: the end of
// it is a hang.
const patience = 2 * time.Minute

// Eventually fails the test if f does not come to hold.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// Within fails the test, with the stacks of all goroutines, if f does not return.
func Within(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		buf := make([]byte, 1<<18)
		t.Fatalf("waited %v for %s\n%s", patience, what, buf[:runtime.Stack(buf, true)])
	}
}
