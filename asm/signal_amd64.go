package asm

import (
	"bytes"
	"encoding/binary"
	"unsafe"
)

// SigContext is ucontext_t, as far as handlers use it.
type SigContext struct {
	_   [2]uintptr // flags, link
	alt sigStack
	r   [8]uintptr // R8 to R15
	_   [2]uintptr // RDI, RSI
	rbp uintptr
	_   [4]uintptr // RBX, RDX, RAX, RCX
	rsp uintptr
	rip uintptr
	_   uintptr // EFLAGS
}

// RegisterNames are the names of the general registers, in the order in which
// a SigContext has them.
var RegisterNames = [...]string{
	"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "eflags",
}

// Registers returns the interrupted general registers.
func (c *SigContext) Registers() *[len(RegisterNames)]uintptr {
	return (*[len(RegisterNames)]uintptr)(unsafe.Pointer(&c.r))
}

// PC returns the address of the interrupted instruction.
func (c *SigContext) PC() uintptr { return c.rip }

// SP returns the interrupted stack pointer.
func (c *SigContext) SP() uintptr { return c.rsp }

// FP returns the interrupted frame pointer.
func (c *SigContext) FP() uintptr { return c.rbp }

// Links returns the return addresses that a function without a frame of its
// own, and the function that called it from its prologue, have not yet put
// behind a frame pointer. The stack must be readable at SP.
func (c *SigContext) Links() (link, outer uintptr) {
	s := (*[2]uintptr)(codeAt(c.rsp))
	return s[0], s[1]
}

// Resume makes the handler's return continue at pc, on the stack sp.
func (c *SigContext) Resume(pc, sp uintptr) { c.rip, c.rsp, c.rbp = pc, sp, 0 }

// barrier is how gcWriteBarrier begins, up to the load that faults where g.m
// is nil: it saves R12 and R13 at 96(SP) and 104(SP) and loads g.m into R13.
// R11 has the size of the buffer it is asked for, and will have its address.
var barrier = []byte{
	0x4c, 0x89, 0x64, 0x24, 0x60, // MOVQ R12, 96(SP)
	0x4c, 0x89, 0x6c, 0x24, 0x68, // MOVQ R13, 104(SP)
	0x4d, 0x8b, 0x6e, 0x30, // MOVQ 48(R14), R13
	0x4d, 0x8b, 0xad, // MOVQ ...(R13), R13, which faults
}

// skippable says whether SkipBarrier can recognise the faults of the function
// with that code: it sets up its frame and then begins as barrier does.
func skippable(code []byte) bool {
	before, _, ok := bytes.Cut(code, barrier)
	return ok && bytes.Contains(before, frame)
}

// SkipBarrier recognises the fault that gcWriteBarrier takes without an m, and
// makes it return to its caller with buf, of at least 64 bytes, as the buffer.
// The code at PC must be readable, from 16 bytes before it on.
func (c *SigContext) SkipBarrier(buf uintptr) bool {
	if !bytes.Equal(unsafe.Slice((*byte)(codeAt(c.rip-14)), len(barrier)), barrier) {
		return false
	}
	saved := (*[2]uintptr)(codeAt(c.rsp + 96))
	c.r[3] = buf // R11
	c.r[4], c.r[5] = saved[0], saved[1]
	c.leave()
	return true
}

// Return makes the handler's return continue where the interrupted function
// would return to, or says that it cannot: where that function, at entry, has
// not set up its frame.
func (c *SigContext) Return(entry uintptr) bool {
	if Frameless(entry, c.rip) {
		return false
	}
	c.leave()
	return true
}

func (c *SigContext) leave() {
	rec := (*[2]uintptr)(codeAt(c.rbp))
	c.rsp = c.rbp + unsafe.Sizeof(*rec)
	c.rbp, c.rip = rec[0], rec[1]
}

// calls returns the targets of the direct calls and jumps out of the function
// whose code lies at pc. Some are none: bytes inside another instruction.
func calls(code []byte, pc uintptr) (targets []uintptr) {
	for i := 0; i+5 <= len(code); i++ {
		if code[i] == 0xe8 || code[i] == 0xe9 { // CALL, JMP
			rel := int32(binary.LittleEndian.Uint32(code[i+1:]))
			targets = append(targets, pc+uintptr(i)+5+uintptr(rel))
		}
	}
	return targets
}

// Frameless says whether the function at entry had set up no frame of its own
// when it got to pc.
func Frameless(entry, pc uintptr) bool {
	code := unsafe.Slice((*byte)(codeAt(entry)), pc-entry)
	return !bytes.Contains(code, frame)
}

// frame is how a function sets up its frame: PUSHQ BP; MOVQ SP, BP.
var frame = []byte{0x55, 0x48, 0x89, 0xe5}
