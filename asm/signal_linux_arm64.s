// Signal entry for linux/arm64; see the amd64 file.
//
//	handler:  signal R0, *siginfo R1, *ucontext R2; return address R30
//
// The g register is not in memory: the handler's g is set here and
// rt_sigreturn brings the interrupted one back.

#include "go_asm.h"
#include "textflag.h"

DATA ·sigEntryPC+0(SB)/8, $·sigEntry(SB)
GLOBL ·sigEntryPC(SB), RODATA|NOPTR, $8
DATA ·resumePC+0(SB)/8, $·resume(SB)
GLOBL ·resumePC(SB), RODATA|NOPTR, $8

// R9 and R10 are free in the C calling convention.
TEXT ·sigEntry(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MRS TPIDR_EL0, R9
	CBZ R9, other
	MOVD 8(R9), R10
	MOVD $const_Magic, R11
	CMP R10, R11
	BEQ ours

other:
	MOVD $·previous(SB), R9
	MOVD (R9)(R0<<3), R9
	JMP (R9)

ours:
	MOVD 0(R9), R9
	ADD $TCB_SigG, R9, g
	MOVD ZR, R29
	SUB $64, RSP
	MOVD R30, 48(RSP)
	MOVD R9, 8(RSP)
	MOVD R0, 16(RSP)
	MOVD R1, 24(RSP)
	MOVD R2, 32(RSP)
	CALL ·sigMain(SB)
	MOVD 48(RSP), R30
	ADD $64, RSP
	RET

TEXT ·resume(SB), NOSPLIT|NOFRAME|TOPFRAME, $0
	MRS TPIDR_EL0, R9
	MOVD 0(R9), R10
	JMP ·enter(SB)
