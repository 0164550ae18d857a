package lwp_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/lwp"
	"lwprt/lwp/lwptest"
)

// machine is code for functions that the compiler does not make.
var machine = map[string]map[string][]byte{
	"undefined": {
		"amd64": {0x0f, 0x0b},             // UD2
		"arm64": {0x00, 0x00, 0x00, 0x00}, // UDF
	},
	"known registers": { // the first register in asm.RegisterNames becomes 0x1234, then as undefined
		"amd64": {0x49, 0xc7, 0xc0, 0x34, 0x12, 0x00, 0x00, 0x0f, 0x0b}, // MOVQ $0x1234, R8; UD2
		"arm64": {0x80, 0x46, 0x82, 0xd2, 0x00, 0x00, 0x00, 0x00},       // MOVD $0x1234, R0; UDF
	},
	"breakpoint": {
		"amd64": {0xcc},                   // INT3
		"arm64": {0x00, 0x00, 0x20, 0xd4}, // BRK
	},
	"divide": {
		"amd64": {0x31, 0xc9, 0x31, 0xd2, 0x48, 0xf7, 0xf1}, // XORL CX, CX; XORL DX, DX; DIVQ CX
	},
	"read at SP-4096": {
		"amd64": {0x48, 0x8b, 0x84, 0x24, 0x00, 0xf0, 0xff, 0xff, 0xc3}, // MOVQ -4096(SP), AX; RET
		"arm64": {0xe0, 0x07, 0x40, 0xd1, 0x00, 0x00, 0x40, 0xf9, 0xc0, 0x03, 0x5f, 0xd6},
	},
}

type coded struct {
	fn    func()
	entry *uintptr
	code  uintptr
	mem   []byte
	errno uintptr
}

// code returns a function that runs machine code.
func code(t *testing.T, name string) *coded {
	t.Helper()
	b := machine[name][runtime.GOARCH]
	if b == nil {
		t.Skipf("%s has no %q", runtime.GOARCH, name)
	}
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(page) })
	copy(page[64:], b)
	if err := unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		t.Skip("no memory to execute: ", err)
	}
	c := &coded{code: uintptr(unsafe.Pointer(&page[64]))}
	c.entry = &c.code
	c.fn = *(*func())(unsafe.Pointer(&c.entry))
	return c
}

func TestFaultOfAnInstruction(t *testing.T) {
	lwptest.SkipRace(t)
	for _, c := range []struct {
		name   string
		want   lwp.Reason
		signal unix.Signal
	}{
		{"undefined", lwp.IllegalInstruction, unix.SIGILL},
		{"breakpoint", lwp.IllegalInstruction, unix.SIGTRAP},
		{"divide", lwp.DivideByZero, unix.SIGFPE},
	} {
		t.Run(c.name, func(t *testing.T) {
			line := 0
			f := fault(t, func(c *coded) {
				c.fn()
			}, code(t, c.name), lwp.Attr{})
			line = here(-2)
			check(t, f, c.want, "fault_signals_test.go", line)
			if f.Signal != c.signal {
				t.Errorf("signal %v, want %v", f.Signal, c.signal)
			}
			alive(t)
		})
	}
}

func TestFaultHasTheRegisters(t *testing.T) {
	lwptest.SkipRace(t)
	f := fault(t, func(c *coded) { c.fn() }, code(t, "known registers"), lwp.Attr{})
	got := map[string]uintptr{}
	words := strings.Fields(f.Registers())
	for i := 0; i+1 < len(words); i += 2 {
		v, err := strconv.ParseUint(words[i+1], 0, 64)
		if err != nil {
			t.Error(err)
		}
		got[words[i]] = uintptr(v)
	}
	pc, sp := "rip", "rsp"
	if runtime.GOARCH == "arm64" {
		pc, sp = "pc", "sp"
	}
	if len(got) != len(asm.RegisterNames) || got[asm.RegisterNames[0]] != 0x1234 || got[pc] != f.PC || got[sp] != f.SP {
		t.Errorf("PC %#x, SP %#x, registers\n%s", f.PC, f.SP, f.Registers())
	}
	if f := fault(t, func(*coded) { lwp.Abort("no signal") }, nil, lwp.Attr{}); f.Registers() != "" {
		t.Errorf("Abort has registers\n%s", f.Registers())
	}
}

func TestFaultOfJumpingToNoCode(t *testing.T) {
	lwptest.SkipRace(t)
	for name, addr := range map[string]uintptr{"low": 8, "wild": 0x765432100} {
		t.Run(name, func(t *testing.T) {
			c := &coded{code: addr}
			c.entry = &c.code
			c.fn = *(*func())(unsafe.Pointer(&c.entry))
			f := fault(t, func(c *coded) {
				c.fn()
			}, c, lwp.Attr{})
			line := here(-2)
			want := lwp.BadAddress
			if name == "low" {
				want = lwp.NilDereference
			}
			check(t, f, want, "fault_signals_test.go", line)
			if f.PC != addr {
				t.Errorf("PC %#x, want %#x", f.PC, addr)
			}
			alive(t)
		})
	}
}

func TestFaultOfATruncatedFile(t *testing.T) {
	lwptest.SkipRace(t)
	file, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	page := os.Getpagesize()
	if err := file.Truncate(int64(2 * page)); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := file.Truncate(0); err != nil {
		t.Fatal(err)
	}
	f := fault(t, func(c *coded) {
		c.mem[0] = 1
	}, &coded{mem: mem[page:]}, lwp.Attr{})
	check(t, f, lwp.BadAddress, "fault_signals_test.go", here(-2))
	if f.Signal != unix.SIGBUS || f.Addr != uintptr(unsafe.Pointer(&mem[page])) {
		t.Errorf("%v at %#x, want SIGBUS at %p", f.Signal, f.Addr, &mem[page])
	}
	alive(t)
}

// sandbox allows the calling thread every system call but getppid, which traps.
func sandbox() (errno unix.Errno) {
	const trap = 0x00030000 // SECCOMP_RET_TRAP
	filter := [...]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_GETPPID, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: trap},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0x7fff0000}, // SECCOMP_RET_ALLOW
	}
	prog := struct {
		n   uint16
		ptr uintptr
	}{uint16(len(filter)), uintptr(unsafe.Pointer(&filter))}
	if _, _, errno = unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno == 0 {
		_, _, errno = unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0, 0)
	}
	return errno
}

func TestFaultOfASystemCallThatSeccompRefuses(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "seccomp")
	c := &coded{}
	th, err := lwp.Start(func(c *coded) {
		if c.errno = uintptr(sandbox()); c.errno == 0 {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
	}, c)
	if err != nil {
		t.Fatal(err)
	}
	line := here(-6)
	err = th.Join()
	if c.errno != 0 {
		t.Skip("seccomp: ", unix.Errno(c.errno))
	}
	var f *lwp.Fault
	if !errors.As(err, &f) {
		t.Fatal(err)
	}
	check(t, f, lwp.BadSystemCall, "fault_signals_test.go", line)
	if f.Signal != unix.SIGSYS {
		t.Errorf("signal %v", f.Signal)
	}
	alive(t)
	os.Getppid() // is not trapped: the filter was the thread's
}

// Assembly and C code have no stack check: the guard is what stops them.
func TestFaultInTheGuardIsAStackOverflow(t *testing.T) {
	lwptest.SkipRace(t)
	lwptest.NotEmulated(t, "guard markers (it says that MADV_GUARD_INSTALL has worked)")
	f := fault(t, func(c *coded) { walkDown(c, 0) }, code(t, "read at SP-4096"), lwp.Attr{StackSize: 64 << 10})
	check(t, f, lwp.StackOverflow, "", 0)
	if lo := uint64(f.SP) - 4096; uint64(f.Addr) != lo {
		t.Errorf("address %#x, want %#x", f.Addr, lo)
	}
	if size := fmt.Sprintf("stack of %d bytes", f.StackSize); f.StackSize < 64<<10 || !strings.Contains(f.Error(), size) {
		t.Errorf("%q does not say %q", f, size)
	}
	alive(t)
}

//go:noinline
func walkDown(c *coded, n int) int {
	if n < 0 {
		return 0
	}
	var frame [128]byte
	binary.LittleEndian.PutUint64(frame[:], uint64(n))
	c.fn()
	return walkDown(c, n+1) + int(frame[n%len(frame)])
}
