// Signal entry for linux/amd64, the annotated reference.
//
//	handler:  signal DI, *siginfo SI, *ucontext DX; return address: the
//	          restorer, which calls rt_sigreturn
//
// sigEntry stands in front of the handlers that were there before. It runs on
// the signal stack of whatever thread faulted, with unknown contents in every
// register that is not an argument.

#include "go_asm.h"
#include "textflag.h"

DATA ·sigEntryPC+0(SB)/8, $·sigEntry(SB)
GLOBL ·sigEntryPC(SB), RODATA|NOPTR, $8
DATA ·resumePC+0(SB)/8, $·resume(SB)
GLOBL ·resumePC(SB), RODATA|NOPTR, $8

// sigEntry tells our threads from others by the magic word alone: on any
// other thread the previous handler must find everything as the kernel left
// it. R11 is free in the C calling convention.
TEXT ·sigEntry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ $const_Magic, R11
	CMPQ R11, 8(FS)
	JEQ ours
	LEAQ ·previous(SB), R11
	MOVQ (R11)(DI*8), R11
	JMP R11

ours:
	// The handler is compiled code with stack checks, so it needs a g whose
	// bounds are those of the signal stack. Registers that C keeps across calls
	// need no saving: rt_sigreturn restores the interrupted ones all.
	MOVQ 0(FS), BX
	LEAQ TCB_SigG(BX), R14
	MOVQ TLS, CX
	MOVQ R14, 0(CX)(TLS*1)
	XORL BP, BP
	CLD
	SUBQ $40, SP // four arguments; keeps SP 16-byte aligned at the call
	MOVQ BX, 0(SP)
	MOVQ DI, 8(SP)
	MOVQ SI, 16(SP)
	MOVQ DX, 24(SP)
	CALL ·sigMain(SB)
	ADDQ $40, SP
	MOVQ 0(FS), BX
	LEAQ TCB_G(BX), R14
	MOVQ TLS, CX
	MOVQ R14, 0(CX)(TLS*1)
	RET

// resume is where a handler sends a thread whose frames are given up: with SP
// at the place of the first frame, it runs TCB.Entry as a new thread does.
TEXT ·resume(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MOVQ 0(FS), R12
	JMP ·enter(SB)
