package lwp

import (
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"lwprt/asm"
	"lwprt/futex"
	"lwprt/tls"
)

// Faults stay inside the thread.
//
// What an instruction of a thread causes (FaultSignals of package asm) comes
// to onFault, on the thread's own signal stack. It writes down what it finds
// and has the signal return to the beginning of the thread's stack, from where
// the thread leaves through its ordinary teardown. The frames that were on the
// stack are given up: deferred calls do not run, and a lock that was held
// stays held.
//
// Two faults are none: the write barriers that compiled code calls while the
// collector marks need the m that a thread does not have. The barrier of a
// store into memory off the Go heap has nothing to do, so the handler returns
// past it and the store happens. (A store into the Go heap would need it: the
// collector must see the pointer that is overwritten. That is why threads may
// not store pointers there.)

// state of a thread that concerns faults; in control.
type faultState struct {
	fault   *Fault     // in the signal area: what the handler fills in
	scratch [8]uintptr // the buffer that a skipped write barrier hands out
	skipped uintptr    // write barriers, so far
	policy  FaultPolicy
	hook    uintptr // func(*Fault) value, 0 for none
	domain  uintptr // *Domain, 0 for none
	joined  uintptr // *Fault, the last that the thread got from a Join
	count   int
}

// maxFaults bounds the faults of one thread's teardown: each hook and each
// pass of a destructor can cause one.
const maxFaults = maxHooks + (tls.DestructorPasses+1)*tls.MaxKeys

// sigMask are all signals but those that an instruction can cause.
var sigMask = func() uint64 {
	m := ^uint64(0)
	for _, s := range asm.FaultSignals {
		m &^= 1 << (s - 1)
	}
	return m
}()

// sigArea is the memory below a thread's guard that only a fault touches: the
// Fault, then the signal stack.
var sigArea = func() uintptr {
	const handler = 8 << 10  // frames of onFault, generously
	const atMinSigStkSz = 51 // AT_MINSIGSTKSZ, getauxval(3)
	frame := uintptr(2 << 10)
	if aux, err := unix.Auxv(); err == nil {
		for _, kv := range aux {
			if kv[0] == atMinSigStkSz {
				frame = max(frame, kv[1])
			}
		}
	}
	return (unsafe.Sizeof(Fault{}) + frame + handler + pageMask) &^ pageMask
}()

type stackT struct {
	sp    uintptr
	flags int32
	_     int32
	size  uintptr
}

// initFaults makes the signal area of a new mapping known to its TCB.
func (c *control) initFaults() {
	c.fault = (*Fault)(pointer(c.base))
	lo := c.base + (unsafe.Sizeof(Fault{})+15)&^15
	g := &c.SigG
	g.StackLo, g.StackHi = lo, c.base+sigArea
	g.StackGuard0 = lo + layout.Guard
	g.StackGuard1 = g.StackGuard0
	c.Fault = *(*uintptr)(unsafe.Pointer(&faultEntry))
}

// openFaults lets the signals of faults through to onFault. The thread calls
// it first of all; until then, a fault would kill the process.
func (c *control) openFaults() {
	c.openSigStack()
	unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&sigMask)), 0, unsafe.Sizeof(sigMask), 0, 0)
}

// openSigStack makes SigG's stack the one that the kernel has handlers run on.
func (c *control) openSigStack() {
	st := stackT{sp: c.SigG.StackLo, size: c.SigG.StackHi - c.SigG.StackLo}
	unix.RawSyscall(unix.SYS_SIGALTSTACK, uintptr(unsafe.Pointer(&st)), 0, 0)
}

var (
	faultEntry  = onFault
	afterFault  = faulted
	afterFaults = faultedAgain
)

// onFault is the handler. It runs on the signal stack, with all signals
// blocked: a fault in here kills the process.
func onFault(tcb *asm.TCB, sig int, info *asm.SigInfo, ctx *asm.SigContext) {
	c := (*control)(unsafe.Pointer(tcb))
	if info.Code <= 0 {
		if !c.attend(sig) {
			forward(sig, info)
		}
		return
	}
	if c.passBarrier(sig, ctx) {
		return
	}
	if d := (*Domain)(pointer(c.domain)); d != nil {
		if lo, hi := d.Stack(ctx.SP()); lo != 0 {
			c.fault.note(c, sig, info, ctx, lo, hi)
			c.fault.green = true
			ctx.Resume(d.Faulted(c.fault.name[:]))
			return
		}
	}
	c.count++
	next := &afterFault
	switch {
	case c.count == 1:
		c.fault.note(c, sig, info, ctx, c.G.StackLo, c.G.StackHi)
	case c.count == maxFaults:
		next = &afterFaults
	case c.count > maxFaults:
		asm.Exit(0) // not even that went well; its memory is lost
	}
	c.Entry = *(*uintptr)(unsafe.Pointer(next))
	ctx.Resume(asm.ResumePC(), c.G.StackHi-asm.FrameSize)
}

// passBarrier has the handler return past a write barrier, if that is the fault.
func (c *control) passBarrier(sig int, ctx *asm.SigContext) bool {
	pc := ctx.PC()
	if sig != int(unix.SIGSEGV) || !layout.Text.Has(pc) || !layout.Text.Has(pc-64) {
		return false
	}
	if ctx.SkipBarrier(uintptr(unsafe.Pointer(&c.scratch))) {
		c.skipped++
		return true
	}
	for i := range layout.Barriers {
		if b := &layout.Barriers[i]; b.Has(pc) && ctx.Return(b.Lo) {
			c.skipped++
			return true
		}
	}
	return false
}

// tid returns the ID of c's task.
func (c *control) tid() int {
	if c.proc.on {
		return gettid()
	}
	return int(atomic.LoadUint32(&recordAt(c.index).exit))
}

// bounces counts signals that forward has sent and got back, one after another.
var bounces atomic.Uint32

// forward hands on a signal that somebody has sent, which is the program's
// affair: the thread has fault signals unblocked, and the kernel may choose it
// for a signal to the process when the main thread is not free to take it.
//
// What kill(2) sent is sent again by kill(2), for the receiver to see the same
// code. This thread then keeps the signal blocked until another has taken it,
// or it would be the first to get it again. Where no thread takes it but those
// like this one, it stays pending on the main thread in the end. A signal with
// a value goes there at once, with all it carries; the kernel does not let one
// thread send another a siginfo that says kill(2).
func forward(sig int, info *asm.SigInfo) {
	const (
		siUser, siTkill = 0, -6
		maxBounces      = 50 // of patience milliseconds
		patience        = 20
	)
	pid, _, _ := unix.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
	if info.Code != siUser && info.Code != siTkill {
		unix.RawSyscall6(unix.SYS_RT_TGSIGQUEUEINFO, pid, pid, uintptr(sig), uintptr(unsafe.Pointer(info)), 0, 0)
		return
	}
	if sender := uintptr(uint32(info.Addr)); sender != pid { // si_pid lies where si_addr does
		bounces.Store(0)
	}
	if info.Code == siTkill || bounces.Add(1) > maxBounces {
		unix.RawSyscall(unix.SYS_TGKILL, pid, pid, uintptr(sig))
		return
	}
	unix.RawSyscall(unix.SYS_KILL, pid, uintptr(sig), 0)
	for range patience {
		var pending uint64
		unix.RawSyscall(unix.SYS_RT_SIGPENDING, uintptr(unsafe.Pointer(&pending)), unsafe.Sizeof(pending), 0)
		if pending&(1<<(sig-1)) == 0 {
			return
		}
		Sleep(time.Millisecond)
	}
}

// note fills f in from the state of c at the fault, on the stack [lo, hi).
func (f *Fault) note(c *control, sig int, info *asm.SigInfo, ctx *asm.SigContext, lo, hi uintptr) {
	*f = Fault{
		Signal: syscall.Signal(sig), Code: int(info.Code), PC: ctx.PC(), SP: ctx.SP(),
		StackSize: int(hi - lo), TID: c.tid(),
	}
	f.regs = *ctx.Registers()
	if sig != int(unix.SIGSYS) {
		f.Addr = info.Addr
	}
	guard := c.base + sigArea
	f.overflow = guard <= f.Addr && f.Addr < guard+c.guard || layout.Morestack.Has(f.PC)
	if lo <= f.SP && f.SP < hi-16 {
		f.link, f.outer = ctx.Links()
	}
	f.frames(ctx.FP(), lo, hi)
	f.guess()
}

// frames follows the frame pointers from fp while they stay on the stack [lo, hi) and go up.
func (f *Fault) frames(fp, lo, hi uintptr) {
	f.n = 0
	for f.n < len(f.pcs) && lo <= fp && fp < hi-16 && fp%8 == 0 {
		frame := (*[2]uintptr)(pointer(fp))
		f.pcs[f.n] = frame[1]
		f.n++
		if frame[0] <= fp {
			break
		}
		fp = frame[0]
	}
}

// faulted is where a thread goes on after a fault, at the beginning of its stack.
func faulted(tcb *asm.TCB) {
	c := (*control)(unsafe.Pointer(tcb))
	c.keepFault()
	c.finish()
}

// faultedAgain is where a thread goes on whose teardown has caused so many
// faults that it would not end: without the rest of its destructors and hooks.
func faultedAgain(tcb *asm.TCB) {
	c := (*control)(unsafe.Pointer(tcb))
	c.dropTeardown()
	c.finish()
}

func (c *control) dropTeardown() {
	c.Storage.Reset()
	c.nhooks = 0
}

// keepFault hands the fault of c, once, to the record of the thread or run
// that it ended, where Join finds it after c has gone. The hook comes after
// that: it may fault itself, or end the thread.
func (c *control) keepFault() {
	r := recordAt(c.self.index())
	if r.fault == 0 {
		f := allocFault()
		if f == nil {
			f = &lostFault
		} else {
			c.fault.name = r.name
			*f = *c.fault
		}
		r.fault = uintptr(unsafe.Pointer(f))
	}
	f := (*Fault)(pointer(r.fault))
	if hook := c.hook; hook != 0 {
		c.hook = 0
		f.told = true
		(*(*func(*Fault))(unsafe.Pointer(&hook)))(f)
	}
	if c.policy == CrashOnFault {
		f.crash()
	}
}

// Abort ends the calling thread with a Fault that carries msg, of which up to
// 120 bytes are kept. A process of StartProcess or Fork prints it to standard
// error, and exits with status 2.
//
// Context: thread; on a goroutine it panics with msg.
func Abort(msg string) {
	c := current()
	if c == nil {
		panic("lwp: Abort: " + msg)
	}
	f := c.fault
	fp := asm.FramePointer()
	lo, hi := c.G.StackLo, c.G.StackHi
	d := (*Domain)(pointer(c.domain))
	green := false
	if d != nil {
		if l, h := d.Stack(fp); l != 0 {
			green, lo, hi = true, l, h
		}
	}
	// Not assigned as a whole: unoptimized code makes that on the stack first.
	clear(unsafe.Slice((*byte)(unsafe.Pointer(f)), unsafe.Sizeof(*f)))
	f.Reason, f.StackSize, f.green = Explicit, int(hi-lo), green
	f.TID = c.tid()
	f.nmsg = copy(f.msg[:], msg)
	f.frames(fp, lo, hi)
	if f.n > 0 {
		f.PC = f.pcs[0]
	}
	if green {
		d.Faulted(f.name[:])
		asm.Leave(hi)
	}
	if c.count++; c.count >= maxFaults {
		c.dropTeardown()
	}
	if c.proc.on {
		f.print()
		c.exitProcess(exitAbort)
	}
	c.keepFault()
	c.finish()
	asm.Exit(0)
}

// faults holds the Faults that wait for a Join, used again.
var faults struct {
	mu   futex.Mutex
	free uintptr // *Fault; linked by pcs[0]
}

// lostFault stands for one there was no memory for.
var lostFault = Fault{Reason: Unknown}

func allocFault() *Fault {
	const batch = 32
	asm.Headroom()
	faults.mu.Lock()
	if faults.free == 0 {
		addr, errno := mmap(batch*unsafe.Sizeof(Fault{}), unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if errno != 0 {
			faults.mu.Unlock()
			return nil
		}
		for i := range uintptr(batch) {
			f := (*Fault)(pointer(addr + i*unsafe.Sizeof(Fault{})))
			f.pcs[0], faults.free = faults.free, uintptr(unsafe.Pointer(f))
		}
	}
	f := (*Fault)(pointer(faults.free))
	faults.free = f.pcs[0]
	faults.mu.Unlock()
	return f
}

func freeFault(f *Fault) {
	if f == &lostFault {
		return
	}
	asm.Headroom()
	faults.mu.Lock()
	f.pcs[0], faults.free = faults.free, uintptr(unsafe.Pointer(f))
	faults.mu.Unlock()
}

// takeFault returns the Fault that r's thread died of, or nil. A goroutine gets
// a copy on the heap. A thread has no heap: it gets the Fault itself, and gives
// back the one that it got before.
func (r *record) takeFault(t Thread) *Fault {
	if r.fault == 0 {
		return nil
	}
	f := (*Fault)(pointer(r.fault))
	r.fault = 0
	f.Thread = t
	return KeepFault(f)
}

// dropJoined frees the Fault that c's thread has from its last Join of a
// thread that faulted.
func (c *control) dropJoined() {
	if c.joined != 0 {
		freeFault((*Fault)(pointer(c.joined)))
		c.joined = 0
	}
}

// reportFault reports the fault that r's detached thread died of, if it did.
func (r *record) reportFault(t Thread) {
	if r.fault == 0 {
		return
	}
	f := (*Fault)(pointer(r.fault))
	r.fault = 0
	f.Thread = t
	ReportFault(f)
}
