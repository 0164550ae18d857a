// clone and clone3 for processes on linux/arm64; see the amd64 file.

#include "go_asm.h"
#include "textflag.h"

DATA allSignals<>+0(SB)/8, $~0
GLOBL allSignals<>(SB), RODATA|NOPTR, $8

// func CloneProcess(a *ProcessArgs) (pid, errno uintptr)
TEXT ·CloneProcess(SB), NOSPLIT, $16-24
	MOVD a+0(FP), R9
	MOVD ProcessArgs_TCB(R9), R10
	MOVD ProcessArgs_Twice(R9), R11

	MOVD $const_sysRtSigprocmask, R8
	MOVD $const_sigSetmask, R0
	MOVD $allSignals<>(SB), R1
	MOVD $oldmask-8(SP), R2
	MOVD $const_sigsetSize, R3
	SVC

	MOVD ProcessArgs_Trap(R9), R8
	MOVD ProcessArgs_A0(R9), R0
	MOVD ProcessArgs_A1(R9), R1
	MOVD ProcessArgs_A2(R9), R2
	MOVD ProcessArgs_A3(R9), R3
	MOVD ProcessArgs_A4(R9), R4
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
	MOVD R10, pid+8(FP)
	MOVD R1, errno+16(FP)
	RET

child:
	CBZ R10, exit
	CBNZ R11, twice
	JMP ·enter(SB)

twice:
	ADD $TCB_G, R10, g
	MOVD ZR, pid+8(FP)
	MOVD ZR, errno+16(FP)
	RET

exit:
	MOVD $const_sysExitGroup, R8
	MOVD ZR, R0
	SVC
	BRK

// func Room()
//
// The frame is what the prologue checks; it is not touched.
TEXT ·Room(SB), 0, $32768-0
	RET
