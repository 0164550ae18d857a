package lwp_test

import (
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// The tests called TestConformance... make the checks of the Linux Test Project
// and of the kernel's own tests through this package. A subtest has the name of
// the row that it covers; command lwptest/cmd/conformance knows all rows and
// makes the table CONFORMANCE.md.

type caseRow struct {
	name string
	test func(*testing.T)
}

// conform runs rows. What they check is the kernel's, not an emulator's.
func conform(t *testing.T, rows []caseRow) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "a kernel to conform to")
	if !lwptest.InChild() {
		begin(t)
	}
	for _, r := range rows {
		t.Run(r.name, r.test)
	}
}

// expect checks an errno that a child has noted.
func (s *scene) expect(t testing.TB, i int, what string, want syscall.Errno) {
	t.Helper()
	if got := syscall.Errno(s.errno[i]); got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// inChild runs fn in a forked child and returns what it has noted.
func inChild(t testing.TB, attr lwp.ProcessAttr, fn func(*scene) int) *scene {
	t.Helper()
	s := shared[scene](t)
	ends(t, process(t, fn, s, attr), 0)
	return s
}

// errs checks the errno of a system call; 0 is success.
func errs(t testing.TB, what string, got error, want syscall.Errno) {
	t.Helper()
	if want == 0 && got == nil {
		return
	}
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// call is a system call that the test makes itself.
func call(trap uintptr, args ...uintptr) (uintptr, error) {
	var a [6]uintptr
	copy(a[:], args)
	r, _, errno := unix.Syscall6(trap, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

func ptr[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }

// pidfdOf returns a descriptor of p that the test owns.
func pidfdOf(t testing.TB, p lwp.Process, flags int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(p.PID(), flags)
	if err != nil {
		t.Fatal("pidfd_open: ", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// open returns a descriptor of a file, closed at the end of the test.
func open(t testing.TB, name string) int {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// asNobody gives up all privilege. It is freestanding.
func asNobody() bool {
	_, _, e1 := unix.RawSyscall(unix.SYS_SETRESGID, 65534, 65534, 65534)
	_, _, e2 := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534)
	return e1|e2 == 0
}
