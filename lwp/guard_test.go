package lwp_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// withoutMarkers has the kernel know no guard markers, for the calling thread
// of Go and those that it makes.
func withoutMarkers() error {
	const (
		guardInstall = 102 // MADV_GUARD_INSTALL
		behavior     = 32  // of madvise's third argument, in struct seccomp_data
		refuse       = 0x00050000 | uint32(unix.EINVAL)
		allow        = 0x7fff0000
	)
	filter := [...]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MADVISE, Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: behavior},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: guardInstall, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: refuse},
		{Code: unix.BPF_RET | unix.BPF_K, K: allow},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// TestGuardOfKernelsWithoutMarkers overruns a stack where the kernel refuses
// MADV_GUARD_INSTALL, as kernels before 6.13 do: the guard is then a mapping of
// its own, without access.
func TestGuardOfKernelsWithoutMarkers(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "seccomp")
	if lwptest.MustPass(t, nil) {
		return
	}
	runtime.LockOSThread() // the filter is this thread's
	begin(t)
	if err := withoutMarkers(); err != nil {
		t.Skip("seccomp: ", err)
	}
	lwp.SetStackCache(0) // no stack that has been made already
	guard := 37 * os.Getpagesize()
	noAccess := func() (n int) {
		for s := bufio.NewScanner(strings.NewReader(readTrim(t, "/proc/self/maps"))); s.Scan(); {
			var lo, hi uintptr
			var perm string
			if _, err := fmt.Sscanf(s.Text(), "%x-%x %s", &lo, &hi, &perm); err == nil && perm == "---p" && int(hi-lo) == guard {
				n++
			}
		}
		return n
	}
	th, s := stays(t, lwp.Attr{StackSize: 64 << 10, GuardSize: guard})
	if n := noAccess(); n != 1 {
		t.Errorf("%d mappings of %d bytes without access, want 1", n, guard)
	}
	s.leave.Raise()
	join(t, th)
	if n := noAccess(); n != 0 {
		t.Errorf("%d mappings without access are left", n)
	}
	overrun := startAttr(t, goBelow, new(uintptr), lwp.Attr{StackSize: 64 << 10, GuardSize: guard})
	var f *lwp.Fault
	if err := overrun.Join(); !errors.As(err, &f) || f.Reason != lwp.StackOverflow {
		t.Errorf("went through the guard: %v", err)
	}
}
