// clone, child entry and exit for linux/amd64, the annotated reference.
//
//	system call: number AX; arguments DI SI DX R10 R8 R9; result AX;
//	             the kernel clobbers CX and R11 and keeps the rest
//	clone:       flags DI, stack SI, parent_tid DX, child_tid R10, tls R8
//	Go:          g in R14 and in the TLS slot; X15 zero; BP frame pointer
//
// The child's stack, as Clone leaves it before the first call:
//
//	a.Stack + FrameSize  end of the stack
//	a.Stack + 0          *TCB, the argument of childMain
//
// BP is zero in that frame, so a walk of frame pointers ends there.

#include "go_asm.h"
#include "textflag.h"

DATA allSignals<>+0(SB)/8, $~0
GLOBL allSignals<>(SB), RODATA|NOPTR, $8

// func Clone(a *CloneArgs) (tid, errno uintptr)
//
// Needs no g. From the first system call to the last this stays in assembly:
// with the mask full the goroutine must not be moved to another thread, and
// assembly is never preempted.
TEXT ·Clone(SB), NOSPLIT, $16-24
	// Load the arguments first: the child must not read the caller's memory,
	// which can be gone when it first runs.
	MOVQ a+0(FP), BX
	MOVQ CloneArgs_TCB(BX), R12

	MOVQ $const_sysRtSigprocmask, AX
	MOVQ $const_sigSetmask, DI
	LEAQ allSignals<>(SB), SI
	LEAQ oldmask-8(SP), DX
	MOVQ $const_sigsetSize, R10
	SYSCALL

	MOVQ $const_sysClone, AX
	MOVQ CloneArgs_Flags(BX), DI
	MOVQ CloneArgs_Stack(BX), SI
	MOVQ CloneArgs_ParentTID(BX), DX
	MOVQ CloneArgs_ChildTID(BX), R10
	MOVQ CloneArgs_TLS(BX), R8
	SYSCALL
	TESTQ AX, AX
	JEQ child

	MOVQ AX, R12
	MOVQ $const_sysRtSigprocmask, AX
	MOVQ $const_sigSetmask, DI
	LEAQ oldmask-8(SP), SI
	XORL DX, DX
	MOVQ $const_sigsetSize, R10
	SYSCALL

	XORL AX, AX
	CMPQ R12, $~const_maxErrno
	JLS ok
	NEGQ R12
	MOVQ R12, AX
	XORL R12, R12

ok:
	MOVQ R12, tid+8(FP)
	MOVQ AX, errno+16(FP)
	RET

child:
	TESTQ R12, R12
	JNE run
	MOVQ $const_sysExit, AX
	XORL DI, DI
	SYSCALL

run:
	JMP ·enter(SB)

// enter runs a thread from its first frame: TCB in R12, SP at the place of
// that frame. It sets g and never returns.
TEXT ·enter(SB), NOSPLIT|TOPFRAME, $8
	XORL BP, BP
	LEAQ TCB_G(R12), R14
	MOVQ TLS, CX
	MOVQ R14, 0(CX)(TLS*1) // the long form: the short one breaks PIE
	CLD
	MOVQ R12, 0(SP)
	CALL ·childMain(SB)
	MOVQ $const_sysExit, AX
	XORL DI, DI
	SYSCALL
	INT $3 // exit(2) does not return

// func Exit(status int)
//
// Needs no g.
TEXT ·Exit(SB), NOSPLIT, $0-8
	MOVQ $const_sysExit, AX
	MOVQ status+0(FP), DI
	SYSCALL
	INT $3
