//go:build linux && (amd64 || arm64)

package asm

import (
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

func TestCloneReportsErrno(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags uintptr
		want  syscall.Errno
	}{
		{"CLONE_THREAD without CLONE_SIGHAND", syscall.CLONE_THREAD | syscall.CLONE_VM, syscall.EINVAL},
		{"CLONE_SIGHAND without CLONE_VM", syscall.CLONE_SIGHAND, syscall.EINVAL},
		{"CLONE_NEWNS with CLONE_FS", syscall.CLONE_NEWNS | syscall.CLONE_FS, syscall.EINVAL},
	} {
		tid, errno := Clone(&CloneArgs{Flags: c.flags})
		if tid != 0 || syscall.Errno(errno) != c.want {
			t.Errorf("%s: TID %d, errno %d, want 0 and %v", c.name, tid, errno, c.want)
			if errno == 0 && tid != 0 {
				waitStatus(t, tid)
			}
		}
	}
}

// TestCloneReportsLargestErrno has a seccomp filter answer for the kernel: the
// results that are errors are -4095 to -1, most of which no kernel returns.
func TestCloneReportsLargestErrno(t *testing.T) {
	const (
		prSetNoNewPrivs = 38
		prSetSeccomp    = 22
		modeFilter      = 2
		retErrno        = 0x50000
		retAllow        = 0x7fff0000
		load            = 0x20 // BPF_LD|BPF_W|BPF_ABS
		jeq             = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
		ret             = 0x06 // BPF_RET|BPF_K
		offNr           = 0    // in struct seccomp_data
		offArg0         = 16
	)
	errnos := []uint32{1, 134, 512, 4094, 4095}
	filter := []syscall.SockFilter{
		{Code: load, K: offNr},
		{Code: jeq, K: sysClone, Jt: 1},
		{Code: ret, K: retAllow},
		{Code: load, K: offArg0},
	}
	const base = 0x7f000000 // flags that mark a call as one of this test's
	for _, e := range errnos {
		filter = append(filter,
			syscall.SockFilter{Code: jeq, K: base + e, Jf: 1},
			syscall.SockFilter{Code: ret, K: retErrno | e})
	}
	filter = append(filter, syscall.SockFilter{Code: ret, K: retAllow})
	prog := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}

	skip := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The filter is this thread's alone, and the thread ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, prSetNoNewPrivs, 1, 0, 0, 0, 0); errno != 0 {
			skip <- "PR_SET_NO_NEW_PRIVS: " + errno.Error()
			return
		}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetSeccomp, modeFilter, uintptr(unsafe.Pointer(&prog))); errno != 0 {
			skip <- "PR_SET_SECCOMP: " + errno.Error()
			return
		}
		for _, e := range errnos {
			tid, errno := Clone(&CloneArgs{Flags: base + uintptr(e)})
			if tid != 0 || errno != uintptr(e) {
				t.Errorf("errno %d arrives as TID %#x and errno %d", e, tid, errno)
			}
		}
	}()
	<-done
	select {
	case why := <-skip:
		t.Skip("no seccomp filter here: ", why)
	default:
	}
}

func TestSetThreadPointerReportsErrno(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("only amd64 asks the kernel")
	}
	if errno := SetThreadPointer(1 << 63); syscall.Errno(errno) != syscall.EPERM {
		t.Errorf("errno %d for a kernel address, want EPERM", errno)
	}
}

func TestUnportedArchitectureSaysSo(t *testing.T) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command: ", err)
	}
	if testing.Short() {
		t.Skip("compiles the standard library for another port")
	}
	for _, verb := range []string{"build", "vet"} {
		cmd := exec.Command(gotool, verb, ".")
		cmd.Env = append(cmd.Environ(), "GOOS=linux", "GOARCH=riscv64", "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "lwprt_runs_on_linux_amd64_and_linux_arm64_only") {
			t.Errorf("go %s for riscv64: %v\n%s", verb, err, out)
		}
	}
}

// TestForeignRuntimeIsRefused changes what was found in this program, one
// thing at a time, into what another release of Go could have.
func TestForeignRuntimeIsRefused(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	good := func() gSample {
		for range 1000 {
			if s := sampleG(); s.head.StackGuard0 < s.head.StackHi {
				return s
			}
			runtime.Gosched()
		}
		t.Fatal("always a preemption request")
		return gSample{}
	}()
	if why := good.check(); why != "" {
		t.Fatal(why)
	}
	for _, c := range []struct {
		change func(*gSample)
		want   string
	}{
		{func(s *gSample) { s.g = 0 }, "g is not where"},
		{func(s *gSample) { s.reg += 8 }, "g is not where"},
		{func(s *gSample) { s.head.StackHi = s.sp }, "g.stack is not"},
		{func(s *gSample) { s.head.StackLo = s.sp }, "g.stack is not"},
		{func(s *gSample) { s.head.StackGuard0 = s.head.StackLo }, "g.stackguard0 is not"},
		{func(s *gSample) { s.head.StackGuard0 = s.head.StackLo + 17<<10 }, "g.stackguard0 is not"},
		{func(s *gSample) { s.head.StackGuard0 += 4 }, "g.stackguard0 is not"},
		{func(s *gSample) { s.head.M = 0 }, "g.m is not"},
		{func(s *gSample) { s.head.M = 1 }, "g.m is not"},
		{func(s *gSample) { s.head.M = s.g }, "g.m is not"},
		{func(s *gSample) { s.head.M = ^uintptr(0) }, "g.m is not"},
		{func(s *gSample) { s.head.M += 8 }, "g.m is not"},
	} {
		s := good
		c.change(&s)
		if why := s.check(); !strings.HasPrefix(why, c.want) {
			t.Errorf("%q, want %q", why, c.want)
		}
	}
}
