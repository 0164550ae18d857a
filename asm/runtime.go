//go:build linux && (amd64 || arm64)

package asm

import (
	"bytes"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// What this module knows of the Go runtime, and nothing else:
//
//   - where g is (register and TLS slot), and the layout of type G;
//   - that compiled code compares SP with g.stackguard0 on entry;
//   - how far above stack.lo stackguard0 lies: deep enough for what runs
//     unchecked below it, which the linker proves for the runtime's own value;
//   - how the functions begin whose faults are recognised: the write barriers,
//     and where a function goes that finds its stack exhausted;
//   - entersyscall and exitsyscall, which the linker lets packages call.
//
// CheckRuntime looks at the running program for each of them but the last.

// MaxTLS bounds the space in bytes below the thread pointer that TLSOffset may ask for.
const MaxTLS = 64 << 10

// Layout is what CheckRuntime found.
type Layout struct {
	Guard uintptr // stackguard0 - stack.lo, in bytes
	TLS   int     // the result of TLSOffset
	Text  Range   // the code of the program
	// Barrier is the write barrier of compiled code, see SkipBarrier.
	Barrier Range
	// Barriers are the write barriers that fault before they have done
	// anything where there is no m, and can be returned past: that of atomic
	// pointer stores, and that of copies into package variables.
	Barriers [2]Range
	// Morestack is where a function goes that finds its stack exhausted, and
	// where that faults.
	Morestack Range
}

// A Range is the addresses [Lo, Hi).
type Range struct{ Lo, Hi uintptr }

// Has says whether pc is in r.
func (r Range) Has(pc uintptr) bool { return r.Lo <= pc && pc < r.Hi }

// CheckRuntime verifies on a goroutine that this program's Go runtime is what
// the assembly assumes. why is empty where it is, and names the first
// assumption that does not hold otherwise; it never crashes.
func CheckRuntime() (l Layout, why string) {
	if !bytes.HasPrefix(unsafe.Slice((*byte)(codeAt(codeOf(probe))), 16), prologue) {
		return l, "the function prologue does not compare SP with g.stackguard0"
	}
	if !conventionHolds() {
		return l, "arguments and results are not in the registers that the assembly expects"
	}
	l.TLS = TLSOffset()
	if slotNeeded && (l.TLS >= 0 || l.TLS < -MaxTLS || l.TLS%8 != 0) {
		return l, "the TLS slot of g is not in the executable's own TLS block"
	}
	// A preemption request replaces stackguard0 for a moment; a goroutine
	// that was just scheduled has none pending.
	var s gSample
	for range 100 {
		s = sampleG()
		if s.head.StackGuard0 < s.head.StackHi {
			break
		}
		runtime.Gosched()
	}
	l.Guard = s.head.StackGuard0 - s.head.StackLo
	if why = s.check(); why != "" {
		return l, why
	}
	l.Text = textOf(codeOf(probe))
	l.Barriers[0] = callee(codeOf(atomic.StorePointer), "runtime.atomicwb")
	l.Barriers[1] = callee(codeOf(probeCopy),
		"runtime.typedslicecopy", "runtime.bulkBarrierPreWrite", "runtime.bulkBarrierBitmap")
	l.Barrier = callee(codeOf(probeStore), "runtime.gcWriteBarrier2", "gcWriteBarrier")
	l.Morestack = callee(codeOf(probe), "runtime.morestack_noctxt", "runtime.morestack")
	return l, l.check()
}

// check says which of the functions whose faults are recognised was not found,
// or is not as SkipBarrier and Return want it.
func (l *Layout) check() string {
	switch {
	case l.Barrier.Lo == 0 || !skippable(l.Barrier.code()):
		return "the write barrier of compiled code does not begin as expected"
	case l.Barriers[0].Lo == 0:
		return "the write barrier of atomic stores is not where it is looked for"
	case l.Barriers[1].Lo == 0:
		return "the write barrier of copies is not where it is looked for"
	case l.Morestack.Lo == 0:
		return "the function prologue does not lead to runtime.morestack"
	}
	return ""
}

// code returns the machine code in r.
func (r Range) code() []byte { return unsafe.Slice((*byte)(codeAt(r.Lo)), r.Hi-r.Lo) }

// codeOf returns the address of f's code.
func codeOf[F any](f F) uintptr { return **(**uintptr)(unsafe.Pointer(&f)) }

// textOf returns the program's Go code, which contains pc: the runtime knows a
// function for every address in it, and for none outside.
func textOf(pc uintptr) Range {
	known := func(pc uintptr) bool { return runtime.FuncForPC(pc) != nil }
	return Range{pc - reach(pc, ^uintptr(0), known), pc + reach(pc, 1, known) + 1}
}

// functionAt returns the extent of the function that begins at entry.
func functionAt(entry uintptr) Range {
	return Range{entry, entry + 1 + reach(entry, 1, func(pc uintptr) bool {
		f := runtime.FuncForPC(pc)
		return f != nil && f.Entry() == entry
	})}
}

// reach returns how far from pc, in steps of 1 or -1, ok holds without a gap.
func reach(pc, step uintptr, ok func(uintptr) bool) uintptr {
	n, stride := uintptr(0), uintptr(1)
	for ; ok(pc + step*(n+stride)); stride *= 2 {
		n += stride
	}
	for ; stride > 0; stride /= 2 {
		if ok(pc + step*(n+stride)) {
			n += stride
		}
	}
	return n
}

// callee follows calls by name from the function at pc on, and returns where
// the last one leads.
func callee(pc uintptr, names ...string) (r Range) {
	for _, name := range names {
		at := functionAt(pc)
		r = Range{}
		for _, target := range calls(at.code(), pc) {
			if f := runtime.FuncForPC(target); f != nil && f.Entry() == target && f.Name() == name {
				r = functionAt(target)
				break
			}
		}
		if pc = r.Lo; pc == 0 {
			break
		}
	}
	return r
}

// gSample is a goroutine's g as found, with what must agree with it.
type gSample struct {
	g, reg uintptr
	sp     uintptr
	head   struct {
		StackLo, StackHi         uintptr
		StackGuard0, StackGuard1 uintptr
		Panic, Defer             uintptr
		M                        uintptr
	}
}

// sampleG copies the head of the calling goroutine's g.
//
//go:nosplit // the goroutine's stack must not move between the look at SP and the look at its bounds
func sampleG() (s gSample) {
	s.g, s.reg = Getg(), getgReg()
	s.sp = uintptr(unsafe.Pointer(&s))
	if s.g != 0 && s.g == s.reg {
		s.head = *(*struct {
			StackLo, StackHi         uintptr
			StackGuard0, StackGuard1 uintptr
			Panic, Defer             uintptr
			M                        uintptr
		})(codeAt(s.g))
	}
	return s
}

func (s *gSample) check() string {
	h := &s.head
	guard := h.StackGuard0 - h.StackLo
	switch {
	case s.g == 0 || s.g != s.reg:
		return "g is not where it is looked for"
	case h.StackLo >= s.sp || s.sp >= h.StackHi:
		return "g.stack is not at offset 0"
	case guard < 512 || guard > 16<<10 || guard%8 != 0:
		return "g.stackguard0 is not at offset 16, or its distance is not a guard"
	}
	// m.g0 is m's first word, and g0.m is m again. What is read here is a
	// pointer only if the layout is right, so the kernel reads it.
	m := h.M
	g0, ok := load(m)
	if !ok {
		return "g.m is not at offset 48"
	}
	if back, ok := load(g0 + unsafe.Offsetof(G{}.M)); !ok || back != m || m == 0 {
		return "g.m is not at offset 48"
	}
	return ""
}

// load reads the word at addr, which need not be readable: write(2) from a
// bad address is EFAULT.
func load(addr uintptr) (w uintptr, ok bool) {
	var fd [2]int
	if syscall.Pipe2(fd[:], syscall.O_CLOEXEC) != nil {
		return 0, false
	}
	defer syscall.Close(fd[0])
	defer syscall.Close(fd[1])
	const size = unsafe.Sizeof(w)
	if n, _, _ := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd[1]), addr, size); n != size {
		return 0, false
	}
	n, err := syscall.Read(fd[0], (*[size]byte)(unsafe.Pointer(&w))[:])
	return w, err == nil && n == int(size)
}

// codeAt converts the address of something that does not move.
//
//go:nosplit // sampleG calls it
func codeAt(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// probe is a function that checks its stack and does nothing.
//
//go:noinline
func probe() { runtime.KeepAlive(probe2()) }

//go:noinline
func probe2() int { return 0 }

// probeStore is a store of a pointer.
//
//go:noinline
func probeStore(to *unsafe.Pointer, p unsafe.Pointer) { *to = p }

// probeCopy is a copy of pointers.
//
//go:noinline
func probeCopy(dst, src []unsafe.Pointer) { copy(dst, src) }
