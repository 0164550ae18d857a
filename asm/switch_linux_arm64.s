// Context switch for linux/arm64; see the amd64 file.
//
//	arguments  R0-R4; result R0
//	kept       RSP; R29 as frame pointer; R28 = g; R18 is the platform's
//
// The return address is in LR, so a context that is not running has it on its
// stack, where Go's frames have it, and the frame pointer below it:
//
//	Context.SP  -> return address of the call that switched
//	Context.BP  frame pointer of that caller
//
//	hi - StartRoom  zero: LR's place of the frame that calls its function  <- Context.SP, its low bit set
//	           + 8  argument of its function

#include "go_asm.h"
#include "textflag.h"

#define code(name, text) \
	DATA name+0(SB)/8, $text(SB) \
	GLOBL name(SB), RODATA|NOPTR, $8

code(·switchPC, ·switchTo)
code(·switchIfPC, ·switchIf)
code(·callOnPC, ·callOn)
code(·leavePC, ·leave)
code(·faultedPC, ·faulted)
code(·currentPC, ·current)
code(·workerPC, ·worker)
code(·probeABIPC, ·probeABI)

// switchTo(from R0, to R1 *Context, release R2 *uint32)
TEXT ·switchTo(SB), NOSPLIT|NOFRAME, $0
	MOVD LR, -16(RSP)
	SUB $16, RSP, R3
	MOVD R3, Context_SP(R0)
	MOVD R29, Context_BP(R0)
	STLRW ZR, (R2)
	MOVD Context_Guard(R1), R4
	MOVD Context_SP(R1), R3
	MOVD R4, G_StackGuard0(g)
	TBNZ $0, R3, start
	MOVD Context_BP(R1), R29
	MOVD 0(R3), LR
	ADD $16, R3, R3
	MOVD R3, RSP
	MOVD $1, R0
	RET

start:
	JMP ·run(SB)

// switchIf(from R0, to R1 *Context, word R2 *uint64, old R3, new R4 uint64) bool
TEXT ·switchIf(SB), NOSPLIT|NOFRAME, $0
	MOVD LR, -16(RSP)
	SUB $16, RSP, R5
	MOVD R5, Context_SP(R0)
	MOVD R29, Context_BP(R0)

again:
	LDAXR (R2), R6
	CMP R3, R6
	BNE changed
	STLXR R4, (R2), R7
	CBNZW R7, again
	DMB $0xb // ISH: what follows is not done before the exchange
	MOVD Context_Guard(R1), R4
	MOVD Context_SP(R1), R3
	MOVD R4, G_StackGuard0(g)
	TBNZ $0, R3, start
	MOVD Context_BP(R1), R29
	MOVD 0(R3), LR
	ADD $16, R3, R3
	MOVD R3, RSP
	MOVD $1, R0
	RET

start:
	JMP ·run(SB)

changed:
	CLREX
	MOVD ZR, R0
	RET

// run: context R1, its SP in R3; or R3 zero.
TEXT ·run(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVD R29, R4 // for vet
	MOVD ZR, R29
	CBZ R3, finish

	SUB $const_fresh, R3, R3
	MOVD R3, RSP

start:
	MOVD Context_BP(R1), R26
	MOVD 8(RSP), R0
	MOVD ZR, 0(RSP)
	MOVD (R26), R4
	CALL (R4)

finish:
	MOVD ·ended(SB), R26
	MRS TPIDR_EL0, R0
	MOVD TCB_Worker(R0), R0
	MOVD (R26), R4
	CALL (R4)
	MOVD R1, R5 // what to release
	MOVD R0, R1
	MOVD Context_Guard(R1), R4
	MOVD Context_SP(R1), R3
	MOVD R4, G_StackGuard0(g)
	TBNZ $0, R3, fresh
	MOVD Context_BP(R1), R29
	MOVD 0(R3), LR
	ADD $16, R3, R3
	MOVD R3, RSP
	STLRW ZR, (R5)
	MOVD $1, R0
	RET

fresh:
	SUB $const_fresh, R3, R3
	MOVD R3, RSP
	STLRW ZR, (R5)
	JMP start

// leave(sp R0 uintptr)
TEXT ·leave(SB), NOSPLIT|NOFRAME, $0
	MOVD R0, RSP
	MOVD ZR, 0(RSP)
	MOVD ZR, R3
	JMP ·run(SB)

TEXT ·faulted(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MRS TPIDR_EL0, R10
	MOVD 0(R10), R10
	ADD $TCB_G, R10, g
	MOVD ZR, 0(RSP)
	MOVD ZR, R3
	JMP ·run(SB)

// callOn(c R0 *Context, fn R1 func(unsafe.Pointer), arg R2 unsafe.Pointer)
//
//	new SP + 32  guard of the caller's stack
//	new SP + 24  SP of the caller
//	new SP + 8   room for fn's argument
//	new SP + 0   LR's place of this frame
//	new SP - 8   frame pointer's
TEXT ·callOn(SB), NOSPLIT|NOFRAME, $0
	MOVD LR, -16(RSP)
	MOVD R29, -24(RSP)
	SUB $16, RSP, R3
	MOVD Context_SP(R0), R4
	MOVD G_StackGuard0(g), R5
	SUB $64, R4, R4
	AND $~15, R4, R4
	MOVD R3, 24(R4)
	MOVD R5, 32(R4)
	MOVD LR, 0(R4)
	MOVD R29, -8(R4)
	MOVD Context_Guard(R0), R5
	MOVD R5, G_StackGuard0(g)
	MOVD R4, RSP
	SUB $8, RSP, R29
	MOVD R1, R26
	MOVD R2, R0
	MOVD (R26), R4
	CALL (R4)
	MOVD 32(RSP), R5
	MOVD R5, G_StackGuard0(g)
	MOVD 24(RSP), R3
	MOVD -8(R3), R29
	MOVD 0(R3), LR
	ADD $16, R3, R3
	MOVD R3, RSP
	RET

// current() *TCB
TEXT ·current(SB), NOSPLIT|NOFRAME, $0
	MRS TPIDR_EL0, R0
	CBZ R0, other
	MOVD 8(R0), R1
	MOVD $const_Magic, R2
	CMP R1, R2
	BNE none
	MOVD 0(R0), R0

other:
	RET

none:
	MOVD ZR, R0
	RET

// worker() uintptr
TEXT ·worker(SB), NOSPLIT|NOFRAME, $0
	MRS TPIDR_EL0, R0
	CBZ R0, other
	MOVD 8(R0), R1
	MOVD $const_Magic, R2
	CMP R1, R2
	BNE none
	MOVD TCB_Worker(R0), R0

other:
	RET

none:
	MOVD ZR, R0
	RET

// probeABI(a, b, c, d, e uintptr) uintptr returns their sum.
TEXT ·probeABI(SB), NOSPLIT|NOFRAME, $0
	ADD R1, R0
	ADD R2, R0
	ADD R3, R0
	ADD R4, R0
	RET
