// Context switch for linux/amd64, the annotated reference.
//
// These are called through func values, by compiled Go's register convention:
//
//	arguments  AX BX CX DI SI; result AX
//	kept       SP; BP as frame pointer; R14 = g; X15 = 0
//	           and nothing else: everything else is the caller's to save
//
// A context that is not running, and the stack of one that has never run:
//
//	Context.SP  -> return address of the call that switched, or for one that is
//	            in switchReturn, of its caller's call, with bit 1 set
//	Context.BP  frame pointer of that caller
//
//	hi - StartRoom  argument of its function   <- Context.SP, with its low bit set
//
// Calls and returns stay paired, for the sake of the return predictor, but where
// that is known to be in vain (switchJump, switchReturn, return). A context that
// switches away returns, when it goes on, through the same RET as every other. A context's first run is a CALL from here and its end a return
// to here, so that a parent that starts a child and waits for it finds its own
// return address on top of the predictor's stack: spawn and join of an empty
// child took 13 ns so, and 55 ns when the child ended in a switch that never
// returned. A first entry by RET to the function would be mispredicted.

#include "go_asm.h"
#include "textflag.h"
#include "switch_amd64.h"

code(·switchPC, ·switchTo)
code(·switchIfPC, ·switchIf)
code(·switchJumpPC, ·switchJump)
code(·switchReturnPC, ·switchReturn)
code(·returnPC, ·return)
code(·callOnPC, ·callOn)
code(·leavePC, ·leave)
code(·faultedPC, ·faulted)

DATA ·endingPC+0(SB)/8, $·endInFull(SB)
GLOBL ·endingPC(SB), NOPTR, $8

code(·currentPC, ·current)
code(·workerPC, ·worker)
code(·probeABIPC, ·probeABI)

// switchTo(from AX, to BX *Context, release CX *uint32)
//
// Stores are seen in program order here, so the plain store releases.
TEXT ·switchTo(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, Context_SP(AX)
	MOVQ BP, Context_BP(AX)
	MOVL $0, (CX)
	resume()

special:
	JMP ·jump(SB)

// switchJump(from AX, to BX *Context, release CX *uint32)
TEXT ·switchJump(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, Context_SP(AX)
	MOVQ BP, Context_BP(AX)
	MOVL $0, (CX)
	JMP ·jump(SB)

// switchReturn(from AX, to BX *Context, release CX *uint32) bool
//
// What it saves is the caller of its caller, whose frame ends like this:
//
//	BP + 8  return address
//	BP      frame pointer of its caller
TEXT ·switchReturn(SB), NOSPLIT|NOFRAME, $0
	LEAQ (8+const_returns)(BP), DX
	MOVQ 0(BP), SI
	MOVQ DX, Context_SP(AX)
	MOVQ SI, Context_BP(AX)
	MOVL $0, (CX)
	JMP ·jump(SB)

// jump goes on with context BX.
TEXT ·jump(SB), NOSPLIT|NOFRAME, $0
	MOVQ BP, AX // vet wants it looked at before it is given up
	MOVQ Context_Guard(BX), DX
	MOVQ Context_SP(BX), CX
	MOVQ DX, G_StackGuard0(R14)
	TESTB $const_returns, CX
	JEQ other
	MOVQ Context_BP(BX), BP
	MOVQ -const_returns(CX), DX
	LEAQ (8-const_returns)(CX), SP
	MOVBLZX -const_ResultAt(BX), AX
	JMP DX

other:
	TESTB $const_fresh, CX
	JNE start
	MOVQ Context_BP(BX), BP
	MOVQ (CX), DX
	LEAQ 8(CX), SP
	MOVL $1, AX // BX may come back from a switchIf
	JMP DX

start:
	JMP ·run(SB)

// return(AX, BX, CX) returns them from its caller.
TEXT ·return(SB), NOSPLIT|NOFRAME, $0
	MOVQ 8(BP), DX
	LEAQ 16(BP), SP
	MOVQ 0(BP), BP
	JMP DX

// switchIf(from AX, to BX *Context, word CX *uint64, old DI, new SI uint64) bool
//
// After the exchange another thread may be running from: its stack is not
// touched any more.
TEXT ·switchIf(SB), NOSPLIT|NOFRAME, $0
	MOVQ SP, Context_SP(AX)
	MOVQ BP, Context_BP(AX)
	MOVQ DI, AX
	LOCK
	CMPXCHGQ SI, (CX)
	JNE changed
	resume()

special:
	JMP ·jump(SB)

changed:
	XORL AX, AX
	RET

// run runs context BX, whose SP is CX, for the first time and to its end. With CX
// zero it begins with the end of the context on whose stack it is. BP is zero,
// where a walk of frame pointers ends.
TEXT ·run(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ BP, AX // vet wants it looked at before it is given up
	XORL BP, BP
	TESTQ CX, CX
	JEQ finish

	LEAQ -const_fresh(CX), SP
	MOVQ Context_BP(BX), DX
	MOVQ 0(SP), AX
	MOVQ (DX), CX
	CALL CX

finish:
	MOVQ ·endingPC(SB), CX
	JMP CX

// endInFull leaves the stack, and goes on with what ended says. The word that it
// names becomes zero then.
TEXT ·endInFull(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ BP, AX // as in run
	MOVQ ·ended(SB), DX
	MOVQ TCB_Worker(FS), AX // the TCB is at the thread pointer
	MOVQ (DX), CX
	CALL CX
	MOVQ BX, DI // what to release
	MOVQ AX, BX
	MOVQ Context_Guard(BX), DX
	MOVQ Context_SP(BX), CX
	MOVQ DX, G_StackGuard0(R14)
	TESTB $(const_fresh|const_returns), CX
	JNE special
	MOVQ CX, SP
	MOVL $0, (DI)
	MOVQ Context_BP(BX), BP
	MOVL $1, AX
	RET

special:
	TESTB $const_fresh, CX
	JEQ returns
	LEAQ -const_fresh(CX), SP
	MOVL $0, (DI)
	JMP ·run(SB)

returns: // as in jump, but that (DI) is cleared when the stack is left
	LEAQ (8-const_returns)(CX), SP
	MOVL $0, (DI)
	MOVQ Context_BP(BX), BP
	MOVQ -const_returns(CX), DX
	MOVBLZX -const_ResultAt(BX), AX
	JMP DX

// leave(sp AX uintptr)
TEXT ·leave(SB), NOSPLIT|NOFRAME, $0
	MOVQ AX, SP
	XORL CX, CX
	JMP ·run(SB)

// faulted is where a handler sends a context that faulted; nothing is known of
// any register but SP.
TEXT ·faulted(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ 0(FS), R12
	LEAQ TCB_G(R12), R14
	MOVQ TLS, CX
	MOVQ R14, 0(CX)(TLS*1)
	XORPS X15, X15
	CLD
	XORL CX, CX
	JMP ·run(SB)

// callOn(c AX *Context, fn BX func(unsafe.Pointer), arg CX unsafe.Pointer)
//
//	new SP + 24  guard of the caller's stack
//	new SP + 16  SP of the caller
//	new SP + 0   room for fn's argument
TEXT ·callOn(SB), NOSPLIT|NOFRAME, $0
	PUSHQ BP
	MOVQ SP, BP
	MOVQ Context_SP(AX), SI
	MOVQ G_StackGuard0(R14), DX
	SUBQ $32, SI
	ANDQ $~15, SI
	MOVQ SP, 16(SI)
	MOVQ DX, 24(SI)
	MOVQ Context_Guard(AX), DX
	MOVQ DX, G_StackGuard0(R14)
	MOVQ SI, SP
	MOVQ BX, DX
	MOVQ CX, AX
	MOVQ (DX), CX
	CALL CX
	MOVQ 24(SP), DX
	MOVQ DX, G_StackGuard0(R14)
	MOVQ 16(SP), SP
	POPQ BP
	RET

// current() *TCB
//
// Every thread of a Go program has its FS base set, so 8(FS) can be read.
TEXT ·current(SB), NOSPLIT|NOFRAME, $0
	MOVQ $const_Magic, CX
	XORL AX, AX
	CMPQ CX, 8(FS)
	JNE other
	MOVQ 0(FS), AX

other:
	RET

// worker() uintptr
//
// The TCB is at the thread pointer.
TEXT ·worker(SB), NOSPLIT|NOFRAME, $0
	MOVQ $const_Magic, CX
	XORL AX, AX
	CMPQ CX, 8(FS)
	JNE other
	MOVQ TCB_Worker(FS), AX

other:
	RET

// probeABI(a, b, c, d, e uintptr) uintptr returns their sum.
TEXT ·probeABI(SB), NOSPLIT|NOFRAME, $0
	ADDQ BX, AX
	ADDQ CX, AX
	ADDQ DI, AX
	ADDQ SI, AX
	RET
