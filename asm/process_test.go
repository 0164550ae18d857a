//go:build linux && (amd64 || arm64)

package asm

import (
	"runtime"
	"syscall"
	"testing"
	"unsafe"
)

// TestCloneProcessKeepsTheMask makes children by each call, which exit at once,
// and calls that the kernel refuses.
func TestCloneProcessKeepsTheMask(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old := signalMask()
	defer setSignalMask(old)
	const usr2 = 1 << (syscall.SIGUSR2 - 1)
	for _, mask := range []uint64{old &^ usr2, old | usr2} {
		setSignalMask(mask)
		for _, bad := range []bool{false, true} {
			c := Clone3Args{ExitSignal: uint64(syscall.SIGCHLD)}
			flags := uintptr(0)
			if bad {
				flags = syscall.CLONE_THREAD
				c.Flags, c.ExitSignal = syscall.CLONE_THREAD, 0
			}
			var a, b, some, all ProcessArgs
			a.Clone2(flags|uintptr(syscall.SIGCHLD), 0, 0, 0, 0)
			b.Clone3(&c)
			some, all = a, a
			some.Open, all.Open = usr2, ^uint64(0)
			for i, args := range []*ProcessArgs{&a, &b, &some, &all} {
				pid, errno := CloneProcess(args)
				if errno == uintptr(syscall.ENOSYS) && i == 1 {
					continue // no clone3
				}
				if bad && (syscall.Errno(errno) != syscall.EINVAL || pid != 0) || !bad && errno != 0 {
					t.Errorf("call %d, to be refused %v: %d, %v", i, bad, pid, syscall.Errno(errno))
				} else if !bad {
					if s := waitStatus(t, pid); s != 0 {
						t.Errorf("call %d: wait status %#x", i, uint32(s))
					}
				}
				if got := signalMask(); got != mask {
					t.Errorf("call %d, to be refused %v: the mask is %#x, was %#x", i, bad, got, mask)
				}
			}
		}
	}
}

// TestCloneProcessReturnsTwice has a child go on with a copy of this stack.
func TestCloneProcessReturnsTwice(t *testing.T) {
	skipRace(t)
	b := newBlock(t, nil)
	var l Layout
	l, why := CheckRuntime()
	if why != "" {
		t.Fatal(why)
	}
	parent := syscall.Getpid()
	here := 1
	var a ProcessArgs
	a.Clone2(syscall.CLONE_SETTLS|uintptr(syscall.SIGCHLD), 0, 0, 0, b.Self)
	a.TCB, a.Twice = b.Self, 1
	Room()
	pid, errno := CloneProcessHere(&a, &b.G, l.Guard)
	if pid == 0 && errno == 0 {
		here++
		ok := Current() == &b.TCB && Getg() == uintptr(unsafe.Pointer(&b.G)) && getgReg() == Getg() && here == 2
		p, _, _ := syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		code := uintptr(1)
		if ok && int(p) == parent {
			code = 23
		}
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
	if errno != 0 {
		t.Fatal(syscall.Errno(errno))
	}
	if s := waitStatus(t, pid); s.ExitStatus() != 23 || here != 1 {
		t.Errorf("wait status %#x, the variable is %d here", uint32(s), here)
	}
}
