// clone and clone3 for processes on linux/amd64, the annotated reference; the
// registers are those of clone_linux_amd64.s.
//
// The child's stack: with a stack of its own, as there. With Twice it is the
// caller's, or a copy of it, as the parent has it at the system call.

#include "go_asm.h"
#include "textflag.h"

// func CloneProcess(a *ProcessArgs) (pid, errno uintptr)
//
// Needs no g, and like Clone stays in assembly while signals are blocked.
TEXT ·CloneProcess(SB), NOSPLIT, $24-24
	// What the child needs goes into registers: the caller's memory can be
	// gone when it first runs.
	MOVQ a+0(FP), BX
	MOVQ ProcessArgs_TCB(BX), R12
	MOVQ ProcessArgs_Twice(BX), R13

	MOVQ ProcessArgs_Open(BX), AX
	XORQ $-1, AX
	MOVQ AX, mask-16(SP)
	JEQ create
	MOVQ $const_sysRtSigprocmask, AX
	MOVQ $const_sigBlock, DI
	LEAQ mask-16(SP), SI
	LEAQ oldmask-8(SP), DX
	MOVQ $const_sigsetSize, R10
	SYSCALL

create:
	MOVQ ProcessArgs_Trap(BX), AX
	MOVQ ProcessArgs_A0(BX), DI
	MOVQ ProcessArgs_A1(BX), SI
	MOVQ ProcessArgs_A2(BX), DX
	MOVQ ProcessArgs_A3(BX), R10
	MOVQ ProcessArgs_A4(BX), R8
	SYSCALL
	TESTQ AX, AX
	JEQ child

	MOVQ AX, R12
	CMPQ mask-16(SP), $0
	JEQ created
	MOVQ $const_sysRtSigprocmask, AX
	MOVQ $const_sigSetmask, DI
	LEAQ oldmask-8(SP), SI
	XORL DX, DX
	MOVQ $const_sigsetSize, R10
	SYSCALL

created:
	XORL AX, AX
	CMPQ R12, $~const_maxErrno
	JLS ok
	NEGQ R12
	MOVQ R12, AX
	XORL R12, R12

ok:
	MOVQ R12, pid+8(FP)
	MOVQ AX, errno+16(FP)
	RET

child:
	TESTQ R12, R12
	JEQ exit
	TESTQ R13, R13
	JNE twice
	JMP ·enter(SB)

twice:
	// The frames are a copy; the thread pointer is the TCB's by CLONE_SETTLS,
	// or was so before.
	LEAQ TCB_G(R12), R14
	MOVQ TLS, CX
	MOVQ R14, 0(CX)(TLS*1)
	XORL AX, AX
	MOVQ AX, pid+8(FP)
	MOVQ AX, errno+16(FP)
	RET

exit:
	// As a process ends. exit(2) of a child that qemu-user has forked would wait
	// for a lock that another thread of the parent held then.
	MOVQ $const_sysExitGroup, AX
	XORL DI, DI
	SYSCALL
	INT $3

// func Room()
//
// The frame is what the prologue checks; it is not touched.
TEXT ·Room(SB), 0, $32768-0
	RET
