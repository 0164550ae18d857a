// clone and clone3 for processes on linux/arm64; see the amd64 file.

#include "go_asm.h"
#include "textflag.h"

// func CloneProcess(a *ProcessArgs) (pid, errno uintptr)
TEXT ·CloneProcess(SB), NOSPLIT, $24-24
	MOVD a+0(FP), R9
	MOVD ProcessArgs_TCB(R9), R10
	MOVD ProcessArgs_Twice(R9), R11

	MOVD ProcessArgs_Open(R9), R0
	MVN R0, R0
	MOVD R0, mask-16(SP)
	CBZ R0, create
	MOVD $const_sysRtSigprocmask, R8
	MOVD $const_sigBlock, R0
	MOVD $mask-16(SP), R1
	MOVD $oldmask-8(SP), R2
	MOVD $const_sigsetSize, R3
	SVC

create:
	MOVD ProcessArgs_Trap(R9), R8
	MOVD ProcessArgs_A0(R9), R0
	MOVD ProcessArgs_A1(R9), R1
	MOVD ProcessArgs_A2(R9), R2
	MOVD ProcessArgs_A3(R9), R3
	MOVD ProcessArgs_A4(R9), R4
	SVC
	CBZ R0, child

	MOVD R0, R10
	MOVD mask-16(SP), R0
	CBZ R0, created
	MOVD $const_sysRtSigprocmask, R8
	MOVD $const_sigSetmask, R0
	MOVD $oldmask-8(SP), R1
	MOVD ZR, R2
	MOVD $const_sigsetSize, R3
	SVC

created:
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
