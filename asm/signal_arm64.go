package asm

import (
	"encoding/binary"
	"unsafe"
)

// SigContext is ucontext_t, as far as handlers use it.
type SigContext struct {
	_   [2]uintptr // flags, link
	alt sigStack
	_   [17]uintptr // sigmask and its reserve
	_   uintptr     // fault address
	r   [31]uintptr
	sp  uintptr
	pc  uintptr
	_   uintptr // PSTATE
}

// RegisterNames are the names of the general registers, in the order in which
// a SigContext has them.
var RegisterNames = [...]string{
	"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "r16", "r17", "r18", "r19",
	"r20", "r21", "r22", "r23", "r24", "r25", "r26", "r27", "r28", "r29", "lr", "sp", "pc", "pstate",
}

// Registers returns the interrupted general registers.
func (c *SigContext) Registers() *[len(RegisterNames)]uintptr {
	return (*[len(RegisterNames)]uintptr)(unsafe.Pointer(&c.r))
}

// PC returns the address of the interrupted instruction.
func (c *SigContext) PC() uintptr { return c.pc }

// SP returns the interrupted stack pointer.
func (c *SigContext) SP() uintptr { return c.sp }

// FP returns the interrupted frame pointer.
func (c *SigContext) FP() uintptr { return c.r[29] }

// Links returns the return addresses that a function without a frame of its
// own, and the function that called it from its prologue, have not yet put
// behind a frame pointer: LR, and R3, where a prologue leaves LR for morestack.
func (c *SigContext) Links() (link, outer uintptr) { return c.r[30], c.r[3] }

// Resume makes the handler's return continue at pc, on the stack sp.
func (c *SigContext) Resume(pc, sp uintptr) { c.pc, c.sp, c.r[29] = pc, sp, 0 }

// How gcWriteBarrier begins, up to the load that faults where g.m is nil. R25
// has the size of the buffer it is asked for, and will have its address.
const (
	barrierSave = 0xa90b87e0 // STP (R0, R1), 184(RSP)
	barrierLoad = 0xf9401b80 // MOVD 48(g), R0
	loadR0R0    = 0xf9400000 // MOVD x(R0), R0
	loadMask    = 0xffc003ff
)

// beginsBarrier says whether code is how gcWriteBarrier begins behind its frame.
func beginsBarrier(code []uint32) bool {
	return code[0] == barrierSave && code[1] == barrierLoad && code[2]&loadMask == loadR0R0
}

// skippable says whether SkipBarrier can recognise the faults of the function
// with that code.
func skippable(code []byte) bool {
	words := unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(code))), len(code)/4)
	for i := 1; i+2 < len(words); i++ {
		if beginsBarrier(words[i:]) {
			return frameSize(words[max(0, i-6):i]) != 0
		}
	}
	return false
}

// SkipBarrier recognises the fault that gcWriteBarrier takes without an m, and
// makes it return to its caller with buf, of at least 64 bytes, as the buffer.
// The code at PC must be readable, from 32 bytes before it on.
func (c *SigContext) SkipBarrier(buf uintptr) bool {
	code := (*[9]uint32)(codeAt(c.pc - 32))
	if !beginsBarrier(code[6:]) {
		return false
	}
	size := frameSize(code[:6])
	if size == 0 {
		return false
	}
	saved := (*[2]uintptr)(codeAt(c.sp + 184))
	c.r[25] = buf
	c.r[0], c.r[1] = saved[0], saved[1]
	c.leave(size)
	return true
}

// Return makes the handler's return continue where the interrupted function
// would return to, or says that it cannot: where that function, at entry, has
// not set up its frame.
func (c *SigContext) Return(entry uintptr) bool {
	size := frameSize(unsafe.Slice((*uint32)(codeAt(entry)), (c.pc-entry)/4))
	if size == 0 {
		return false
	}
	c.leave(size)
	return true
}

func (c *SigContext) leave(size uintptr) {
	c.pc = *(*uintptr)(codeAt(c.sp))
	c.r[30] = c.pc
	c.r[29] = *(*uintptr)(codeAt(c.sp - 8))
	c.sp += size
}

// frameSize finds the instruction that makes the frame, MOVD.W R30, -size(RSP).
func frameSize(code []uint32) uintptr {
	for _, in := range code {
		if in&0xffe00fff == 0xf8000ffe && in&(1<<20) != 0 {
			return uintptr(512 - (in>>12)&0x1ff)
		}
	}
	return 0
}

// calls returns the targets of the direct calls and jumps in code, which lies at pc.
func calls(code []byte, pc uintptr) (targets []uintptr) {
	for i := 0; i+4 <= len(code); i += 4 {
		if in := binary.LittleEndian.Uint32(code[i:]); in>>26&0x1f == 5 { // BL, B
			rel := int32(in<<6) >> 4
			targets = append(targets, pc+uintptr(i)+uintptr(int(rel)))
		}
	}
	return targets
}

// Frameless says whether the function at entry had set up no frame of its own
// when it got to pc.
func Frameless(entry, pc uintptr) bool {
	return frameSize(unsafe.Slice((*uint32)(codeAt(entry)), (pc-entry)/4)) == 0
}
