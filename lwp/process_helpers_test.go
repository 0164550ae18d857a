package lwp_test

import (
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/futex"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// shared returns a zeroed T in memory that every child shares, forked ones too.
func shared[T any](t testing.TB) *T {
	t.Helper()
	mem, err := unix.Mmap(-1, 0, int(unsafe.Sizeof(*(*T)(nil))), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	return (*T)(unsafe.Pointer(&mem[0]))
}

// A gate lets tasks of different processes pass when it is open.
type gate struct{ word uint32 }

func (g *gate) open() {
	atomic.StoreUint32(&g.word, 1)
	futex.Shared.Wake(&g.word, futex.All)
}

func (g *gate) pass() {
	for atomic.LoadUint32(&g.word) == 0 {
		futex.Shared.Wait(&g.word, 0)
	}
}

// A scene is what a child shows, and is told; it lies in shared memory.
type scene struct {
	up, leave gate
	pid, ppid int
	tid       int
	tp        uintptr
	n         [16]int
	errno     [16]uint32
	fd        [4]int
	text      [128]byte
}

// note writes down who the child is.
func (s *scene) note() {
	s.pid, s.ppid, s.tid = raw(unix.SYS_GETPID), raw(unix.SYS_GETPPID), raw(unix.SYS_GETTID)
}

func raw(trap uintptr) int {
	r, _, _ := unix.RawSyscall(trap, 0, 0, 0)
	return int(r)
}

// call makes a system call and notes its result.
func (s *scene) call(i int, trap, a, b, c uintptr) {
	r, _, errno := unix.RawSyscall(trap, a, b, c)
	s.n[i], s.errno[i] = int(r), uint32(errno)
}

// linger is a child that stays until it is told to leave.
func linger(s *scene) int {
	s.note()
	s.up.open()
	s.leave.pass()
	return 0
}

// answer is a child that ends at once.
func answer(code *int) int { return *code }

func process[T any](t testing.TB, fn func(*T) int, arg *T, attr lwp.ProcessAttr) lwp.Process {
	t.Helper()
	p, err := lwp.StartProcess(fn, arg, attr)
	if err != nil {
		t.Fatalf("%v: %v", attr.Flags, err)
	}
	return p
}

// ends waits for p, which must exit with that code.
func ends(t testing.TB, p lwp.Process, code int) lwp.State {
	t.Helper()
	var s lwp.State
	lwptest.Within(t, "a process to end", func() {
		var err error
		if s, err = p.Wait(); err != nil {
			t.Error("wait: ", err)
		} else if s.ExitCode() != code {
			t.Errorf("the process ended with %v, want exit status %d", s, code)
		}
	})
	return s
}

// stays is a child that has come, and will leave when it is told; the test
// ends it.
func lingers(t testing.TB, attr lwp.ProcessAttr) (lwp.Process, *scene) {
	t.Helper()
	s := shared[scene](t)
	p := process(t, linger, s, attr)
	s.up.pass()
	return p, s
}

func (s *scene) dismiss(t testing.TB, p lwp.Process) {
	t.Helper()
	s.leave.open()
	ends(t, p, 0)
}

// noChildren checks that no zombie is left.
func noChildren(t testing.TB) {
	t.Helper()
	var info [128]byte
	_, _, errno := unix.RawSyscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, 0, 0)
	if errno != unix.ECHILD {
		t.Errorf("a child is left: %v", syscall.Errno(errno))
	}
}

// needNamespaces skips where there is no privilege for namespaces.
func needNamespaces(t testing.TB) {
	t.Helper()
	lwptest.NotEmulated(t, "namespaces")
	lwptest.NeedCap(t, unix.CAP_SYS_ADMIN)
}

func isRoot() bool { return os.Geteuid() == 0 }
