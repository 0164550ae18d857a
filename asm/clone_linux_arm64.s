// clone, child entry and exit for linux/arm64; see the amd64 file.
//
//	system call: number R8; arguments R0-R5; result R0; the rest is kept
//	clone:       flags R0, stack R1, parent_tid R2, tls R3, child_tid R4
//	Go:          g in R28 only (the TLS slot exists for C code's sake and
//	             nothing that runs on our threads reads it); FP in R29
//
// The child's stack as Clone leaves it: a.Stack + 0 is LR's place and zero,
// a.Stack + 8 the *TCB for childMain.

#include "go_asm.h"
#include "textflag.h"

DATA allSignals<>+0(SB)/8, $~0
GLOBL allSignals<>(SB), RODATA|NOPTR, $8

// func Clone(a *CloneArgs) (tid, errno uintptr)
TEXT ·Clone(SB), NOSPLIT, $16-24
	MOVD a+0(FP), R9
	MOVD CloneArgs_TCB(R9), R10

	MOVD $const_sysRtSigprocmask, R8
	MOVD $const_sigSetmask, R0
	MOVD $allSignals<>(SB), R1
	MOVD $oldmask-8(SP), R2
	MOVD $const_sigsetSize, R3
	SVC

	MOVD $const_sysClone, R8
	MOVD CloneArgs_Flags(R9), R0
	MOVD CloneArgs_Stack(R9), R1
	MOVD CloneArgs_ParentTID(R9), R2
	MOVD CloneArgs_TLS(R9), R3
	MOVD CloneArgs_ChildTID(R9), R4
	SVC
	CBZ R0, child

	MOVD R0, R10
	MOVD $const_sysRtSigprocmask, R8
	MOVD $const_sigSetmask, R0
	MOVD $oldmask-8(SP), R1
	MOVD ZR, R2
	MOVD $const_sigsetSize, R3
	SVC

	MOVD ZR, R1
	MOVD $~const_maxErrno, R2
	CMP R2, R10
	BLS ok
	NEG R10, R1
	MOVD ZR, R10

ok:
	MOVD R10, tid+8(FP)
	MOVD R1, errno+16(FP)
	RET

child:
	CBNZ R10, run
	MOVD $const_sysExit, R8
	MOVD ZR, R0
	SVC

run:
	JMP ·enter(SB)

// enter runs a thread from its first frame: TCB in R10, SP at the place of
// that frame.
TEXT ·enter(SB), NOSPLIT|TOPFRAME, $16
	MOVD ZR, R29
	ADD $TCB_G, R10, g
	MOVD ZR, 0(RSP)
	MOVD R10, 8(RSP)
	CALL ·childMain(SB)
	MOVD $const_sysExit, R8
	MOVD ZR, R0
	SVC
	BRK

// func Exit(status int)
TEXT ·Exit(SB), NOSPLIT|NOFRAME, $0-8
	MOVD $const_sysExit, R8
	MOVD status+0(FP), R0
	SVC
	BRK
