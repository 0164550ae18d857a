package lwp

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
)

// A thread cannot symbolize its own end. With CrashOnFault it hands the Fault
// to a goroutine that waits for one, and if that takes too long, because the
// runtime hangs, prints the addresses itself.
var crashes struct {
	once    sync.Once
	started atomic.Bool
	word    uint32  // futex word: 1 when fault is there
	fault   uintptr // *Fault
}

const crashPatience = 5 * time.Second

func startCrashReporter() {
	crashes.started.Store(true)
	go func() {
		for atomic.LoadUint32(&crashes.word) == 0 {
			futex.Wait(&crashes.word, 0)
		}
		f := *(*Fault)(pointer(crashes.fault))
		f.classify()
		fmt.Fprintf(os.Stderr, "%v\n\nsignal %d (%v) code %d address %#x pc %#x sp %#x\n%s\n%s", &f,
			int(f.Signal), f.Signal, f.Code, f.Addr, f.PC, f.SP, f.Registers(), f.Stack())
		f.die()
	}()
}

// crash prints f and kills the process. It does not return.
func (f *Fault) crash() {
	if atomic.CompareAndSwapUint32(&crashes.word, 0, 2) { // the first thread to crash
		crashes.fault = uintptr(unsafe.Pointer(f))
		atomic.StoreUint32(&crashes.word, 1)
		futex.Wake(&crashes.word, 1)
	}
	if crashes.started.Load() {
		Sleep(crashPatience)
	}
	f.print()
	f.die()
}

// die kills the process with the fault's signal, its action the default one.
func (f *Fault) die() {
	sig := f.Signal
	if sig == 0 {
		sig = unix.SIGABRT
	}
	asm.ResetSignal(sig)
	pid, _, _ := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	unix.RawSyscall(unix.SYS_KILL, pid, uintptr(sig), 0)
	for {
		Sleep(time.Second)
	}
}

// report says that a detached thread has died of f, whom no Join will tell,
// unless its own hook has been told.
func (f *Fault) report() {
	switch {
	case f.told:
	case asm.Current() != nil:
		f.print()
	default:
		fmt.Fprintf(os.Stderr, "%v\n(detached)\n%s", f, f.Stack())
	}
}

// print writes what can be said of f without the runtime: addr2line(1) knows
// the rest.
func (f *Fault) print() {
	var l Line
	l.Str("lwp: thread ").Int(int64(f.TID)).Str(": fault: ")
	if f.Signal == 0 && f.nmsg > 0 {
		l.Str(f.Reason.String()).Str(": ").Str(unsafe.String(&f.msg[0], f.nmsg))
	} else {
		l.Str(f.Reason.String()).Str(", signal ").Int(int64(f.Signal)).Str(" address ").Hex(uint64(f.Addr)).Str(" pc ").Hex(uint64(f.PC))
	}
	l.Eprint()
	for _, pc := range f.pcs[:f.n] {
		l.Str("\tcalled from ").Hex(uint64(pc)).Eprint()
	}
}
