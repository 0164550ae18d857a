// Yield for linux/amd64: one turn of a worker's ring of ready fibers, and the
// switch. The protocol of Inside and Claimed is that of package sched's queue.
//
// What bounds it is a chain through memory: who is first, who comes after that and
// is first then. Two loads, each of what the turn before has stored, are fourteen
// of the sixteen cycles.

#include "go_asm.h"
#include "textflag.h"

DATA ·yieldPC+0(SB)/8, $·yield(SB)
GLOBL ·yieldPC(SB), RODATA|NOPTR, $8

// yield is called as compiled Go, without arguments. Its caller's return is what
// is saved of the context.
//
//	AX  the Runnable that runs     R8   Loop
//	BX  the one that is to run     R9   Base
//	DI  the Runner                 R10  link of Loop
TEXT ·yield(SB), NOSPLIT|NOFRAME, $0
	MOVQ $const_Magic, CX
	CMPQ CX, 8(FS)
	JNE slow
	MOVQ TCB_Worker(FS), DI // the TCB is at the thread pointer
	TESTQ DI, DI
	JEQ slow
	MOVQ Runner_Current(DI), AX
	MOVQ Runner_Loop(DI), R8
	MOVL Runner_Tick(DI), DX
	TESTL $const_Stays, Runnable_Flags(AX)
	JNE slow
	CMPQ Runner_Top(DI), R8
	JNE slow
	SUBL $1, DX
	JEQ slow
	SHLQ $32, DX
	ORQ $1, DX
	MOVQ DX, Runner_Inside(DI) // and Tick
	CMPL Runner_Claimed(DI), $0
	JNE claimed
	MOVL Runnable_Next(R8), BX
	MOVL Runner_Link(DI), R10
	CMPL BX, R10
	JEQ alone

	// AX goes behind the last, R11.
	MOVQ Runner_Base(DI), R9
	MOVL Runnable_Prev(R8), R11
	MOVQ AX, R12
	SUBQ R9, R12
	SHRQ $const_LinkShift, R12 // its link
	MOVL R10, Runnable_Next(AX)
	MOVL R11, Runnable_Prev(AX)
	SHLQ $const_LinkShift, R11
	MOVL R12, Runnable_Next(R9)(R11*1)

	// BX is the first; behind it comes R11, which can be AX.
	SHLQ $const_LinkShift, BX
	ADDQ R9, BX
	MOVL Runnable_Next(BX), R11
	MOVL R12, Runnable_Prev(R8)
	MOVL R11, Runnable_Next(R8)
	SHLQ $const_LinkShift, R11
	MOVL R10, Runnable_Prev(R9)(R11*1)

	// From here on as switchTo, to which a jump would take a twentieth of all this.
	MOVQ BX, Runner_Current(DI)
	MOVQ SP, Context_SP(AX)
	MOVQ BP, Context_BP(AX)
	MOVL $0, Runner_Inside(DI) // AX can be taken from the ring from here on
	MOVQ Context_Guard(BX), DX
	MOVQ Context_SP(BX), CX
	MOVQ DX, G_StackGuard0(R14)
	TESTB $(const_fresh|const_returns), CX
	JNE special
	MOVQ CX, SP
	MOVQ Context_BP(BX), BP
	MOVL $1, AX // BX may come back from a switchIf
	RET

special:
	JMP ·jump(SB)

alone:
	MOVL $0, Runner_Inside(DI)
	RET

claimed:
	ADDL $1, Runner_Tick(DI)
	MOVL $0, Runner_Inside(DI)

slow:
	MOVQ ·slowYield(SB), DX
	MOVQ (DX), CX
	JMP CX
